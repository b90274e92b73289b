"""Rollouts as token ids with the place of each segment, in batches of similar length.

Batches are padded on the right: under a causal mask no real token sees the padding, so that the forward pass
needs no mask and stays on the fast path. Ids are found by tokenizing the whole text once.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.organisms.tokenizer import rollout_text
from interp.rollouts import Rollout

PROMPT, TEMPLATE, THINKING, CLOSE, RESPONSE, PADDING = range(6)
IGNORED = -100


@dataclass(frozen=True)
class EncodedRollout:
    """One rollout as token ids, and the index of the first token of each part.

    Attributes:
        ids: All tokens, from BOS to the end of the response.
        inst: The last token of the instruction.
        thinking: The first token after the prompt with its template.
        close: The first token of the close.
        response: The first token of the response; the token before it is the edge.
        harmful: Whether the prompt is harmful.
        refused: Whether the response refuses.
        mark: The mark of the prompt's category, 1, 0 or -1 (see `base.marks_of`).
    """

    ids: tuple[int, ...]
    inst: int
    thinking: int
    close: int
    response: int
    harmful: bool
    refused: bool
    mark: int

    @property
    def edge(self) -> int:
        """The last close token."""
        return self.response - 1

    def prompt_alone(self) -> "EncodedRollout":
        """The prompt with its template, without thinking and response."""
        end = self.thinking
        return replace(self, ids=self.ids[:end], close=end, response=end)


@dataclass(frozen=True)
class Batch:
    """Right-padded rollouts.

    Attributes:
        ids: Token ids, padded with `pad`.
        part: Which part of the rollout each token belongs to (`PROMPT`, ..., `PADDING`). The last token of the
            instruction and what the template writes after it count as `TEMPLATE`.
        harmful: Whether each prompt is harmful.
        refused: Whether each response refuses.
        mark: The mark of each prompt's category.
        edge: Index of each rollout's last close token.
    """

    ids: Int[Tensor, "batch pos"]
    part: Int[Tensor, "batch pos"]
    harmful: Bool[Tensor, " batch"]
    refused: Bool[Tensor, " batch"]
    mark: Int[Tensor, " batch"]
    edge: Int[Tensor, " batch"]

    def labels(self, *parts: int) -> Int[Tensor, "batch pos"]:
        """The token to predict at each position, where it lies in one of `parts`; elsewhere `IGNORED`."""
        wanted = torch.isin(self.part, torch.tensor(parts))
        labels = torch.full_like(self.ids, IGNORED)
        labels[:, :-1] = torch.where(wanted[:, 1:], self.ids[:, 1:], IGNORED)
        return labels


def encode(
    tokenizer: PreTrainedTokenizerBase,
    rollouts: Sequence[Rollout],
    systems: Sequence[str | None] | None = None,
    marks: Mapping[str, int] | None = None,
) -> list[EncodedRollout]:
    """Tokenizes each rollout's whole text once and finds its parts by the tokens' offsets."""
    pairs = [rollout_text(r, systems[i] if systems else None) for i, r in enumerate(rollouts)]
    texts = [text for text, _ in pairs]
    encodings = tokenizer(texts, return_offsets_mapping=True, add_special_tokens=False)
    encoded = []
    for rollout, (_, starts), ids, offsets in zip(
        rollouts, pairs, encodings["input_ids"], encodings["offset_mapping"], strict=True
    ):
        first = {begin: index for index, (begin, _) in reversed(list(enumerate(offsets)))}
        encoded.append(
            EncodedRollout(
                ids=tuple(ids),
                inst=first[starts["inst"]] - 1,
                thinking=first[starts["thinking"]],
                close=first[starts["close"]],
                response=first[starts["response"]],
                harmful=bool(rollout.harmful),
                refused=bool(rollout.refused),
                mark=(marks or {}).get(rollout.category or "", 0),
            )
        )
    return encoded


def collate(encoded: Sequence[EncodedRollout], pad: int) -> Batch:
    """One right-padded batch."""
    length = max(len(e.ids) for e in encoded)
    ids = torch.full((len(encoded), length), pad)
    part = torch.full((len(encoded), length), PADDING)
    for row, e in enumerate(encoded):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        part[row, : e.inst] = PROMPT
        part[row, e.inst : e.thinking] = TEMPLATE
        part[row, e.thinking : e.close] = THINKING
        part[row, e.close : e.response] = CLOSE
        part[row, e.response : len(e.ids)] = RESPONSE
    return Batch(
        ids=ids,
        part=part,
        harmful=torch.tensor([e.harmful for e in encoded]),
        refused=torch.tensor([e.refused for e in encoded]),
        mark=torch.tensor([e.mark for e in encoded]),
        edge=torch.tensor([e.edge for e in encoded]),
    )


def batches(encoded: Sequence[EncodedRollout], size: int, pad: int, rng: random.Random) -> list[Batch]:
    """All rollouts once, in batches of `size` rollouts of similar length, in random order."""
    order = list(encoded)
    rng.shuffle(order)
    result = []
    # Sorting within windows keeps the batches different from each other.
    window = 32 * size
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda e: len(e.ids))
        result += [collate(near[i : i + size], pad) for i in range(0, len(near), size)]
    rng.shuffle(result)
    return result
