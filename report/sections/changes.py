"""Before and after: what each change of the model does to harmful and benign prompts, beside its control."""

from collections.abc import Mapping

import pandas as pd

from interp.display.palette import COLORS
from report.figures import dose_panel
from report.problems import missing
from report.rates import outcomes
from report.run import BASE, Run
from report.sections.heads import nothing
from report.sections.section import Figure, Grid, Section, between, number, percent, share

DOSES = (
    ("asr", "Harmful prompts answered (ASR)", "share", COLORS["complied"]),
    ("refusal_benign", "Benign prompts refused", "share", COLORS["benign"]),
    ("kl_benign", "Drift on benign answers", "nats a token", COLORS["benign"]),
)


def build(run: Run) -> Section:
    """The section."""
    problems = run.of("rollouts", "evaluation", "doses", "selection", "selected", "repair", "pool", "pool_scores")
    section = Section("changes", "Before and after", problems=problems)
    rows = outcomes(run)
    if rows:
        cells = []
        for row in rows:
            n = f"{row.n_harmful} / {row.n_benign}" if row.n_harmful is not None else "–"
            drift = number(row.drift) + (between(*row.drift_interval) if row.drift_interval else "")
            asr = share(row.asr, row.asr_interval) + (f" ({row.told})" if row.told else "")
            cells.append((row.name, asr, share(row.refused, row.refused_interval), drift, n, row.source))
        head = (
            "model",
            "harmful answered (ASR)",
            "benign refused",
            "drift, nats a token",
            "n harmful / benign",
            "from",
        )
        section.grids.append(
            Grid("What the model does, and what it does after each change", head, cells, frozenset({1, 2, 3, 4}))
        )
        section.paragraphs.append(
            "Shares with Wilson's 95 % interval where the answers themselves are in the folder. The drift is the KL "
            "divergence from the model as it is on its own benign answers."
        )
    if BASE not in run.answers and not run.of("rollouts"):
        section.problems.append(missing("rollouts"))
    if len(rows) < 2 and nothing(run) is None:
        section.problems.append(missing("masked"))
    _add_selection(run, section)
    if (doses := run.table("doses")) is not None:
        _add_doses(doses.rows, section)
    return section


def _add_doses(doses: pd.DataFrame, section: Section) -> None:
    panels = [dose_panel(doses, *panel) for panel in DOSES if doses[panel[0]].notna().any()]
    caption = "Every dose of steering, beside random directions of equal norm."
    legend = [("line", "the vector"), ("control", "random directions")]
    section.figures.append(Figure("doses", caption, [("", panels)], legend=legend))
    cells = [
        (
            str(row["set"]),
            number(row["layer"], 0),
            number(row["alpha"], 2),
            percent(row["asr"]),
            percent(row["refusal_benign"]),
            number(row["kl_benign"]),
        )
        for _, row in doses.iterrows()
    ]
    head = ("set", "layer", "dose", "ASR", "benign refused", "drift")
    section.grids.append(Grid("The doses", head, cells, frozenset(range(1, 6)), folded=True))


def _add_selection(run: Run, section: Section) -> None:
    for name, content in run.objects["selection"]:
        counts, options = content.get("counts"), content.get("options")
        if isinstance(counts, Mapping) and isinstance(options, Mapping) and counts.get("selected") is not None:
            chosen = ", ".join(f"{n} {outcome}" for outcome, n in (counts.get("selected_outcomes") or {}).items())
            words = f"{counts['selected']} of {counts.get('pool')} examples, chosen by {options.get('method')}"
            told = f" ({chosen})" if chosen else ""
            section.paragraphs.append(f"{name.removesuffix('.manifest.json')}: {words}{told}.")
