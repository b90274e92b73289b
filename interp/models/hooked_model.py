"""`HookedModel`: a Hugging Face causal language model that can be read and changed at named sites."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.shown import Shown, Words
from interp.errors import CliffscopeError
from interp.models.capture import Capture, capture, logits
from interp.models.generation import generate
from interp.models.hooks import Intervention
from interp.models.intervening import Intervening
from interp.models.ledger import Ledger
from interp.models.loading import load_checkpoint
from interp.models.places import Places
from interp.transcripts import Transcript, TranscriptBuilder
from interp.transcripts.chat import ChatFormat

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from interp.models.interop.transformer_lens import BridgePass, TransformerLensHook


class HookedModel(Shown):
    """Wraps a Hugging Face causal LM in place: no weight is copied or converted, attention stays as it was loaded.

    Sites carry TransformerLens' names and positions are named as in `Transcript.position`. Heads are query heads.

    Attributes:
        hf: The Hugging Face model itself.
        tokenizer: Its tokenizer; `None` if it was wrapped without one.
        name: What it was loaded as.
        places: Where its parts live, and its sizes.

    Raises:
        CliffscopeError: If the architecture cannot be mapped.
    """

    def __init__(self, hf: Any, tokenizer: Any = None, *, name: str | None = None) -> None:
        self.hf = hf
        self.tokenizer = tokenizer
        self.name = name or getattr(hf, "name_or_path", "") or type(hf).__name__
        self.places = Places(hf)
        self._intervening = Intervening(self)

    @classmethod
    def load(
        cls,
        name_or_path: str,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
    ) -> "HookedModel":
        """Loads a model for reading: a Hugging Face id, a local folder, or `organism:NAME`.

        Args:
            name_or_path: What to load. Something that exists as a folder is never looked up on the hub.
            device: `None` takes the accelerator if there is one.
            dtype: `None` keeps the checkpoint's own precision.
            revision: Branch, tag or commit on the hub.
            attn_implementation: `sdpa`, `eager`, `flash_attention_2`, …; `None` lets transformers choose.
            trust_remote_code: Lets transformers run code that comes with the checkpoint.

        Raises:
            CliffscopeError: If there is no such model or it cannot be used.
        """
        hf, tokenizer = load_checkpoint(name_or_path, device, dtype, revision, attn_implementation, trust_remote_code)
        return cls(hf, tokenizer, name=name_or_path)

    def words(self) -> Words:
        """Its architecture and sizes; `cliffscope inspect` says more."""
        sizes = f"{self.n_layers} layers × {self.n_heads} heads, d_model {self.d_model:,}"
        kind = str(self.dtype).removeprefix("torch.")
        return Words(f"Model {self.name}", f"{self.places.architecture}, {sizes}, {kind} on {self.device}")

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the embedding."""
        weight = self.hf.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights."""
        dtype: torch.dtype = self.hf.dtype
        return dtype

    @property
    def n_layers(self) -> int:
        """Blocks."""
        return self.places.n_layers

    @property
    def n_heads(self) -> int:
        """Query heads a layer."""
        return self.places.n_heads

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads a layer; fewer than `n_heads` under grouped-query attention."""
        return self.places.n_kv_heads

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.places.d_model

    @property
    def d_head(self) -> int:
        """Width of one head's output `z`."""
        return self.places.d_head

    @property
    def d_vocab(self) -> int:
        """Tokens in the vocabulary."""
        return self.places.d_vocab

    @property
    def n_ctx(self) -> int:
        """The longest input, in tokens."""
        return self.places.n_ctx

    @property
    def fingerprint(self) -> dict[str, str]:
        """Architecture and sizes: what a probe or mask must agree with to be used on this model."""
        sizes = ("n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_vocab")
        return {
            "architecture": self.places.architecture,
            **{size: str(getattr(self, size)) for size in sizes},
        }

    @cached_property
    def chat(self) -> ChatFormat:
        """How this model's conversations are written. Assign another to use other thinking tags."""
        return ChatFormat.of(self._require_tokenizer())

    def transcripts(self, system: str | None = None) -> TranscriptBuilder:
        """A builder of transcripts for this model, which refuses what is longer than its context."""
        return TranscriptBuilder(self._require_tokenizer(), chat=self.chat, max_length=self.n_ctx, system=system)

    def capture(
        self,
        transcripts: Sequence[Transcript],
        sites: Sequence[str],
        positions: Sequence[str | int],
        **options: Any,
    ) -> Capture:
        """Values at sites and positions, in the order of the transcripts; see `interp.models.capture.capture`."""
        return capture(self, transcripts, sites, positions, **options)

    def logits(
        self, transcripts: Sequence[Transcript], positions: Sequence[str | int], **options: Any
    ) -> Float[Tensor, "rollout position ..."]:
        """Next-token logits at positions only; see `interp.models.capture.logits`."""
        return logits(self, transcripts, positions, **options)

    def generate(self, prompts: Sequence[Transcript], **options: Any) -> list[list[int]]:
        """New token ids for each prompt, interventions active at every one; see `interp.models.generation.generate`."""
        return generate(self, prompts, **options)

    @contextlib.contextmanager
    def intervene(self, *interventions: Intervention, ledger: Ledger | None = None) -> Iterator["HookedModel"]:
        """Makes the interventions part of every forward pass inside the `with` block.

        They act in the order given; blocks nest, inner ones acting after outer ones. On leaving, also by an exception,
        exactly these hooks are removed. One that changed nothing in the passes inside warns.

        Args:
            interventions: What to change.
            ledger: Takes down which tokens were changed; it looks at every value, which costs time.

        Raises:
            CliffscopeError: If an intervention does not fit this model; then none of them is active.
        """
        with self._intervening.active(interventions, ledger):
            yield self

    @contextlib.contextmanager
    def reading(
        self, transcripts: Sequence[Transcript], index: Tensor | None = None, stop: Sequence[int] | None = None
    ) -> Iterator[None]:
        """Tells interventions, for the passes inside, whose rows these are and which tokens the columns are.

        Args:
            transcripts: One a row.
            index: `[batch, pos]`; derived from the attention mask if `None`.
            stop: Given while the rows are being written on: the ids that end one.
        """
        with self._intervening.reading(transcripts, index, stop):
            yield

    def as_transformer_lens(self, check: bool = True) -> "TransformerBridge":
        """A TransformerBridge over the same weights: its parameters are this model's own, which stays as it is.

        The bridge is in evaluation mode, in the same precision and place, and its weights are not processed (no
        folding, no centering), so numbers agree to rounding; TransformerLens computes attention in its own way. It
        tokenizes text as the tokenizer does, without a BOS of its own. What would change or move the shared weights
        under this model is refused.

        Args:
            check: Compare the logits of a few tokens with this model's: there are architectures that TransformerLens
                computes differently.

        Raises:
            CliffscopeError: If hooks, adapters or quantization are on the model, it holds no weights, or the numbers
                differ.
        """
        from interp.models.interop.transformer_lens import as_transformer_lens

        return as_transformer_lens(self, self._bridge_pass, check)

    def as_transformer_lens_hooks(
        self, *interventions: Intervention, transcripts: Sequence[Transcript] = ()
    ) -> "list[TransformerLensHook]":
        """Interventions as hooks for the bridges that `as_transformer_lens` makes of this model.

            bridge = model.as_transformer_lens()
            hooks = model.as_transformer_lens_hooks(a, b, transcripts=[transcript])
            logits = bridge.run_with_hooks(torch.tensor([transcript.input_ids]), fwd_hooks=hooks)

        The same list serves `run_with_hooks`, `with bridge.hooks(...)` and, inside that, `bridge.generate`.

        Args:
            interventions: They act in the order given.
            transcripts: One a row of the batch, or the prompts of a generation. Without them an intervention can act at
                all tokens only.

        Raises:
            CliffscopeError: If an intervention does not fit this model. While running: if the rows are not the
                transcripts, or segments are asked for and there are none.
        """
        from interp.models.interop.transformer_lens import transformer_lens_hooks

        return transformer_lens_hooks(self, self._bridge_pass, interventions, transcripts)

    def as_nnsight(self) -> Any:
        """An nnsight model over the same weights: its parameters are this model's own, which stays as it is.

        A `TransformersModel` with the tokenizer, or an `NNsight` where there is none. Interventions act on what
        `interp.models.interop.nnsight.intervened` makes of it.

        Raises:
            CliffscopeError: If nnsight is not installed, or hooks are on the model.
        """
        from interp.models.interop.nnsight import as_nnsight

        return as_nnsight(self)

    @cached_property
    def _bridge_pass(self) -> "BridgePass":
        from interp.models.interop.transformer_lens import BridgePass

        return BridgePass()

    def require_eval(self) -> None:
        """Raises `CliffscopeError` in training mode, where dropout would make the numbers wrong."""
        if self.hf.training:
            raise CliffscopeError(f"{self.name} is in training mode: call model.hf.eval() before reading it.")

    def _require_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise CliffscopeError(f"{self.name} was wrapped without a tokenizer: pass HookedModel(hf, tokenizer).")
        return self.tokenizer
