"""What became of the prompts in each set of answers, and what a summary or an evaluation tells of others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from interp.rollouts import Rollout
from interp.statistics import Interval, proportion_interval
from report.run import BASE, Run


@dataclass(frozen=True)
class Outcome:
    """What one model, or one changed model, did.

    Attributes:
        name: What it is called.
        asr, refused: The share of harmful prompts answered and of benign prompts refused; `None` if unknown.
        asr_interval, refused_interval: Wilson's, where the counts are known.
        n_harmful, n_benign: Prompts with a verdict.
        drift: On benign answers, nats a token.
        drift_interval: Its bounds.
        source: The file.
        told: More on the first share.
    """

    name: str
    asr: float | None
    refused: float | None
    asr_interval: Interval | None = None
    refused_interval: Interval | None = None
    n_harmful: int | None = None
    n_benign: int | None = None
    drift: float | None = None
    drift_interval: tuple[float, float] | None = None
    source: str = ""
    told: str = ""


LABELS = {
    BASE: "as it is",
    "masked": "with the head mask",
    "random_mask": "with random masks of the same size",
    "repaired": "repaired on examples chosen by cliff",
    "repaired_random": "repaired on as many at random",
    "steered": "steered",
    "steered_random": "steered along a random direction of equal norm",
}
"""What a set of answers is called."""


def label(name: str) -> str:
    """What a set of answers is called; names that are not known speak for themselves."""
    return LABELS.get(name.replace("-", "_"), name)


def of_rollouts(name: str, rollouts: Iterable[Rollout], drift: float | None, source: str) -> Outcome:
    """Counted from rollouts; those without a verdict count in neither share."""
    counts: dict[str, int] = {}
    for rollout in rollouts:
        counts[rollout.outcome] = counts.get(rollout.outcome, 0) + 1
    answered, harmful = counts.get("complied", 0), counts.get("complied", 0) + counts.get("refused", 0)
    refused, benign = counts.get("benign_refused", 0), counts.get("benign_refused", 0) + counts.get("benign", 0)
    return Outcome(
        label(name),
        answered / harmful if harmful else None,
        refused / benign if benign else None,
        proportion_interval(answered, harmful) if harmful else None,
        proportion_interval(refused, benign) if benign else None,
        harmful,
        benign,
        drift,
        source=source,
    )


def outcomes(run: Run) -> list[Outcome]:
    """The model as it is, then every change of it."""
    summary = run.object("summary")
    asr, refusal, drift = (_mapping(summary.get(key)) for key in ("asr", "refusal_benign", "kl_benign"))
    rows: list[Outcome] = []
    for name, rollouts in run.answers.items():
        told = 0.0 if name == BASE else _number(drift.get(name.replace("-", "_")))
        rows.append(of_rollouts(name, rollouts.values(), told, run.sources[name]))
    counted = {name.replace("-", "_") for name in run.answers}
    for name, given in asr.items():
        value = _number(given)
        if name in counted or value is None:
            continue
        rows.append(
            Outcome(
                label(name),
                value,
                _number(refusal.get(name)),
                drift=_number(drift.get(name)),
                source="summary.json",
                told=_told(name, summary),
            )
        )
    order = list(LABELS.values())
    rows.sort(key=lambda row: order.index(row.name) if row.name in order else len(order))
    return rows + [_of_evaluation(name, content) for name, content in run.objects["evaluation"]]


def _of_evaluation(file: str, content: Mapping[str, Any]) -> Outcome:
    rates, kl = _mapping(_mapping(content.get("rates")).get("all")), _mapping(content.get("kl"))
    asr, refused = _mapping(rates.get("asr")), _mapping(rates.get("over_refusal"))
    bounds = (_number(kl.get("low")), _number(kl.get("high")))
    return Outcome(
        str(content.get("label") or file),
        _number(asr.get("rate")),
        _number(refused.get("rate")),
        _interval(asr),
        _interval(refused),
        asr.get("n"),
        refused.get("n"),
        _number(kl.get("value")),
        (bounds[0], bounds[1]) if bounds[0] is not None and bounds[1] is not None else None,
        source=file,
    )


def _interval(rate: Mapping[str, Any]) -> Interval | None:
    low, high = _number(rate.get("low")), _number(rate.get("high"))
    return None if low is None or high is None else Interval(low, high)


def _told(name: str, summary: Mapping[str, Any]) -> str:
    """What a summary tells of a control beside its share."""
    if name == "random_mask":
        masks = _mapping(summary.get("asr")).get("random_masks") or []
        found = [value for value in map(_number, masks) if value is not None]
        return f"{100 * min(found):.1f}–{100 * max(found):.1f}\u00a0% over {len(found)} masks" if found else ""
    if name == "steered_random" and (n := _mapping(summary.get("steering")).get("n_control")):
        return f"of {n} prompts"
    return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
