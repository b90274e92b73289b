"""The heads: a grid by each method, those that are named, and the ablation curve."""

from typing import Any

import pandas as pd

from interp.display.palette import COLORS
from report.figures import curve_panel, head_panel
from report.problems import missing
from report.run import Run, Table
from report.sections.section import Figure, Grid, Section, between, counted, percent, small

PREFERRED = ("ablation", "shapley", "interchange", "attribution", "gradient")
"""Methods, those that intervene first."""

UNITS = {
    "attribution": "minus the contribution along the probe's direction",
    "ablation": "rise of the refusal logit when ablated, nats",
    "gradient": "approximate rise of the refusal logit when ablated, nats",
    "interchange": "mean change of the refusal logit when interchanged, nats",
    "shapley": "share of the change of the refusal logit when sets are interchanged, nats",
}

CURVES = (
    ("refusal_logit", "Refusal logit at the edge", "nats", COLORS["refused"]),
    ("asr", "Harmful prompts answered (ASR)", "share", COLORS["complied"]),
    ("refusal_benign", "Benign prompts refused", "share", COLORS["benign"]),
    ("kl_benign", "Drift on benign answers", "nats a token", COLORS["benign"]),
)

SHOWN = 10


def build(run: Run) -> Section:
    """The section."""
    section = Section("heads", "Which heads push", problems=run.of("heads", "curve", "mask"))
    tables = ranked(run)
    if words := evidence(run):
        section.paragraphs.append(words)
    # Where there was nothing to explain, no head has a score.
    scored = [table for table in tables if table.rows["score"].notna().any()]
    if scored:
        views = []
        for table in scored:
            method, rows = _method(table), table.rows
            title = f"Heads by {method}: {UNITS.get(method, 'score')}"
            views.append((method, [head_panel(rows, method, title, named(rows))]))
            section.grids.append(_first(rows, method))
        caption = "Orange suppresses refusal, blue promotes it; framed are the heads that are named, with evidence."
        section.figures.append(Figure("head-grid", caption, views, "Method"))
    elif not tables and not run.of("heads"):
        section.problems.append(missing("heads"))
    _add_mask(run, section)
    _add_curve(run, section)
    return section


def _first(rows: pd.DataFrame, method: str) -> Grid:
    """The best heads as a table."""
    top = rows.sort_values("rank").head(SHOWN)
    cells = [
        (
            str(row["name"]),
            str(row["rank"]),
            small(row["score"]) + between(row["low"], row["high"], small),
            small(row["q"]),
            percent(row.get("share")),
            "yes" if row["suppresses"] else "no",
        )
        for _, row in top.iterrows()
    ]
    head = ("head", "rank", "score [95 %]", "q", "share of what is to be explained", "suppression head")
    caption = f"The first {counted(len(top), 'head')} by {method}"
    return Grid(caption, head, cells, frozenset({1, 2, 3, 4}), folded=True)


def ranked(run: Run) -> list[Table]:
    """Tables of head scores, one a method, the preferred first."""
    tables: dict[str, Table] = {}
    for table in run.tables["heads"]:
        tables.setdefault(_method(table), table)
    order = {method: place for place, method in enumerate(PREFERRED)}
    return [table for _, table in sorted(tables.items(), key=lambda item: (order.get(item[0], 9), item[0]))]


def named(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Layer and head of each suppression head, best first."""
    mine = rows[rows["suppresses"].astype(bool)].sort_values("rank")
    return [(int(layer), int(head)) for layer, head in zip(mine["layer"], mine["head"], strict=True)]


def evidence(run: Run) -> str:
    """Which heads are named, by the method that is preferred, in one sentence; empty without a table."""
    tables = ranked(run)
    if not tables:
        return ""
    table, method = tables[0], _method(tables[0])
    if (reason := nothing(run)) is not None:
        return f"Nothing to explain, and no head is named: {reason}."
    mine = table.rows[table.rows["suppresses"].astype(bool)].sort_values("rank")
    if mine.empty:
        return f"None of {counted(len(table.rows), 'head')} is a suppression head by {method}."
    some = [
        f"{r['name']} (score {small(r['score'])}{between(r['low'], r['high'], small)}, q = {small(r['q'])}"
        + (f", {100 * r['share']:.0f}\u00a0% of what is to be explained)" if pd.notna(r.get("share")) else ")")
        for _, r in mine.head(3).iterrows()
    ]
    more = f" and {len(mine) - 3} more" if len(mine) > 3 else ""
    verb = "is a suppression head" if len(mine) == 1 else "are suppression heads"
    words = f"{len(mine)} of {counted(len(table.rows), 'head')} {verb} by {method}: {'; '.join(some)}{more}"
    others = [(_method(other), {tuple(h) for h in named(other.rows)}) for other in tables[1:]]
    best = set(named(table.rows))
    agree = [name for name, heads in others if heads and best <= heads]
    if agree:
        words += f"; {' and '.join(agree)} name{'s' * (len(agree) == 1)} {'it' if len(best) == 1 else 'them'} too"
    return f"{words}."


def nothing(run: Run) -> str | None:
    """Why there was nothing to explain by any head; `None` where there was something, or no table tells."""
    tables = ranked(run)
    facts: Any = tables[0].facts.get("facts") if tables else None
    reason = facts.get("nothing") if isinstance(facts, dict) else None
    return str(reason) if reason else None


def _add_mask(run: Run, section: Section) -> None:
    mask = run.object("mask")
    if not mask:
        if not run.of("mask") and nothing(run) is None:
            section.problems.append(missing("mask"))
        return
    facts: Any = mask.get("facts")
    heads = facts.get("ranked") if isinstance(facts, dict) else None
    words = f"The mask changes {percent(mask.get('fraction'))} of the heads"
    if isinstance(heads, list) and heads:
        words += f" ({', '.join(map(str, heads[:20]))}{' …' if len(heads) > 20 else ''})"
    section.paragraphs.append(f"{words}; it was built by {mask.get('method', 'an unknown method')}.")


def _add_curve(run: Run, section: Section) -> None:
    table = run.table("curve")
    if table is None:
        if not run.of("curve") and nothing(run) is None:
            section.problems.append(missing("curve"))
        return
    rows = table.rows
    panels = [curve_panel(rows, *panel) for panel in CURVES if panel[0] in rows and rows[panel[0]].notna().any()]
    caption = "The best heads ablated together, beside random sets of as many heads in the same layers."
    legend = [("line", "ranked heads"), ("control", "random sets of heads")]
    section.figures.append(Figure("ablation-curve", caption, [("", panels)], legend=legend))
    head = ("heads", "n", "refusal logit", "ASR", "benign refused", "drift")
    mine = rows[rows["set"] == "ranked"].sort_values("n_heads")
    cells = [
        (
            str(row["heads"]) or "none",
            str(row["n_heads"]),
            small(row["refusal_logit"]),
            percent(row["asr"]),
            percent(row.get("refusal_benign")),
            small(row.get("kl_benign")),
        )
        for _, row in mine.iterrows()
    ]
    section.grids.append(Grid("The ablation curve", head, cells, frozenset(range(1, 6)), folded=True))


def _method(table: Table) -> str:
    return str(table.facts.get("method") or table.name.removesuffix(".parquet").removeprefix("heads-"))
