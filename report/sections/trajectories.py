"""Where refusal falls off: mean scores along the thinking and over the close tokens, and the cliff by layer."""

from report.curves import mean_curves
from report.figures import ends_panel, layer_panel, trajectory_panels
from report.problems import missing
from report.rates import label
from report.run import BASE, Run
from report.sections.section import Figure, Grid, Section, between, number

OUTCOMES = ("complied", "refused", "benign")


def build(run: Run) -> Section:
    """The section."""
    section = Section("trajectories", "Where refusal falls off", problems=run.of("scores", "cliff", "layers"))
    cliff = run.table("cliff")
    if run.scores:
        _add_curves(run, section)
    elif cliff is not None:
        caption = "Each rollout's mean score over the second half of its thinking, and its score at the edge."
        section.figures.append(Figure("ends", caption, [("", [ends_panel(cliff.rows)])]))
    if BASE not in run.scores and not run.of("scores"):
        section.problems.append(missing("scores"))
    if cliff is None and not run.of("cliff"):
        section.problems.append(missing("cliff"))
    layers = run.table("layers")
    if layers is not None:
        caption = "Plateau less edge under a probe of each layer; the cliff of complied rollouts should stand apart."
        section.figures.append(Figure("layers", caption, [("", [layer_panel(layers.rows)])]))
        rows = [
            (str(r["layer"]), str(r["outcome"]), number(r["plateau"]), number(r["edge"]), number(r["cliff"]) + between(r.get("low"), r.get("high")))
            for _, r in layers.rows.sort_values(["layer", "outcome"]).iterrows()
        ]  # fmt: skip
        head = ("layer", "outcome", "plateau", "edge", "cliff [95 %]")
        section.grids.append(Grid("The cliff by layer", head, rows, frozenset({2, 3, 4}), folded=True))
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


def _add_curves(run: Run, section: Section) -> None:
    outcomes = {id: outcome for id, outcome in outcomes_of(run).items() if outcome in OUTCOMES}
    views, rows = [], []
    for name in sorted(run.scores, key=lambda name: (name != BASE, name)):
        curves = mean_curves(run.scores[name], outcomes)
        if not curves:
            continue
        views.append((label(name), trajectory_panels(curves, f"trajectory-{name}")))
        for outcome in OUTCOMES:
            if curve := curves.get(outcome):
                edge = number(curve.mean[-1]) + between(curve.low[-1], curve.high[-1])
                rows.append(
                    (label(name), outcome, str(curve.n), number(curve.mean[0]), number(curve.mean[50:101].mean()), edge)
                )
    if not views:
        return
    caption = (
        "Mean refusal score with 95 % bands; rollouts are grouped by what the model as it is did with the same prompt. "
        "A fall of orange alone is a cliff; a fall of all three would be one of the closing tag."
    )
    section.figures.append(Figure("trajectories", caption, views, "Model"))
    head = ("model", "outcome", "n", "first token", "second half", "edge [95 %]")
    section.grids.append(Grid("The trajectories", head, rows, frozenset({2, 3, 4, 5}), folded=True))
