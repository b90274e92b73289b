"""Detect, route, generate: every rollout's path, where it was lost, and shares against a count by hand."""

from dataclasses import replace

import pytest

from interp.statistics import proportion_interval
from probes.cliff import Cliff, RolloutCliff
from probes.cliff_run import measure_cliff
from probes.stages import STAGES, lost_at, path_of, path_table, stage_table, told
from tests.circuits.material import organism, organism_probe, organism_rollouts


def row(plateau: float, edge: float, response: str, *, harmful: bool | None = True, category: str = "a", n: int = 0):
    return RolloutCliff(f"{n}", "complied", category, plateau, edge, 0.0, 0.0, None, 9, harmful, response)


@pytest.mark.parametrize(
    ("given", "path", "lost"),
    [
        (row(0.9, 0.1, "answered"), "detected, routed away, answered", "route"),
        (row(0.9, 0.9, "answered"), "detected, routed to refusal, answered", "generate"),
        (row(0.9, 0.9, "evaded"), "detected, routed to refusal, evaded", "generate"),
        (row(0.9, 0.1, "evaded"), "detected, routed away, evaded", "route"),
        (row(0.1, 0.1, "answered"), "not detected, answered", "detect"),
        (row(0.1, 0.9, "nothing"), "not detected, routed to refusal, no usable response", "detect"),
        (row(0.9, 0.9, "refused"), "detected, routed to refusal, refused", None),
        (row(0.9, 0.1, "refused"), "detected, routed away, refused", None),
        (row(0.5, 0.5, "answered"), "not detected, answered", "detect"),
        (row(0.1, 0.1, "answered", harmful=False), "not detected, answered", None),
        (row(0.9, 0.1, "unjudged"), "detected, routed away, unjudged", None),
    ],
)
def test_every_path_has_its_words_and_its_loss(given: RolloutCliff, path: str, lost: str | None) -> None:
    assert path_of(given) == path and lost_at(given) == lost


ROWS = [
    *(row(0.9, 0.1, "answered", n=n) for n in range(5)),
    *(row(0.9, 0.9, "refused", category="b", n=n) for n in range(5, 8)),
    row(0.9, 0.9, "evaded", category="b", n=8),
    row(0.9, 0.9, "unjudged", category="b", n=9),
    row(0.9, 0.9, "refused", harmful=None, n=10),
    row(0.2, 0.1, "answered", harmful=False, category="c", n=11),
]


def test_shares_are_counted_by_class_and_category() -> None:
    table = stage_table(ROWS)
    groups = [(r["harmful"], r["category"], r["n"]) for r in table.fillna({"category": "all"}).to_dict("records")]
    assert groups == [(True, "all", 9), (True, "a", 5), (True, "b", 4), (False, "all", 1)]
    every, b = table.iloc[0], table.iloc[2]
    counts = {"detected": 9, "routed": 4, "refused": 3, "evaded": 1, "answered": 5, "nothing": 0}
    for stage in STAGES:
        interval = proportion_interval(counts[stage], 9)
        assert every[stage] == pytest.approx(counts[stage] / 9)
        assert (every[f"{stage}_low"], every[f"{stage}_high"]) == pytest.approx(tuple(interval))
    assert (b["routed"], b["refused"], b["evaded"], b["answered"]) == (1.0, 0.75, 0.25, 0.0)


def test_paths_are_told_with_evasions_called_what_they_are() -> None:
    paths = path_table(ROWS)
    assert [(path["path"], path["count"], path["lost_at"]) for path in paths] == [
        ("detected, routed away, answered", 5, "route"),
        ("detected, routed to refusal, refused", 3, None),
        ("detected, routed to refusal, evaded", 1, "generate"),
    ]
    assert sum(path["share"] for path in paths) == pytest.approx(1.0)
    assert told(ROWS).startswith("Of 9 harmful rollouts: 5 detected, routed away, answered;")
    assert told(ROWS).endswith("1 evade without refusing, and are no answers.")
    assert told([]) == "" and stage_table([]).empty and path_table([]) == []


def test_the_cliff_model_is_lost_at_routing() -> None:
    model, rollouts = organism("cliff"), list(organism_rollouts("cliff"))
    evading = next(n for n, rollout in enumerate(rollouts) if rollout.outcome == "complied")
    rollouts[evading] = replace(rollouts[evading], response="Let's talk about something else.")
    found = measure_cliff(model, organism_probe("cliff"), rollouts, n_shuffles=0, by_layer=False)
    complied = sum(rollout.outcome == "complied" for rollout in rollouts)
    paths = {path["path"]: path["count"] for path in found.summary()["paths"]}  # type: ignore[attr-defined]
    assert paths["detected, routed away, answered"] == complied - 1
    assert paths["detected, routed away, evaded"] == 1
    assert paths["detected, routed to refusal, refused"] == sum(r.outcome == "refused" for r in rollouts)
    table = found.table
    assert set(table.loc[table["outcome"] == "complied", "lost_at"]) == {"route"}
    assert table.loc[table["outcome"] == "benign", "lost_at"].isna().all()
    harmful, benign = (found.stages[found.stages["category"].isna()].iloc[place] for place in (0, 1))
    assert harmful["detected"] > 0.95 and benign["detected"] < 0.05 and isinstance(found, Cliff)
