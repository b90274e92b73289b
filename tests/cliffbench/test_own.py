"""A method and a mechanism of one's own, in a few lines each, through the whole bench; and how it is resumed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuits.contributions import contributions
from circuits.head_scores import HeadScores
from cliffbench import cells
from cliffbench.instances import Instance
from cliffbench.methods import METHODS, chosen, method
from cliffbench.page import BEGIN, END, tables, write_page
from cliffbench.planting import ADDED, add_mechanism, check_organisms
from cliffbench.run import BenchOptions, run_bench, table_of
from cliffbench.summary import summarize
from interp.errors import CliffscopeError
from interp.organisms import load_organism, sample_prompts, truth
from interp.organisms.prompts import GeneratedPrompt
from tests.cliffbench.material import TINY


@dataclass(frozen=True)
class Copied:
    """A mechanism of my own: the heads of `cliff`, copied and not trained, so that it takes no time."""

    name: str = "copied"
    roles: Mapping[tuple[int, int], str] | Any = None

    def plant(self, model: Any, tokenizer: Any, direction: Any, seed: int, report: Any) -> None:
        source, _ = load_organism("cliff")
        model.load_state_dict(source.state_dict())

    def facts(self) -> dict[str, Any]:
        return {"cliff": True, "sparse": True, "heads": truth("cliff")["heads"], "edges": []}

    def group(self, prompt: GeneratedPrompt) -> str:
        return "answered"

    def heldout(self, kind: str, n: int, seed: int) -> list[GeneratedPrompt]:
        return sample_prompts(kind, n, seed)

    def drawn(self, seed: int) -> "Copied":
        return self

    def quick(self) -> "Copied":
        return self


def loudest(instance: Instance) -> HeadScores:
    """A method of my own: heads by how much they write against the probe in complied rollouts, and no more."""
    written = contributions(instance.model, instance.probe, instance.cases.complied).heads.double().numpy()
    return HeadScores.of("loudest", instance.model, -written, to_explain=1.0)


@pytest.fixture
def mine() -> Iterator[None]:
    """Both are there during a test."""
    method("loudest")(loudest)
    add_mechanism(Copied())
    yield
    del METHODS["loudest"], ADDED["copied"]


def options(**changed: Any) -> BenchOptions:
    return replace(BenchOptions(("copied",), ("loudest",), seeds=1, fresh=False, sizes=TINY, jobs=1), **changed)


@pytest.mark.slow
def test_a_method_and_a_mechanism_of_ones_own(mine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = run_bench(options(), tmp_path)
    table = table_of(tasks)
    scores = table[table["method"] == "loudest"].set_index("score")["value"]
    assert scores["auroc"] == 1.0 and scores["recall"] == 1.0 and scores["cpu_seconds"] >= 0
    assert table.set_index(["method", "score"]).loc[("shipped verdict", "says_cliff"), "value"] == 1.0
    summary = summarize(table, tasks)
    assert summary["organisms"] == {"copied": {"planted": ["3.1", "4.5"], "has_cliff": True, "sparse": True}}
    assert summary["scores"]["loudest"]["recall"]["all"]["mean"] == 1.0 and summary["errors"] == []
    page = tmp_path / "bench.md"
    page.write_text(f"# Bench\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    write_page(page, tables(table, summary | {"seconds": 60.0, "resumed": True}, "cliffscope bench"))
    text = page.read_text()
    assert "in 1.0 minutes (the rest of a run that was killed)" in text
    assert "| loudest |" in text and "old" not in text and text.endswith("After.\n")

    # Nothing is done twice; what is missing is done again, from the same weights and rollouts.
    monkeypatch.setattr(cells, "prepare", lambda *args, **kwargs: pytest.fail("done already"))
    run_bench(options(), tmp_path)
    monkeypatch.undo()
    tasks[0].cell("loudest").unlink()
    assert tasks[0].left == ("loudest",)
    run_bench(options(), tmp_path)
    again = table_of(tasks)
    slow = table["group"] != "time"
    np.testing.assert_allclose(again[slow]["value"], table[slow]["value"])


def refuses(instance: Instance) -> HeadScores:
    raise CliffscopeError("no such thing here")


@pytest.mark.slow
def test_a_method_that_refuses_is_a_result(mine: None, tmp_path: Path) -> None:
    method("refuses")(refuses)
    try:
        tasks = run_bench(options(methods=("refuses",)), tmp_path)
    finally:
        del METHODS["refuses"]
    summary = summarize(table_of(tasks), tasks)
    assert summary["errors"] == [{"organism": "copied", "seed": 0, "method": "refuses", "error": "no such thing here"}]


def test_names_are_taken_once_and_checked(mine: None) -> None:
    with pytest.raises(CliffscopeError, match="'loudest': there is one of that name already"):
        method("loudest")(loudest)
    with pytest.raises(CliffscopeError, match="'copied': there is one of that name already"):
        add_mechanism(Copied())
    with pytest.raises(CliffscopeError, match=r"method 'best': expected some of attribution, ablation"):
        chosen("ablation,best")
    with pytest.raises(CliffscopeError, match=r"organism 'clif': expected some of aligned"):
        check_organisms(["cliff", "clif"])
    with pytest.raises(CliffscopeError, match="0 seeds"):
        options(seeds=0)


def test_other_sizes_are_other_cells(tmp_path: Path) -> None:
    (one,) = BenchOptions(("cliff",), seeds=1, sizes=TINY).tasks(tmp_path)
    (other,) = BenchOptions(("cliff",), seeds=1).tasks(tmp_path)
    assert one.cells != other.cells and one.cells.parent == tmp_path
    assert json.dumps(one.organism) == '"cliff"'


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "bench.md"
    page.write_text("# Bench\n")
    with pytest.raises(CliffscopeError, match=r"bench\.md: has no place for the tables"):
        write_page(page, "tables")
    with pytest.raises(CliffscopeError, match="no such file"):
        write_page(tmp_path / "none.md", "tables")
