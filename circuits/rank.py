"""Ranking heads by any of the methods, with what later steps need put down in the table."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from circuits.ablation import Scope
from circuits.cases import Cases
from circuits.head_scores import HeadScores, Method
from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE, check_position
from probes.linear import LinearProbe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

Advance = Callable[[int], None]

METHODS: tuple[Method, ...] = get_args(Method)

N_EXAMPLES = 3
"""Complied rollouts whose tokens go into the table, so that a mask's effect can be measured where it matters."""


@dataclass(frozen=True)
class RankOptions:
    """How heads are ranked.

    Attributes:
        method: `attribution`, `ablation`, `gradient`, `interchange` or `shapley`.
        scope: Of ablation and gradient: `all` positions or `from-edge`.
        gamma: Of ablation and gradient: what is kept of a head's output.
        steps: Of gradient: 0 for one gradient, more for integrated gradients.
        pairs: Of interchange and shapley: how many.
        positions: Of interchange: where values are exchanged.
        seed: Of every random choice.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If the method or a position is unknown, or with this gamma nothing would be ablated.
    """

    method: Method = "ablation"
    scope: Scope = "from-edge"
    gamma: float = 0.0
    steps: int = 0
    pairs: int = 120
    positions: tuple[str, ...] = (EDGE,)
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise CliffscopeError(f"method {self.method!r}: expected one of {', '.join(METHODS)}.")
        for position in self.positions:
            check_position(position)
        check_gamma(self.gamma)


def check_gamma(gamma: float) -> None:
    """Raises `CliffscopeError` if heads cannot be scaled by this, or scaling by it changes nothing."""
    if not math.isfinite(gamma) or gamma == 1:
        raise CliffscopeError(f"gamma {gamma:g}: expected a finite number other than 1, which would change nothing.")


def rank_heads(
    model: "HookedModel",
    probe: LinearProbe,
    cases: Cases,
    options: RankOptions | None = None,
    advance: Advance = lambda amount: None,
) -> HeadScores:
    """Scores every head by the chosen method.

    Where there is nothing to explain, no head is named and the table says why.

    Args:
        model: The model.
        probe: A refusal probe of the model.
        cases: The rollouts.
        options: How; see there.
        advance: Told how much more is done; `n_steps` tells how much there is.

    Raises:
        CliffscopeError: If the probe is not the model's, or as the method does.
    """
    options = options or RankOptions()
    scores = _SCORERS[options.method](model, probe, cases, options, advance)
    examples = [list(transcript.input_ids) for transcript in cases.complied[:N_EXAMPLES]]
    # What a method that reads the refusal logit explains, although the probe shows no cliff.
    told = {} if scores.facts["nothing"] is not None or cases.no_fall is None else {"no_fall": cases.no_fall}
    return replace(scores, facts={**scores.facts, **told, "examples": examples})


def n_steps(cases: Cases, options: RankOptions) -> int:
    """How much `rank_heads` has to do: complied rollouts, or pairs of which each is exchanged in both directions."""
    if cases.nothing is not None or (options.method == "attribution" and cases.no_fall is not None):
        return 0
    if options.method in ("interchange", "shapley"):
        # In both directions; Shapley values in two orders each.
        passes = 4 if options.method == "shapley" else 2
        return passes * min(options.pairs, len(cases.refused) * len(cases.complied))
    return len(cases.complied)


def _attribution(
    model: "HookedModel", probe: LinearProbe, cases: Cases, options: RankOptions, advance: Advance
) -> HeadScores:
    from circuits.attribution import attribute

    return attribute(model, probe, cases, seed=options.seed, batch_tokens=options.batch_tokens, advance=advance)


def _ablation(
    model: "HookedModel", probe: LinearProbe, cases: Cases, options: RankOptions, advance: Advance
) -> HeadScores:
    from circuits.ablation_scores import score_ablation

    return score_ablation(
        model,
        probe,
        cases,
        scope=options.scope,
        gamma=options.gamma,
        seed=options.seed,
        batch_tokens=options.batch_tokens,
        advance=advance,
    )


def _gradient(
    model: "HookedModel", probe: LinearProbe, cases: Cases, options: RankOptions, advance: Advance
) -> HeadScores:
    from circuits.gradient import score_gradient

    return score_gradient(
        model,
        probe,
        cases,
        scope=options.scope,
        gamma=options.gamma,
        steps=options.steps,
        seed=options.seed,
        batch_tokens=options.batch_tokens,
        advance=advance,
    )


def _interchange(
    model: "HookedModel", probe: LinearProbe, cases: Cases, options: RankOptions, advance: Advance
) -> HeadScores:
    from circuits.interchange import screen

    return screen(
        model,
        probe,
        cases,
        n_pairs=options.pairs,
        positions=options.positions,
        seed=options.seed,
        batch_tokens=options.batch_tokens,
        advance=advance,
    )


def _shapley(
    model: "HookedModel", probe: LinearProbe, cases: Cases, options: RankOptions, advance: Advance
) -> HeadScores:
    from circuits.shapley import score_shapley

    return score_shapley(
        model,
        probe,
        cases,
        n_pairs=options.pairs,
        seed=options.seed,
        batch_tokens=options.batch_tokens,
        advance=advance,
    )


# Imported inside: a ranking by one method does not wait for the others' libraries.
_SCORERS = {
    "attribution": _attribution,
    "ablation": _ablation,
    "gradient": _gradient,
    "interchange": _interchange,
    "shapley": _shapley,
}


def examples_of(scores: HeadScores) -> list[Transcript] | None:
    """The rollouts whose tokens a table carries, each ending at its edge; `None` if it carries none."""
    rows = scores.facts.get("examples") or []
    return [_up_to_edge(f"example {number}", ids) for number, ids in enumerate(rows)] or None


def _up_to_edge(id: str, ids: list[int]) -> Transcript:
    labels = ("template",) * (len(ids) - 1) + ("close",)
    return Transcript(id, tuple(ids), ("",) * len(ids), labels, len(ids) - 1, "closed")
