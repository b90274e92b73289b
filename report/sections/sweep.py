"""How well a probe reads refusal at each layer and position, with the controls of that reading."""

from report.figures import sweep_panel
from report.problems import missing
from report.run import Run
from report.sections.section import Figure, Grid, Section, between, number

CONTROLS = {
    "real": "held-out AUROC",
    "shuffled": "AUROC with shuffled labels",
    "held_out_category": "AUROC on held-out categories",
}
METHODS = {"logistic": "logistic regression", "mean-difference": "the difference of means"}
SHORT = {"real": "held out", "shuffled": "shuffled labels", "held_out_category": "held-out categories"}


def build(run: Run) -> Section:
    """The section."""
    section = Section("sweep", "Layer × position", problems=run.of("sweep", "probe"))
    table = run.table("sweep")
    probe = run.object("probe")
    if probe:
        where = f"layer {probe.get('layer')} at {probe.get('position')} ({probe.get('site')})"
        how = METHODS.get(str(probe.get("method")), probe.get("method"))
        section.paragraphs.append(f"The probe reads {where}; it was fitted by {how}.")
    elif not run.of("probe"):
        section.problems.append(missing("probe"))
    if table is None:
        if not run.of("sweep"):
            section.problems.append(missing("sweep"))
        return section
    rows = table.rows
    present = [control for control in CONTROLS if control in set(rows["control"])]
    views = [(SHORT[control], [sweep_panel(rows, control, CONTROLS[control])]) for control in present]
    caption = "Blue is read well, white is chance. With shuffled labels all should be white."
    section.figures.append(Figure("sweep", caption, views, "Control"))
    cells = [
        (
            f"{row['layer']}, {row['position']}",
            SHORT.get(row["control"], str(row["control"])),
            number(row["auroc"]) + between(row.get("auroc_low"), row.get("auroc_high")),
            number(row.get("accuracy")),
        )
        for _, row in rows.sort_values(["layer", "position", "control"]).iterrows()
    ]
    head = ("layer, position", "labels", "AUROC [95 %]", "accuracy")
    section.grids.append(Grid("The sweep", head, cells, frozenset({2, 3}), folded=True))
    return section
