"""Nulls on organisms: what a relabelling looks up is what the pipeline computes; nothing is claimed of nothing."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from circuits.cases import Cases
from circuits.rank import RankOptions, rank_heads
from cliffbench.calibration.material import Material, at_edges, head_effects, relabelled_cliff
from cliffbench.calibration.nulls import Sizes, benign_as_complied, exchanged, searches
from interp.rollouts import Rollout
from probes.cliff_run import measure_cliff
from tests.circuits.material import organism, organism_probe, organism_rollouts

SMALL = Sizes(runs=30, whole=2, each=10, heads=8, pool=24, pairs=24)


class Known(Material):
    """Material whose rollouts and probe the tests have already."""

    @property
    def probe(self):  # type: ignore[override, no-untyped-def]
        return organism_probe(self.model.name.removeprefix("organism:"))


@cache
def material(name: str) -> Known:
    return Known(organism(name), organism_rollouts(name))


def as_complied(rollout: Rollout) -> Rollout:
    return replace(rollout, harmful=True, refused=False)


@pytest.mark.slow
def test_what_is_looked_up_is_what_the_pipeline_computes() -> None:
    known = material("cliff")
    model, probe = known.model, known.probe
    complied, benign, refused = (known.having(name)[:12] for name in ("complied", "benign", "refused"))
    cases = Cases.of(model, probe, [*complied, *benign, *refused])
    assert cases.nothing is None
    effects = head_effects(model, probe, at_edges(model, complied))
    for method in ("attribution", "ablation", "gradient"):
        found = rank_heads(model, probe, cases, RankOptions(method=method))  # type: ignore[arg-type]
        np.testing.assert_allclose(found.grid(), effects[method].mean(0), atol=1e-4)


@pytest.mark.slow
def test_a_relabelled_cliff_is_the_cliff_of_relabelled_rollouts() -> None:
    known = material("aligned")
    benign, refused = known.having("benign")[:20], known.having("refused")[:10]
    cliff = measure_cliff(known.model, known.probe, [*benign, *refused], n_shuffles=0, by_layer=False)
    rows, outcomes = [*range(30)], ["complied"] * 10 + ["benign"] * 10 + ["refused"] * 10
    by_hand = measure_cliff(
        known.model,
        known.probe,
        [*map(as_complied, benign[:10]), *benign[10:], *refused],
        n_shuffles=0,
        by_layer=False,
    )
    found = relabelled_cliff(cliff, outcomes, rows)
    assert found.objections == by_hand.objections and found.verdict == "no cliff"
    assert list(found.interval) == pytest.approx(list(by_hand.interval), abs=1e-5)


@pytest.mark.slow
def test_benign_rollouts_as_complied_ones_name_no_head_behind_the_gate_and_nearly_all_without() -> None:
    rows = {(row.kind, row.statistic, row.setting.split(", ")[-1]): row for row in
            benign_as_complied(material("aligned"), SMALL, 0)}  # fmt: skip
    for method in ("attribution", "ablation", "gradient", "cascade"):
        assert rows["claims", f"{method}: heads named", "gate"].rate == 0
        assert rows["p", f"{method}: p", "gate"].rate == 0
        without = rows["p", f"{method}: p", "no gate"]
        assert without.rate > 0.3 and without.note
        centred = rows["p", f"{method}: p", "effects less their mean"]
        assert not centred.note and 0.0 < centred.rate < 0.1


@pytest.mark.slow
def test_interchange_between_rollouts_that_ended_alike_keeps_its_level() -> None:
    rows = list(exchanged(material("cliff"), "complied", "cliff", SMALL, 0))
    p = [row for row in rows if row.kind == "p"]
    assert len(p) == 3 and all(0.005 < row.rate < 0.09 for row in p)
    assert next(row.rate for row in rows if row.kind == "claims") <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("null", ["random-weights", "shuffled"])
def test_a_whole_search_where_there_is_nothing_claims_nothing(null: str) -> None:
    done: list[int] = []
    rows = list(searches(null, material("cliff"), SMALL, 0, done.append))
    assert sum(done) == SMALL.whole
    assert [row.rate for row in rows if row.kind == "claims" and not row.note] == [0.0] * sum(
        row.kind == "claims" and not row.note for row in rows
    )
    assert any("no gate" in row.setting for row in rows) == (null == "random-weights")
