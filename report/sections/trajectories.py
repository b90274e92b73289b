"""Where refusal falls off: mean scores along the thinking and over the close tokens, and the cliff by layer."""

import pandas as pd

from interp.display.palette import COLORS, NAMES
from report.curves import GRID, mean_curves
from report.figures import ends_panel, layer_panel, trajectory_panels
from report.problems import missing
from report.rates import label
from report.run import BASE, Run
from report.sections.section import Figure, Grid, Section, between, number


def build(run: Run) -> Section:
    """The section."""
    section = Section("trajectories", "Where refusal falls off", problems=run.of("scores", "cliff", "layers"))
    cliff = run.table("cliff")
    if run.scores:
        _add_curves(run, section)
    elif cliff is not None:
        caption = "Each rollout's mean score over the second half of its thinking, and its score at the edge."
        section.figures.append(Figure("ends", caption, [("", [ends_panel(cliff.rows)])], legend=list(NAMES.items())))
    if BASE not in run.scores and not run.of("scores"):
        section.problems.append(missing("scores"))
    if cliff is None and not run.of("cliff"):
        section.problems.append(missing("cliff"))
    layers = run.table("layers")
    if layers is not None:
        _add_layers(layers.rows, section)
    elif not run.of("layers"):
        section.problems.append(missing("layers"))
    return section


def outcomes_of(run: Run) -> dict[str, str]:
    """The outcome of each of the model's own rollouts: as the cliff's table has it, else as the rollout says."""
    cliff = run.table("cliff")
    told = (
        {} if cliff is None else dict(zip(cliff.rows["id"].astype(str), cliff.rows["outcome"].astype(str), strict=True))
    )
    return {id: rollout.outcome for id, rollout in run.answers.get(BASE, {}).items()} | told


def _add_layers(layers: pd.DataFrame, section: Section) -> None:
    caption = "Plateau less edge under a probe of each layer; the cliff of complied rollouts should stand apart."
    legend = [(outcome, NAMES[outcome]) for outcome in COLORS if outcome in set(layers["outcome"])]
    section.figures.append(Figure("layers", caption, [("", [layer_panel(layers)])], legend=legend))
    rows = [
        (
            str(row["layer"]),
            str(row["outcome"]),
            number(row["plateau"]),
            number(row["edge"]),
            number(row["cliff"]) + between(row.get("low"), row.get("high")),
        )
        for _, row in layers.sort_values(["layer", "outcome"]).iterrows()
    ]
    head = ("layer", "outcome", "plateau", "edge", "cliff [95 %]")
    section.grids.append(Grid("The cliff by layer", head, rows, frozenset({2, 3, 4}), folded=True))


def _add_curves(run: Run, section: Section) -> None:
    outcomes = {id: outcome for id, outcome in outcomes_of(run).items() if outcome in COLORS}
    views, rows = [], []
    sizes: dict[str, int] = {}
    for name in sorted(run.scores, key=lambda name: (name != BASE, name)):
        curves = mean_curves(run.scores[name], outcomes)
        if not curves:
            continue
        views.append((label(name), trajectory_panels(curves, f"trajectory-{name}")))
        for outcome in (outcome for outcome in COLORS if outcome in curves):
            curve = curves[outcome]
            sizes.setdefault(outcome, curve.n)
            half = number(curve.mean[GRID // 2 : GRID].mean())
            edge = number(curve.mean[-1]) + between(curve.low[-1], curve.high[-1])
            rows.append((label(name), NAMES[outcome], str(curve.n), number(curve.mean[0]), half, edge))
    if not views:
        return
    caption = (
        "Mean refusal score with 95 % bands; rollouts are grouped by what the model as it is did with the same prompt. "
        "A fall of orange alone is a cliff; a fall of all three would be one of the closing tag."
    )
    legend = [(outcome, f"{NAMES[outcome]} (n = {n})") for outcome, n in sizes.items()]
    section.figures.append(Figure("trajectories", caption, views, "Model", legend))
    head = ("model", "outcome", "n", "start of the thinking", "its second half", "edge [95 %]")
    section.grids.append(Grid("The trajectories", head, rows, frozenset({2, 3, 4, 5}), folded=True))
