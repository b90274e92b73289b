"""What the explorer of rollouts knows of each: what its table shows, and where its tokens are."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from report.problems import Problem, missing
from report.rates import label
from report.run import BASE, Run
from report.sections.section import real
from report.tokens import Packed

PROMPT = 400
"""Characters of a prompt that the table holds; the whole one is among the tokens."""
FIGURES = ("cliff", "plateau", "edge")


def facts(run: Run, packed: Packed) -> dict[str, Any]:
    """The explorer's data.

    Returns:
        `rollouts`, in the order of their file: id, prompt, outcome, category, cliff, plateau, edge, tokens, model, and
        `others`: for each other set of answers the outcome. `names`: what each set is called.
    """
    base, cliff = run.answers.get(BASE, {}), _cliff_rows(run)
    ids = dict.fromkeys([*base, *cliff, *packed.index.get(BASE, {})])
    rows: list[dict[str, Any]] = []
    for id in ids:
        rollout, figures = base.get(id), cliff.get(id, {})
        place = packed.index.get(BASE, {}).get(id)
        rows.append(
            {
                "id": id,
                "prompt": "" if rollout is None else rollout.prompt[:PROMPT],
                "outcome": str(figures.get("outcome") or (rollout.outcome if rollout else "unknown")),
                "category": _text((rollout.category if rollout else None) or figures.get("category")),
                **{name: _short(figures.get(name)) for name in FIGURES},
                "tokens": place[2] if place else None,
                "others": {name: r[id].outcome for name, r in run.answers.items() if name != BASE and id in r},
            }
        )
    return {"rollouts": rows, "names": {name: label(name) for name in (*run.answers, *run.scores)}, **packed.facts()}


def problems(run: Run) -> list[Problem]:
    """What the explorer lacks."""
    found = run.of("rollouts", "scores", "cliff")
    if BASE not in run.answers and not run.of("rollouts"):
        found.append(missing("rollouts"))
    if BASE not in run.scores and not run.of("scores"):
        found.append(missing("scores", "No file in this folder holds it, so tokens are shown without colours."))
    if run.table("cliff") is None and not run.of("cliff"):
        found.append(missing("cliff"))
    return found


def _cliff_rows(run: Run) -> dict[str, Mapping[str, Any]]:
    table = run.table("cliff")
    if table is None:
        return {}
    rows: pd.DataFrame = table.rows.drop_duplicates("id").astype(object)
    rows = rows.where(rows.notna(), None)
    return {str(row["id"]): {str(key): value for key, value in row.items()} for row in rows.to_dict("records")}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _short(value: Any) -> float | None:
    number = real(value)
    return None if number is None else round(number, 4)
