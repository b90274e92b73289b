"""What the calibration on organisms reads: rollouts under other labels, and the effects of heads, read once.

A null relabelling changes which rollouts are called complied, not what the model computes on them. So the effects of
every head are read once for every rollout, by the functions that the product's methods call, and a null run looks up
those of its rollouts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from circuits.ablation import ablation_sweep
from circuits.contributions import contributions
from circuits.gradient import gradient_effects
from circuits.sweeps.readouts import REFUSAL_LOGIT, Readouts
from interp.judges import KeywordJudge, judged
from interp.models.hooked_model import HookedModel
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.head_ablation import ScaleHeads
from interventions.heads import Head
from probes.cliff import Cliff, RolloutCliff
from probes.examples import Examples
from probes.linear import LinearProbe
from probes.model_sweep import fit_probe

SOURCE = Head(1, 0)
"""The head that the cascade knocks out; early, so that many heads lie behind it."""


@dataclass(frozen=True, eq=False)
class Material:
    """An organism with rollouts of its own and a probe fitted on them by the product's defaults."""

    model: HookedModel
    rollouts: tuple[Rollout, ...]

    @classmethod
    def of(cls, organism: str, n_harmful: int, n_benign: int, seed: int = 0) -> "Material":
        """Has an organism answer held-out prompts, greedily."""
        model = HookedModel.load(f"organism:{organism}", device="cpu")
        prompts = list(heldout_prompts(n_harmful, n_benign, seed))
        generator = ModelGenerator(model, 300, seed=seed, batch_tokens=131_072)
        return cls(model, tuple(judged(generator.generate(prompts), KeywordJudge())))

    def having(self, outcome: str) -> tuple[Rollout, ...]:
        """The rollouts with an outcome."""
        return tuple(rollout for rollout in self.rollouts if rollout.outcome == outcome)

    @cached_property
    def probe(self) -> LinearProbe:
        """Refused against benign, at the edge, the layer chosen by the product."""
        return fit_probe(self.model, Examples.of(self.model, self.rollouts, [EDGE]))[0]


def relabelled_cliff(cliff: Cliff, outcomes: Sequence[str], rows: Sequence[int]) -> Cliff:
    """Some rows of a cliff under other outcomes; what is measured of a rollout does not depend on its label."""
    chosen: list[RolloutCliff] = [
        replace(cliff.rows[row], outcome=outcome) for row, outcome in zip(rows, outcomes, strict=True)
    ]
    return replace(cliff, rows=tuple(chosen), curves={}, null=(), by_layer=None)


def at_edges(model: HookedModel, rollouts: Sequence[Rollout]) -> list[Transcript]:
    """Transcripts cut after their edge."""
    return [transcript.until_edge() for transcript in model.transcripts().build_all(rollouts)]


def head_effects(
    model: HookedModel, probe: LinearProbe, transcripts: Sequence[Transcript]
) -> Mapping[str, Float[np.ndarray, "rollout layer head"]]:
    """The scores that attribution, ablation, gradient and the cascade average over complied rollouts."""
    readouts = Readouts.of(model, probe)
    before = contributions(model, probe, transcripts).heads.double().numpy()
    with model.intervene(ScaleHeads([SOURCE], gamma=0.0, scope="all")):
        after = contributions(model, probe, transcripts).heads.double().numpy()
    ablated = ablation_sweep(model, transcripts, readouts, scope="from-edge").effect(REFUSAL_LOGIT)
    gradient = gradient_effects(model, transcripts, readouts, scope="from-edge").effect(REFUSAL_LOGIT)
    return {
        "attribution": -before,
        "ablation": ablated.double().numpy(),
        "gradient": gradient.double().numpy(),
        "cascade": (after - before)[:, SOURCE.layer + 1 :],
    }
