"""Cases: the rollouts of which a search for heads asks why, cut at the edge, and whether there is anything to explain.

There is if the probe shows a cliff, or the model answers what it recognizes (`circuits.recognized`).

Complied rollouts (a harmful prompt was answered) are what is asked about; refused and benign ones are what they are
compared with. Everything is read at the edge, and under causal attention what follows the edge cannot matter to it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from circuits.recognized import answers_what_it_recognizes
from interp.models.capture import BATCH_TOKENS
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from probes.cliff import OUTCOMES, Cliff
from probes.cliff_run import measure_cliff
from probes.linear import LinearProbe
from probes.trajectory import check_probe

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

LIMIT = 200
"""Most rollouts of each outcome, unless told otherwise."""


@dataclass(frozen=True)
class Cases:
    """Rollouts by outcome, as transcripts whose last token is the edge.

    Attributes:
        complied, refused, benign: Transcripts, each cut after its edge.
        rollouts: The rollouts themselves, by outcome, in the same order.
        nothing: Why there is nothing to explain, else `None`.
        cliff: The cliff of these rollouts; `None` if there is no complied one.
        skipped: How many rollouts were left out, by reason.
        no_fall: Why the probe's score shows nothing to explain, for methods that explain its fall, else `None`. The
            model's own refusal logit may show it all the same (`circuits.recognized`), and `nothing` is then `None`.
    """

    complied: tuple[Transcript, ...]
    refused: tuple[Transcript, ...]
    benign: tuple[Transcript, ...]
    rollouts: Mapping[str, tuple[Rollout, ...]]
    nothing: str | None
    cliff: Cliff | None
    skipped: Mapping[str, int]
    no_fall: str | None = None

    @classmethod
    def of(
        cls,
        model: "HookedModel",
        probe: LinearProbe,
        rollouts: Sequence[Rollout],
        *,
        limit: int = LIMIT,
        seed: int = 0,
        batch_tokens: int = BATCH_TOKENS,
    ) -> "Cases":
        """Chooses rollouts with closed thinking, and asks whether they show a cliff.

        Args:
            model: The model that gave the rollouts.
            probe: Measures the cliff.
            rollouts: Judged rollouts.
            limit: Most rollouts of each outcome; which ones is drawn.
            seed: Of the draw and of the cliff's bootstrap.
            batch_tokens: Token budget of a batch.

        Raises:
            CliffscopeError: If the probe was made for another model, or a rollout does not fit the model.
        """
        check_probe(model, probe)
        drawn, cut, skipped = _draw(model, rollouts, limit, seed)
        cliff = None
        if drawn["complied"]:
            cliff = measure_cliff(
                model,
                probe,
                [rollout for mine in drawn.values() for rollout in mine],
                n_shuffles=0,
                by_layer=False,
                seed=seed,
                batch_tokens=batch_tokens,
            )
            no_fall = "; ".join(cliff.objections) or None
        elif complied := sum(rollout.outcome == "complied" for rollout in rollouts):
            no_fall = f"none of the {complied} complied rollouts has thinking that ends"
        else:
            refused = sum(rollout.outcome == "refused" for rollout in rollouts)
            no_fall = f"the model answered none of the {refused} harmful prompts"
        nothing = no_fall
        if cliff is not None and no_fall is not None:
            shown = answers_what_it_recognizes(model, cliff, cut, drawn, seed=seed, batch_tokens=batch_tokens)
            nothing = None if shown else no_fall
        return cls(**cut, rollouts=drawn, nothing=nothing, cliff=cliff, skipped=skipped, no_fall=no_fall)

    def prompts(self, outcome: str) -> tuple[str, ...]:
        """The prompts of an outcome's rollouts: cases of the same prompt belong together."""
        return tuple(rollout.prompt for rollout in self.rollouts[outcome])


def _draw(
    model: "HookedModel", rollouts: Sequence[Rollout], limit: int, seed: int
) -> tuple[dict[str, tuple[Rollout, ...]], dict[str, tuple[Transcript, ...]], dict[str, int]]:
    """At most `limit` rollouts of each outcome in their own order, their transcripts, and what was left out."""
    builder = model.transcripts()
    skipped: Counter[str] = Counter()
    chosen: dict[str, dict[int, Transcript]] = {outcome: {} for outcome in OUTCOMES}
    for index in np.random.default_rng(seed).permutation(len(rollouts)).tolist():
        outcome = rollouts[index].outcome
        if outcome not in chosen:
            skipped[f"outcome {outcome}"] += 1
        elif len(chosen[outcome]) == limit:
            skipped[f"more than {limit} {outcome}"] += 1
        elif (transcript := builder.build(rollouts[index])).thinking_state != "closed":
            skipped[f"thinking {transcript.thinking_state}"] += 1
        elif "close" not in transcript.segments or "thinking" not in transcript.segments:
            skipped["thinking or close without a token of its own"] += 1
        else:
            chosen[outcome][index] = transcript.until_edge()
    drawn = {name: tuple(rollouts[index] for index in sorted(mine)) for name, mine in chosen.items()}
    cut = {name: tuple(mine[index] for index in sorted(mine)) for name, mine in chosen.items()}
    return drawn, cut, dict(skipped)


def to_explain(
    complied: Float[np.ndarray, "n"] | Float[Tensor, "n"], refused: Float[np.ndarray, "m"] | Float[Tensor, "m"]
) -> float:
    """By how much refusal logits of complied rollouts fall short, in nats.

    The mean of refused rollouts minus the mean of complied ones; without refused rollouts, the distance of complied
    ones to even odds, minus their mean.

    Args:
        complied: Refusal logits at the edge of complied rollouts.
        refused: The same of refused rollouts; may be empty.

    Returns:
        A number above 0, or NaN if they do not fall short and there is nothing to explain.
    """
    if not len(complied):
        return float("nan")
    gap = float((refused.mean() if len(refused) else 0.0) - complied.mean())
    return gap if gap > 0 else float("nan")
