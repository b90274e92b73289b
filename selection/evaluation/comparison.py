"""`compare`: any number of evaluations side by side, and each against the first, prompt by prompt."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.display.shown import Drawn, Words
from interp.errors import CliffscopeError
from interp.paired import PairedDifference, Pairs, paired_difference
from selection.evaluation.evaluation import Evaluation
from selection.evaluation.outcomes import MEASURES, Rate

if TYPE_CHECKING:
    import plotly.graph_objects as go

COMPARED = ("asr", "over_refusal", "trap_refusal", "unclosed", "looping")
"""The rates that a comparison shows, by their names in `MEASURES`."""


@dataclass(frozen=True, repr=False)
class Comparison(Drawn):
    """Evaluations side by side; the first is the base.

    Attributes:
        evaluations: In the order given.
        labels: What to call them; no two the same.
        differences: For each evaluation after the first, by the name of the rate: it less the base, on the prompts that
            both have. Rates whose prompts one of them lacks are not there.
        caveats: Sentences on what else differs between them, and may explain a difference.
    """

    evaluations: tuple[Evaluation, ...]
    labels: tuple[str, ...]
    differences: tuple[Mapping[str, PairedDifference], ...]
    caveats: tuple[str, ...]

    def rate(self, index: int, measure: str) -> Rate | None:
        """A rate of one evaluation; `None` if it has no such prompts."""
        evaluation = self.evaluations[index]
        return evaluation.rate(measure) if set(MEASURES[measure].sets) & set(evaluation.sets) else None

    def figure(self) -> "go.Figure":
        """Harmful prompts answered against harmless ones refused; see `selection.evaluation.figure`."""
        from selection.evaluation.figure import comparison_figure

        return comparison_figure(self)

    def words(self) -> Words:
        """The rates of each evaluation with their 95 % intervals, and what must be known to read them."""
        from selection.evaluation.tables import comparison_rows, sentences

        others = ", ".join(self.labels[1:])
        head = f"{others} against {self.labels[0]}" if others else self.labels[0]
        return Words("Comparison", head, sentences(self), comparison_rows(self))

    def payload(self) -> dict[str, Any]:
        """All figures, as JSON holds them, NaN aside."""
        rows: list[dict[str, Any]] = []
        for index, (label, evaluation) in enumerate(zip(self.labels, self.evaluations, strict=True)):
            rates = {name: self.rate(index, name) for name in COMPARED}
            rows.append(
                {
                    "label": label,
                    "model": evaluation.model,
                    "interventions": list(evaluation.interventions),
                    "judge": evaluation.judge,
                    **{name: None if rate is None else rate.payload() for name, rate in rates.items()},
                    "kl": evaluation.kl.payload(),
                    "perplexity": evaluation.perplexity.payload(),
                    "unjudged": evaluation.unjudged,
                    "against_base": None if index == 0 else self._against_base(index),
                }
            )
        return {"base": self.labels[0], "evaluations": rows, "caveats": list(self.caveats)}

    def _against_base(self, index: int) -> dict[str, Any]:
        return {
            name: {
                "n": found.n,
                "base": found.first,
                "here": found.second,
                "difference": found.difference,
                "low": found.interval.low,
                "high": found.interval.high,
                "only_base": found.test.only_first,
                "only_here": found.test.only_second,
                "p": found.test.p,
            }
            for name, found in self.differences[index - 1].items()
        }


def compare(evaluations: Sequence[Evaluation], *, seed: int = 0) -> Comparison:
    """Compares evaluations with the first of them.

    The differences are of the same prompts (the same set, id and text), with a bootstrap interval over prompts and
    McNemar's exact p; each p is that of one difference alone, with no correction for there being several.

    Args:
        evaluations: The base, and others.
        seed: Of the bootstrap.

    Raises:
        CliffscopeError: If there are none, or one shares no prompts with the base in a set that both have.
    """
    if not evaluations:
        raise CliffscopeError("compare: give at least one evaluation.")
    labels = _distinct([evaluation.label for evaluation in evaluations])
    base, *others = evaluations
    differences = tuple(
        _differences(base, other, (labels[0], label), seed) for other, label in zip(others, labels[1:], strict=True)
    )
    return Comparison(tuple(evaluations), tuple(labels), differences, tuple(_caveats(evaluations, labels)))


def _distinct(labels: Sequence[str]) -> list[str]:
    """The labels, a number behind those that came before."""
    seen: Counter[str] = Counter()
    made: list[str] = []
    for label in labels:
        seen[label] += 1
        numbered = label
        while numbered in made:
            numbered = f"{label} ({seen[label]})"
            seen[label] += numbered in made
        made.append(numbered)
    return made


def _differences(
    base: Evaluation, other: Evaluation, labels: tuple[str, str], seed: int
) -> dict[str, PairedDifference]:
    found = {}
    shared_sets = [name for name in base.sets if name in other.sets]
    for name in shared_sets:
        mine, theirs = ({o.key for o in one.outcomes if o.set == name} for one in (base, other))
        if not mine & theirs:
            raise CliffscopeError(
                f"compare: {labels[0]!r} and {labels[1]!r} share none of their {name} prompts ({len(mine)} and "
                f"{len(theirs)}): evaluate both on the same, with the same ids."
            )
    for name in COMPARED:
        measure = MEASURES[name]
        chosen = [measure.values([o for o in one.outcomes if o.set in shared_sets]) for one in (base, other)]
        if set(measure.sets) & set(shared_sets):
            pairs = Pairs.of(*chosen)
            found[name] = paired_difference(pairs.first, pairs.second, seed=seed)
    return found


def _caveats(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> list[str]:
    """What differs from the base beside the model, one sentence for each kind and evaluation."""
    base, found = evaluations[0], []
    for evaluation, label in zip(evaluations[1:], labels[1:], strict=True):
        if evaluation.judge != base.judge:
            found.append(
                f"{label} was judged by {evaluation.judge} and {labels[0]} by {base.judge}: a difference may be theirs."
            )
        for key, value in base.settings.items():
            other = evaluation.settings.get(key)
            if other != value:
                noise = ", so the noise is not common" if key == "seed" and base.settings["temperature"] else ""
                found.append(f"{label} has {key} {other}, {labels[0]} {value}{noise}.")
        if evaluation.reference["rollouts"] != base.reference["rollouts"]:
            found.append(f"{label} has its perplexity on other rollouts than {labels[0]}: they cannot be compared.")
    for evaluation, label in zip(evaluations, labels, strict=True):
        for name, count in evaluation.unjudged.items():
            if count:
                found.append(f"{label}: {count} {name} responses have no verdict and count in no rate of outcomes.")
    return found
