"""The rollouts between which a subspace is interchanged: two groups, cut at the edge, in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models.capture import BATCH_TOKENS
from interp.models.sites import Site
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.directions.contrasts import examples_of
from interventions.pairs import AlignedPair, choose_pairs
from interventions.subspace.site_passes import values_at

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass(frozen=True, eq=False)
class Groups:
    """Two groups of rollouts and the value of each at one site and position.

    Attributes:
        contrast: Its name; the positive group's name and the negative's are its two halves.
        site, position: Where values were read.
        transcripts: Of both groups, cut at the edge.
        prompts: Their prompts.
        labels: 1 for the positive group.
        values: Their values, flat; float32 on the CPU.
    """

    contrast: str
    site: Site
    position: str
    transcripts: tuple[Transcript, ...]
    prompts: tuple[str, ...]
    labels: Int[Tensor, " rollout"]
    values: Float[Tensor, "rollout width"]

    @classmethod
    def of(
        cls,
        model: "HookedModel",
        rollouts: Sequence[Rollout],
        contrast: str,
        site: Site,
        position: str,
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> "Groups":
        """Chooses the rollouts of a contrast that have the position and an edge, and reads them.

        Raises:
            CliffscopeError: If a group is empty or too small, or a value is NaN or infinite.
        """
        examples = examples_of(model, rollouts, contrast, list(dict.fromkeys((position, EDGE))))
        cut = tuple(transcript.until_edge() for transcript in examples.transcripts)
        values = values_at(model, cut, site, position, batch_tokens)
        return cls(contrast, site, position, cut, tuple(examples.prompts), examples.labels, values)

    @property
    def names(self) -> tuple[str, str]:
        """The positive group's and the negative's."""
        positive, _, negative = self.contrast.partition("-")
        return positive, negative

    @property
    def means(self) -> tuple[Float[Tensor, " width"], Float[Tensor, " width"]]:
        """The mean value of the positive and of the negative group."""
        return self.values[self.labels == 1].mean(0), self.values[self.labels == 0].mean(0)

    def some(self, rows: Sequence[int]) -> "Groups":
        """These rollouts only."""
        index = torch.as_tensor(list(rows), dtype=torch.long)
        return Groups(
            self.contrast,
            self.site,
            self.position,
            tuple(self.transcripts[row] for row in rows),
            tuple(self.prompts[row] for row in rows),
            self.labels[index],
            self.values[index],
        )

    def pairs(self, n: int, seed: int) -> tuple[AlignedPair, ...]:
        """`n` pairs of a positive (`refused`) and a negative (`complied`) rollout.

        Raises:
            CliffscopeError: If there are fewer than 8 of either, or a pair does not align at the position.
        """
        sides = [
            [t for t, label in zip(self.transcripts, self.labels.tolist(), strict=True) if label == side]
            for side in (1, 0)
        ]
        return choose_pairs(*sides, n=n, positions=[self.position], seed=seed, sides=self.names)

    def both_ways(self, pairs: Sequence[AlignedPair]) -> tuple[list[int], list[int]]:
        """The rows of recipients and donors: first each pair's negative rollout receives, then its positive one."""
        row = {transcript.id: number for number, transcript in enumerate(self.transcripts)}
        positive, negative = [row[pair.refused.id] for pair in pairs], [row[pair.complied.id] for pair in pairs]
        return negative + positive, positive + negative

    def prompts_of(self, names: Sequence[str]) -> list[str]:
        """The prompts of rollouts by their ids."""
        prompt = {t.id: text for t, text in zip(self.transcripts, self.prompts, strict=True)}
        return [prompt[name] for name in names]
