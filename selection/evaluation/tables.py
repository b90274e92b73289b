"""Evaluations and comparisons as rows of text, for a terminal and for a page."""

import math
from collections.abc import Sequence

from interp.paired import PairedDifference
from interp.statistics import Interval
from selection.evaluation.comparison import COMPARED, Comparison
from selection.evaluation.estimate import Estimate
from selection.evaluation.evaluation import Evaluation
from selection.evaluation.outcomes import MEASURES, Rate

NOTHING = "–"


def evaluation_rows(evaluation: Evaluation) -> list[list[str]]:
    """A head, and a row for each set of prompts: rates with their 95 % intervals."""
    shown = [name for name, measure in MEASURES.items() if set(measure.sets) & set(evaluation.sets)]
    rows = [["", "prompts", *(MEASURES[name].title for name in shown)]]
    for group in evaluation.sets:
        rates = [evaluation.rate(name, set=group) if group in MEASURES[name].sets else None for name in shown]
        rows.append([group, f"{evaluation.prompts[group]['count']:,}", *map(_rate, rates)])
    return rows


def cost_sentence(evaluation: Evaluation) -> str:
    """KL and perplexity in words."""
    kl, perplexity = evaluation.kl, evaluation.perplexity
    drift = f"KL to {evaluation.reference['model']} on its benign answers {_estimate(kl, 4)} nats a token"
    if kl.value is None:
        drift = f"No KL: {kl.reason}"
    thinking = f"perplexity of benign thinking {_estimate(perplexity, 3)}"
    return f"{drift}; {thinking if perplexity.value is not None else f'no perplexity: {perplexity.reason}'}."


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """A head, and a row for each evaluation: rates, KL and perplexity with their 95 % intervals."""
    rows = [["", *(MEASURES[name].title for name in COMPARED), "KL (nats)", "perplexity"]]
    for index, (label, evaluation) in enumerate(zip(comparison.labels, comparison.evaluations, strict=True)):
        rates = [_rate(comparison.rate(index, name)) for name in COMPARED]
        rows.append([label, *rates, _estimate(evaluation.kl, 4), _estimate(evaluation.perplexity, 3)])
    return rows


def difference_rows(comparison: Comparison) -> list[list[str]]:
    """A head, and a row for each evaluation and rate: the difference to the base, its interval, p and prompts."""
    rows = [["against " + comparison.labels[0], "rate", "difference", "95 % interval", "McNemar p", "prompts"]]
    for label, found in zip(comparison.labels[1:], comparison.differences, strict=True):
        for name, difference in found.items():
            rows.append([label, MEASURES[name].title, *_difference(difference), f"{difference.n:,}"])
    return rows


def category_rows(comparison: Comparison) -> list[list[str]]:
    """A head, and a row for each category of harmful prompts: the ASR of each; no rows without categories."""
    names = sorted({name for evaluation in comparison.evaluations for name in evaluation.categories("harmful")})
    if not names:
        return []
    rows = [["ASR by category", *comparison.labels]]
    for name in names:
        rates = [evaluation.rate("asr", category=name) for evaluation in comparison.evaluations]
        rows.append([name, *(_rate(rate if rate.n else None) for rate in rates)])
    return rows


def sentences(comparison: Comparison) -> list[str]:
    """What must be known to read the tables."""
    first = comparison.evaluations[0]
    said = [
        "Rates have Wilson 95 % intervals. Differences are of the same prompts, with bootstrap 95 % intervals.",
        f"KL and perplexity are measured on benign rollouts of {first.reference['model']}, over their answers' first "
        "tokens and over their thinking.",
    ]
    judges = dict.fromkeys(evaluation.judge for evaluation in comparison.evaluations)
    return [*said, f"Judged by {'; '.join(judges)}.", *comparison.caveats]


def _rate(rate: Rate | None) -> str:
    if rate is None or not rate.n:
        return NOTHING
    return f"{rate.value:.3f} {_bounds(rate.interval, 3)}"


def _estimate(estimate: Estimate, digits: int) -> str:
    if estimate.value is None:
        return NOTHING
    bounds = "" if estimate.low is None else " " + _bounds(Interval(*estimate.bounds), digits)
    return f"{estimate.value:.{digits}f}{bounds}"


def _difference(found: PairedDifference) -> Sequence[str]:
    if not found.n:
        return [NOTHING] * 3
    bounds = NOTHING if found.interval.reason else _bounds(found.interval, 3, "+")
    return f"{_zero(found.difference):+.3f}", bounds, _p(found.test.p)


def _bounds(interval: Interval, digits: int, sign: str = "") -> str:
    low, high = (f"{_zero(bound):{sign}.{digits}f}" for bound in interval)
    return f"[{low}, {high}]"


def _zero(value: float) -> float:
    """Without the sign of a zero that rounding has left."""
    return 0.0 if math.isclose(value, 0, abs_tol=5e-7) else value


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"
