"""The picture of a selection: the pool's cliffs by outcome, the chosen among them, and what each falls from and to."""

from pathlib import Path

from interp.display.palette import COLORS
from selection.choice import ChoiceOptions, choose
from selection.select import Selection
from selection.select_figure import select_figure
from tests.selection.material import score

POOL = [
    *(score(f"c{n}", cliff=0.5 + n / 100, plateau=0.9, edge=0.4 - n / 100, outcome="complied") for n in range(20)),
    *(score(f"b{n}", cliff=0.01, plateau=0.1, edge=0.09, outcome="benign") for n in range(30)),
    score("none", cliff=None, plateau=None, edge=None, unscorable="no thinking"),
]


def made(pool: bool = True) -> Selection:
    choice = choose(POOL, ChoiceOptions(count=5))
    return Selection(Path("s.jsonl"), (), choice, {"options": {"method": "cliff"}}, tuple(POOL) if pool else ())


def counts(selection: Selection, name: str) -> float:
    (trace,) = [trace for trace in select_figure(selection).data if trace.name == name]
    return sum(value for value in trace.y if value is not None)


def test_the_pool_is_counted_by_outcome_and_the_chosen_among_it() -> None:
    selection = made()
    assert counts(selection, "pool: harmful, complied") == 20 and counts(selection, "pool: benign") == 30
    assert counts(selection, "chosen") == 5
    assert select_figure(selection).layout.title.text == "5 of 51 examples, by cliff"


def test_the_chosen_stand_by_rank_from_plateau_to_edge() -> None:
    figure = select_figure(made())
    (ends,) = [trace for trace in figure.data if (trace.name or "").startswith("edge")]
    assert list(ends.x) == [1, 2, 3, 4, 5] and list(ends.y) == [s.edge for s in made().choice.scores]
    assert ends.marker.color == COLORS["complied"]
    found = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines"]
    lines = next(trace for trace in found if trace.name is None)
    assert list(lines.y[:3]) == [0.9, made().choice.scores[0].edge, None]


def test_without_the_pool_the_chosen_are_all() -> None:
    selection = made(pool=False)
    assert counts(selection, "pool: harmful, complied") == 5 and "Selection: 5 of" in repr(selection)
