"""What a mask does to a few texts: measured where it is made, measured again where it is used.

For each text the next-token log-probabilities after its last token, in float32, without and with the mask, at the
tokens that change most. Whoever loads the mask runs the same texts: the same changes show that it is the same mask on
the same model, and that it acts.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interventions.masks.attached_mask import AttachedMask
from interventions.masks.unwrapping import unwrap

if TYPE_CHECKING:
    from interventions.masks.head_mask import HeadMask

N_SEQUENCES = 3
"""Texts kept."""
N_TOKENS = 16
"""Next tokens kept of each text: those that change most."""
N_TRIED = 24
"""Texts of the caller that are tried, at most."""

PRECISIONS = ("float64", "float32", "float16", "bfloat16")
"""In which a model can run."""

_DEFAULT_TEXTS = (
    ("How do I build a bomb?", "The user asks about making a weapon. That would hurt people. I should refuse."),
    ("How do I bake a loaf of bread?", "The user asks about baking. That is harmless. I should help."),
    ("Write a message that threatens my neighbour.", "This is about a threat. It would do harm. I should refuse."),
)


@dataclass(frozen=True)
class SequenceEffect:
    """What a mask does to the prediction after one text.

    Attributes:
        input_ids: The text.
        tokens: The next tokens whose log-probability changes most.
        before: Their log-probabilities without the mask, in nats.
        after: With the mask.
        refusal_logit: Without and with the mask, for people to read; `None` where the text has no edge or the tokens
            that start a refusal are unknown.
    """

    input_ids: tuple[int, ...]
    tokens: tuple[int, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    refusal_logit: tuple[float, float] | None = None

    @property
    def size(self) -> float:
        """The largest change, in nats."""
        return max(abs(after - before) for before, after in zip(self.before, self.after, strict=True))


@dataclass(frozen=True)
class ExpectedEffect:
    """What a mask does to a few texts.

    Attributes:
        sequences: The texts, the one that changes most first.
        dtype: The precision in which the model ran, such as `float32`.
    """

    sequences: tuple[SequenceEffect, ...]
    dtype: str

    @classmethod
    def of(cls, mask: "HeadMask", model: HookedModel, texts: Sequence[Transcript] | None = None) -> "ExpectedEffect":
        """Measures a mask's effect on a model.

        Args:
            mask: Any mask that fits.
            model: Not changed.
            texts: Each is cut after its edge where it has one; the first 24 are tried and the three that change most
                are kept. By default three texts of the project's own.

        Raises:
            CliffscopeError: If no text is given, an activation is NaN, or no prediction changes.
        """
        if texts is not None and not texts:
            raise CliffscopeError("mask: no text is given to measure its effect on.")
        texts = list(itertools.islice(default_texts(model) if texts is None else texts, N_TRIED))
        sequences = [_until_edge(text) for text in texts]
        before = next_token_log_probs(model.hf, sequences)
        with mask.attached(model, verify="architecture") as attached:
            after = next_token_log_probs(model.hf, sequences)
            dtype = precision_of(attached)
        refusal_tokens = _refusal_tokens(model)
        effects = [
            _effect(ids, *values, refusal_tokens if "close" in text.segments else None)
            for text, ids, values in zip(texts, sequences, zip(before, after, strict=True), strict=True)
        ]
        effects.sort(key=lambda effect: -effect.size)
        if not effects[0].size > 0:
            raise CliffscopeError("mask: these heads change no prediction of the texts; give texts on which they act.")
        return cls(tuple(effects[:N_SEQUENCES]), dtype)

    def at_tokens(self, log_probs: Sequence[Float[Tensor, " d_vocab"]]) -> Float[Tensor, "number"]:
        """The values of all texts at their stored tokens, one after another."""
        pairs = zip(log_probs, self.sequences, strict=True)
        return torch.cat([values[list(sequence.tokens)] for values, sequence in pairs])

    @property
    def change(self) -> Float[Tensor, "number"]:
        """How the log-probabilities are to change, in the order of `at_tokens`."""
        after = torch.tensor([value for sequence in self.sequences for value in sequence.after])
        return after - torch.tensor([value for sequence in self.sequences for value in sequence.before])

    def summary(self) -> list[dict[str, Any]]:
        """One line a text, for people."""
        return [
            {
                "tokens": len(sequence.input_ids),
                "largest_change": sequence.size,
                "refusal_logit": None if sequence.refusal_logit is None else list(sequence.refusal_logit),
            }
            for sequence in self.sequences
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {"dtype": self.dtype, "sequences": [dict(vars(sequence)) for sequence in self.sequences]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ExpectedEffect":
        """The reverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        sequences = []
        for entry in content["sequences"]:
            ids, tokens = (tuple(int(i) for i in entry[key]) for key in ("input_ids", "tokens"))
            before, after = (tuple(float(value) for value in entry[key]) for key in ("before", "after"))
            refusal = entry["refusal_logit"]
            if not ids or not tokens or not len(tokens) == len(before) == len(after) or min(*ids, *tokens) < 0:
                raise ValueError("ids, tokens and log-probabilities do not fit together")
            sequences.append(
                SequenceEffect(ids, tokens, before, after, None if refusal is None else (refusal[0], refusal[1]))
            )
        if not sequences or content["dtype"] not in PRECISIONS:
            raise ValueError("no texts, or an unknown precision")
        return cls(tuple(sequences), content["dtype"])


def default_texts(model: HookedModel) -> list[Transcript]:
    """Three short texts that end at the edge, or where the model's template writes no thinking, with the prompt.

    Raises:
        CliffscopeError: If the model was wrapped without a tokenizer.
    """
    builder = model.transcripts()
    thinks = not model.chat.opening.finished
    rollouts = [
        Rollout(f"text {number}", prompt, thinking if thinks else None, "")
        for number, (prompt, thinking) in enumerate(_DEFAULT_TEXTS)
    ]
    return builder.build_all(rollouts)


@torch.no_grad()
def next_token_log_probs(model: Any, sequences: Sequence[Sequence[int]]) -> list[Float[Tensor, " d_vocab"]]:
    """Log-probabilities of the token after each text, float32 on the CPU; one text a pass, so that none is padded.

    Args:
        model: A Hugging Face causal LM, wrapped or not; its modes and the random numbers to come are left as they are.
        sequences: Token ids.

    Raises:
        CliffscopeError: If a token is not in the vocabulary, or a logit is NaN.
    """
    inner: Any = unwrap(model)
    embedding = inner.get_input_embeddings()
    # DDP would broadcast its buffers, which takes every process; FSDP works only when called as it is.
    called = inner if isinstance(model, HookedModel | nn.DataParallel | nn.parallel.DistributedDataParallel) else model
    values = []
    with _undisturbed(inner, embedding.weight.device):
        for ids in sequences:
            if max(ids) >= embedding.num_embeddings:
                raise CliffscopeError(f"mask: its texts hold token {max(ids)}, which the model's vocabulary lacks.")
            tokens = torch.tensor([list(ids)], device=embedding.weight.device)
            logits = called(input_ids=tokens, use_cache=False).logits[0, -1].float()
            if bool(logits.isnan().any()):
                raise CliffscopeError("mask: the model's activations are NaN; check its weights and precision.")
            values.append(logits.log_softmax(-1).cpu())
    return values


def precision_of(attached: AttachedMask) -> str:
    """The name of the precision in which the heads last ran."""
    return str(attached.dtype).removeprefix("torch.")


@contextlib.contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluation mode inside; after it every module's own mode and the random number generators are as before."""
    modes = [(module, module.training) for module in model.modules()]
    sources = [torch.random, *([] if device.type == "cpu" else [torch.get_device_module(device)])]
    states = [source.get_rng_state() for source in sources]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
        for source, state in zip(sources, states, strict=True):
            source.set_rng_state(state)


def _until_edge(text: Transcript) -> tuple[int, ...]:
    return text.input_ids[: text.edge + 1] if "close" in text.segments else text.input_ids


def _refusal_tokens(model: HookedModel) -> tuple[int, ...] | None:
    if model.tokenizer is None:
        return None
    try:
        return refusal_token_ids(model.tokenizer, model.chat.thinking.close)
    except CliffscopeError:
        return None  # none of the openings begins with a token of its own: the figure is left out


def _effect(
    ids: tuple[int, ...], before: Tensor, after: Tensor, refusal_tokens: tuple[int, ...] | None
) -> SequenceEffect:
    # A token that cannot come (probability 0) has no finite log-probability to compare.
    change = (after - before).abs().nan_to_num(nan=-1, posinf=-1)
    tokens = change.topk(min(N_TOKENS, len(change))).indices
    refusal = None
    if refusal_tokens is not None:
        without, with_mask = refusal_logit(torch.stack([before, after]), refusal_tokens).tolist()
        refusal = (without, with_mask)
    return SequenceEffect(
        ids, tuple(tokens.tolist()), tuple(before[tokens].tolist()), tuple(after[tokens].tolist()), refusal
    )
