"""What the tests of dose-response work on: made-up tables, and a refusal direction of an organism."""

from functools import cache
from typing import Any

from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.prompts import PromptSet
from interp.transcripts.positions import EDGE
from interventions.directions.direction import Direction
from interventions.dose import DoseResponse
from interventions.dose.options import Cell
from tests.circuits.material import organism, organism_rollouts

FACTS: dict[str, Any] = {
    "options": {"layers": [2, 3], "alphas": [1.0], "mode": "add", "units": "scale", "scope": "all", "controls": 0},
    "vector": {"kind": "refusal"},
}


def row(cell: Cell, asr: float, refusal: float = 0.0, useless: float = 0.0, drift: float = 0.1) -> dict[str, Any]:
    """A made-up row of 100 harmful and 100 benign prompts."""
    spread = {"_low": -0.05, "": 0.0, "_high": 0.05}
    shares = {"asr": asr, "refusal_benign": refusal, "useless": useless, "kl_benign": drift, "refusal_logit": 0.0}
    figures = {f"{name}{end}": value + by for name, value in shares.items() for end, by in spread.items()}
    counts = {"n_harmful": 100, "answered": round(100 * asr), "n_benign": 100, "benign_refused": round(100 * refusal)}
    return {**vars(cell), **counts, **figures, "unjudged": 0, "unclosed": 0.0, "looping": 0.0}


def response(*rows: dict[str, Any], **options: Any) -> DoseResponse:
    """A made-up table behind an unsteered model that answers 70 of 100 harmful prompts."""
    facts = {**FACTS, "options": {**FACTS["options"], **options}}
    return DoseResponse.of([row(Cell("unsteered"), 0.7, drift=0.0), *rows], "made-up", facts)


def vector(layer: int, alpha: float, *figures: float) -> dict[str, Any]:
    """A row of the vector."""
    return row(Cell("vector", None, layer, alpha), *figures)


def random(draw: int, layer: int, alpha: float, *figures: float) -> dict[str, Any]:
    """A row of a control."""
    return row(Cell("random", draw, layer, alpha), *figures)


@cache
def refusal_direction(layer: int = 3) -> Direction:
    """From the mean of complied to that of refused rollouts of `organism:cliff` at the edge."""
    model, site = organism("cliff"), f"blocks.{layer}.hook_resid_post"
    means = {}
    for outcome in ("refused", "complied"):
        chosen = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == outcome]
        transcripts = model.transcripts().build_all(chosen)
        means[outcome] = model.capture(transcripts, [site], [EDGE])[site][:, 0].float().mean(0)
    place = {"model": model.name, "fingerprint": model.fingerprint, "layer": layer, "site": site, "position": EDGE}
    made = Direction.of(means["refused"] - means["complied"], kind="refusal", method="mean-difference", **place)
    return made.at(positive=made.coordinates(means["refused"]), negative=made.coordinates(means["complied"]))


@cache
def few_prompts(n_harmful: int = 6, n_benign: int = 4) -> PromptSet:
    """They only name a harm; the direction was fitted on others."""
    return heldout_prompts(n_harmful, n_benign, seed=7)
