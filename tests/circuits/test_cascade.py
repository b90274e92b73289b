"""The cascade: the planted gate's amplifier falls, nothing upstream changes, figures agree with plain hooks."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from circuits.cascade import Cascade, cascade
from circuits.cases import Cases
from circuits.contributions import contributions
from interp.errors import CliffscopeError
from interp.significance import benjamini_hochberg, sign_flip_p
from interp.transcripts.positions import EDGE
from interventions.head_ablation import ScaleHeads
from interventions.heads import Head
from tests.circuits.material import PROBE_LAYER, organism, organism_probe, organism_rollouts

GATE, AMPLIFIER = Head(3, 1), Head(4, 5)


@cache
def cases(limit: int = 16) -> Cases:
    return Cases.of(organism("cliff"), organism_probe("cliff"), organism_rollouts("cliff"), limit=limit)


def of(head: tuple[int, int], mine: Cases | None = None, **options: str) -> Cascade:
    return cascade(organism("cliff"), organism_probe("cliff"), mine or cases(), head, **options)  # type: ignore[arg-type]


def row(found: Cascade, head: Head) -> "pd.Series[float]":
    (at,) = found.table.index[found.table["name"] == str(head)]
    return found.table.loc[at]


@pytest.mark.parametrize("scope", ["all", "from-edge"])
def test_without_the_planted_gate_the_planted_amplifier_falls_and_no_other_head(scope: str) -> None:
    found = of(GATE, scope=scope)
    assert found.amplifiers == (AMPLIFIER,)
    first = found.table.iloc[0]
    assert first["name"] == str(AMPLIFIER)
    assert first["before"] < first["after"] < 0 and -100 < first["percent"] < -20
    assert first["low"] <= first["change"] <= first["high"] and first["low"] > 0
    assert found.facts["logit_after"] > found.facts["logit_before"]


@pytest.mark.parametrize("head", [(0, 0), (2, 5), (4, 5), (3, 6)])
def test_without_another_head_none_falls(head: tuple[int, int]) -> None:
    assert of(head).amplifiers == ()


def test_heads_that_are_not_downstream_change_exactly_by_nothing() -> None:
    model, probe, mine = organism("cliff"), organism_probe("cliff"), cases()
    before = contributions(model, probe, mine.complied).heads
    with model.intervene(ScaleHeads([GATE])):
        after = contributions(model, probe, mine.complied).heads
    change = after - before
    assert (change[:, : GATE.layer] == 0).all()
    others = [head for head in range(model.n_heads) if head != GATE.head]
    assert (change[:, GATE.layer, others] == 0).all()
    assert (after[:, *GATE] == 0).all()
    assert (change[:, GATE.layer + 1 :] != 0).any()
    assert sorted(set(of(GATE, mine).table["layer"])) == list(range(GATE.layer + 1, model.n_layers))


def test_the_figures_are_those_of_hooks_on_the_model_itself() -> None:
    """Plain PyTorch: zero the gate's columns of the output projection's input, read the amplifier's z."""
    model, probe, mine = organism("cliff"), organism_probe("cliff"), cases(8)
    width = model.d_head

    def amplifier_writes() -> np.ndarray:
        z = model.capture(mine.complied, [f"blocks.{AMPLIFIER.layer}.attn.hook_z"], [EDGE])
        weight = model.hf.model.layers[AMPLIFIER.layer].self_attn.o_proj.weight.detach().float()
        columns = weight[:, AMPLIFIER.head * width : (AMPLIFIER.head + 1) * width]
        values = z[f"blocks.{AMPLIFIER.layer}.attn.hook_z"][:, 0, AMPLIFIER.head]
        return (values @ columns.T @ probe.direction).double().numpy()

    def without_gate(module: object, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        z = args[0].clone()
        z[..., GATE.head * width : (GATE.head + 1) * width] = 0
        return (z,)

    before = amplifier_writes()
    handle = model.hf.model.layers[GATE.layer].self_attn.o_proj.register_forward_pre_hook(without_gate)
    try:
        after = amplifier_writes()
    finally:
        handle.remove()
    found = of(GATE, mine, scope="all")
    mean = row(found, AMPLIFIER)
    assert mean["before"] == pytest.approx(before.mean(), rel=1e-4)
    assert mean["after"] == pytest.approx(after.mean(), rel=1e-4)
    assert mean["change"] == pytest.approx((after - before).mean(), rel=1e-4)
    assert mean["percent"] == pytest.approx(100 * (after.mean() / before.mean() - 1), rel=1e-3)
    assert mean["p"] == pytest.approx(sign_flip_p(after - before), rel=1e-6)
    assert mine.cliff is not None
    whole = mine.cliff.of("complied", "fall").mean() / float(probe.weight.norm())
    assert mean["share"] == pytest.approx((after - before).mean() / whole, rel=1e-4)
    np.testing.assert_allclose(found.table["q"], benjamini_hochberg(found.table["p"].to_numpy()))
    assert (found.table["after_probe"] == (found.table["layer"] > PROBE_LAYER)).all()


def test_a_head_of_the_last_layer_has_nothing_downstream(tmp_path: Path) -> None:
    found = of((5, 0), cases(8))
    assert len(found.table) == 0 and found.amplifiers == ()
    found.save(tmp_path / "cascade.parquet")
    assert Cascade.load(tmp_path / "cascade.parquet").amplifiers == ()


def test_where_there_is_nothing_to_explain_no_head_falls() -> None:
    found = of(GATE, replace(cases(8), no_fall="no cliff"))
    assert found.amplifiers == () and found.facts["nothing"] == "no cliff"
    model, probe, rollouts = organism("aligned"), organism_probe("aligned"), organism_rollouts("aligned")
    none = cascade(model, probe, Cases.of(model, probe, rollouts), GATE)
    assert none.amplifiers == () and none.table["change"].isna().all() and len(none.table) == 16
    assert none.facts["nothing"] == "the model answered none of the 64 harmful prompts"


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    found = of(GATE, cases(8))
    found.save(tmp_path / "cascade.parquet")
    back = Cascade.load(tmp_path / "cascade.parquet")
    pd.testing.assert_frame_equal(back.table, found.table)
    assert (back.head, back.model, back.fingerprint) == (found.head, found.model, found.fingerprint)
    assert back.facts == found.facts and back.amplifiers == found.amplifiers
    pd.DataFrame({"layer": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(CliffscopeError, match=r"other\.parquet: not a cascade"):
        Cascade.load(tmp_path / "other.parquet")


def test_a_head_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CliffscopeError, match="layer 3 has query heads 0 to 7; the 4 key-value heads"):
        of((3, 8), cases(8))


@pytest.mark.slow
def test_the_planted_edges_show_when_the_gate_writes_what_it_writes_in_refused_rollouts() -> None:
    """Zeroing the gate of `gate` changes nothing: what opens is the absence of its refusing signal."""
    model, probe, rollouts = organism("gate"), organism_probe("gate"), organism_rollouts("gate")
    mine = Cases.of(model, probe, rollouts, limit=24)
    head, amplifiers = Head(2, 3), {Head(3, 6), Head(4, 1)}
    zeroed, refusing = (cascade(model, probe, mine, head, instead=instead) for instead in ("zero", "refused"))
    assert not amplifiers & set(zeroed.amplifiers)
    assert amplifiers <= set(refusing.amplifiers)
    assert refusing.facts["instead"] == "refused"
