"""What `cliffscope sae` prints."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.output import emit

if TYPE_CHECKING:
    from interventions.latents import Latents, LatentScores
    from interventions.latents.changes import LatentChange

_SHOWN = 10
"""Latents that are printed."""


def report_rank(scores: "LatentScores", latents: "Latents", out: Path, as_json: bool) -> None:
    """Prints the best latents, and what the controls say."""
    head = scores.table.head(_SHOWN)
    rows: list[list[object]] = [["latent", "for", "AUROC", "held out", "worst", "q", "ordinary tokens", "separates"]]
    for row in head.to_dict("records"):
        rows.append(
            [
                str(row["latent"]),
                "+" if row["sign"] == 1 else "−",
                row["auroc"],
                row["auroc_held_out"],
                row["worst"],
                row["q"],
                f"{row['generic_share']:.1%}",
                "yes" if row["separates"] else "no",
            ]
        )
    payload = {"out": str(out), **scores.facts, "remarks": list(latents.remarks), "latents": head.to_dict("records")}
    facts = scores.facts
    title = (
        f"Latents at {facts['site']}, {facts['contrast']}: {facts['positive']} (+) and {facts['negative']} (−) rollouts"
    )
    note = "\n".join([*latents.remarks, scores.evidence, f"Written to {out}."])
    emit(payload, as_json=as_json, title=title, rows=rows, note=note)


def report_steer(result: Any, change: "LatentChange", latents: "Latents", out: Path, as_json: bool) -> None:
    """Prints what the model answered, and at how many tokens the latents were changed."""
    outcomes = dict(sorted(Counter(rollout.outcome for rollout in result.rollouts).items()))
    unclosed = sum(rollout.response is None for rollout in result.rollouts)
    activity = change.activity
    assert activity is not None
    payload = {
        "out": str(out),
        "rollouts": len(result.rollouts),
        "generated": result.generated,
        "resumed": result.resumed,
        "outcomes": outcomes,
        "unclosed_thinking": unclosed,
        "tokens_in_scope": activity.tokens,
        "tokens_changed": activity.changed,
        "latents": change.summary(),
        "remarks": list(latents.remarks),
    }
    rows = [
        ("rollouts", len(result.rollouts)),
        *outcomes.items(),
        ("thinking never closed", unclosed),
        ("tokens changed", f"{activity.changed:,} of {activity.tokens:,} in the scope"),
    ]
    note = "Nothing to do: it was finished already." if result.was_complete else f"Written to {out}."
    emit(payload, as_json=as_json, title=f"Rollouts, {change}", rows=rows, note="\n".join([*latents.remarks, note]))
