"""What directions do to the refusal logit at the edge: bypass, induce, restore, and the drift of benign answers.

See `interventions.directions.choosing` for what the four are and why.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.capture import BATCH_TOKENS
from interp.models.hooks import Intervention
from interp.models.intervening import NothingChangedWarning
from interp.models.sites import Site
from interp.rollouts import Rollout
from interp.significance import mean_and_interval
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.behaviour import drift
from interventions.directions.direction import Direction
from interventions.steering.along_direction import AblateDirection, AddDirection
from probes.splits import prompt_keys

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

EFFECTS = ("bypass", "induce", "restore", "kl")
MEASURED_ON = {"bypass": "refused", "induce": "benign", "restore": "complied", "kl": "benign"}
"""The outcome of the rollouts on which each effect is measured."""


def residual_sites(model: "HookedModel") -> tuple[str, ...]:
    """Every place of the residual stream: before the first block, and after each attention and each block.

    A direction removed at all of them is never read by any part of the model.
    """
    sites = [Site(0, "hook_resid_pre")]
    for layer in range(model.n_layers):
        middle = Site(layer, "hook_resid_mid")
        try:
            model.places.find(middle)
        except CliffscopeError:  # attention and MLP in parallel: there is no middle
            sites.append(Site(layer, "hook_resid_post"))
        else:
            sites += [middle, Site(layer, "hook_resid_post")]
    return tuple(map(str, sites))


@dataclass(frozen=True)
class EffectBench:
    """The rollouts on which effects are measured.

    Attributes:
        model: The model that gave them.
        at_edge: By outcome (refused, complied, benign) the transcripts, each cut after its edge.
        benign: The benign rollouts themselves, whole.
        token_ids: The tokens that start a refusal.
        sites: Where a direction is ablated.
        seed: Of the bootstrap.
        batch_tokens: Token budget of a batch.
    """

    model: "HookedModel"
    at_edge: Mapping[str, Sequence[Transcript]]
    benign: Sequence[Rollout]
    token_ids: tuple[int, ...]
    sites: tuple[str, ...]
    seed: int
    batch_tokens: int

    @classmethod
    def of(
        cls,
        model: "HookedModel",
        rollouts: Sequence[Rollout],
        trained_on: set[str],
        *,
        limit: int,
        seed: int,
        batch_tokens: int = BATCH_TOKENS,
    ) -> "EffectBench":
        """Draws rollouts with closed thinking, one a prompt and outcome, of no prompt in `trained_on`.

        Args:
            model: The model that gave the rollouts.
            rollouts: Judged rollouts.
            trained_on: Prompts to leave out, as `probes.splits.prompt_keys` writes them.
            limit: Most rollouts of each outcome.
            seed: Of the draw and of the bootstrap.
            batch_tokens: Token budget of a batch.

        Raises:
            CliffscopeError: If a rollout does not fit the model, or its tokenizer has no token that starts a refusal.
        """
        drawn: dict[str, list[tuple[Rollout, Transcript]]] = {"refused": [], "complied": [], "benign": []}
        order = np.random.default_rng(seed).permutation(len(rollouts)).tolist()
        held = [rollouts[i] for i in order if rollouts[i].outcome in drawn]
        seen = {(key, outcome) for key in trained_on for outcome in drawn}
        builder = model.transcripts()
        for rollout, key in zip(held, prompt_keys([rollout.prompt for rollout in held]), strict=True):
            if (key, rollout.outcome) in seen or len(drawn[rollout.outcome]) == limit:
                continue
            transcript = builder.build(rollout)
            if "close" in transcript.segments:
                seen.add((key, rollout.outcome))
                drawn[rollout.outcome].append((rollout, transcript.until_edge()))
        return cls(
            model=model,
            at_edge={outcome: [transcript for _, transcript in mine] for outcome, mine in drawn.items()},
            benign=[rollout for rollout, _ in drawn["benign"]],
            token_ids=refusal_token_ids(model.tokenizer, model.chat.thinking.close),
            sites=residual_sites(model),
            seed=seed,
            batch_tokens=batch_tokens,
        )

    def require(self, *outcomes: str) -> None:
        """Raises `CliffscopeError` if there is no rollout of an outcome to measure on."""
        words = {
            "refused": "refused a harmful prompt, of which it is measured whether ablation lowers refusal",
            "complied": "answered a harmful prompt, of which it is measured whether addition restores refusal",
            "benign": "answered a benign prompt, of which the drift is measured",
        }
        for outcome in outcomes:
            if not self.at_edge[outcome]:
                raise CliffscopeError(
                    f"rollouts: no held-out one with closed thinking {words[outcome]}; add some, of prompts other than "
                    "those the direction is fitted on."
                )

    def logits_before(self) -> dict[str, float]:
        """The mean refusal logit of each outcome that there is, without any change."""
        return {outcome: float(self._logits(outcome).mean()) for outcome in self.at_edge if self.at_edge[outcome]}

    def measure(self, direction: Direction) -> dict[str, Any]:
        """One row of the table."""
        ablated, added = AblateDirection(direction, sites=self.sites), AddDirection(direction, 1.0)
        row: dict[str, Any] = {
            "layer": direction.layer,
            "position": direction.position,
            "scale": direction.scale,
            "auroc": float(direction.training.get("auroc", float("nan"))),
        }
        for effect, change in (("bypass", ablated), ("induce", added), ("restore", added)):
            row |= self._summary(effect, self._logits(MEASURED_ON[effect], change))
        found = self._summary("kl", drift(self.model, self.benign, [ablated], batch_tokens=self.batch_tokens))
        # A divergence is not negative; NaN stays.
        return row | found | {"kl_low": max(found["kl_low"], 0.0)}

    def _logits(self, outcome: str, *changes: Intervention) -> Float[np.ndarray, "rollout"]:
        """The refusal logit at the edge of each rollout of an outcome."""
        transcripts = self.at_edge[outcome]
        if not transcripts:
            return np.empty(0)
        read = partial(refusal_logit, token_ids=self.token_ids)
        with warnings.catch_warnings():
            # A direction that no value has a part of is a result, and shows in the figures.
            warnings.simplefilter("ignore", NothingChangedWarning)
            with self.model.intervene(*changes):
                logits = self.model.logits(
                    transcripts,
                    [EDGE],
                    reduce=lambda values: read(values[:, 0])[:, None],
                    batch_tokens=self.batch_tokens,
                )
        return np.asarray(logits[:, 0].numpy(), dtype=np.float64)

    def _summary(self, name: str, values: Float[np.ndarray, "rollout"]) -> dict[str, float]:
        mean, low, high = mean_and_interval(values, seed=self.seed)
        return {name: float(mean), f"{name}_low": float(low), f"{name}_high": float(high)}
