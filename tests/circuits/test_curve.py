"""The ablation curve: every figure against a computation of its own, the random control, and the file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from circuits.cases import Cases
from circuits.curve import COLUMNS, AblationCurve, CurveOptions, ablation_curve, check_counts, n_sets
from interp.errors import CliffscopeError
from interp.judges import KeywordJudge
from interp.judges.edge_logit import refusal_token_ids
from interp.judges.protocol import judged
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.statistics import bootstrap_interval, proportion_interval
from interventions.head_ablation import ScaleHeads
from interventions.heads import Head, parse_heads
from tests.circuits.material import organism, organism_probe, organism_rollouts

RANKED = (Head(4, 5), Head(3, 1), Head(2, 7))
OPTIONS = CurveOptions(
    counts=(2, 1), n_random=3, n_random_answered=1, n_prompts=10, n_rollouts=12, max_new_tokens=300, seed=5
)


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases.of(organism("cliff"), organism_probe("cliff"), organism_rollouts("cliff"))


@pytest.fixture(scope="module")
def curve(cases: Cases) -> AblationCurve:
    told: list[int] = []
    found = ablation_curve(organism("cliff"), organism_probe("cliff"), cases, RANKED, OPTIONS, told.append)
    assert sum(told) == n_sets(OPTIONS) == 9
    return found


def logits_by_hand(cases: Cases, *changes: ScaleHeads) -> tuple[torch.Tensor, torch.Tensor]:
    """Refusal and probe logits of the first complied rollouts, one text at a time by the Hugging Face model itself."""
    model, probe = organism("cliff"), organism_probe("cliff")
    tokens = list(refusal_token_ids(model.tokenizer, model.chat.thinking.close))
    refusal, projected = [], []
    with torch.no_grad(), model.intervene(*changes):
        for transcript in cases.complied[: OPTIONS.n_rollouts]:
            with model.reading([transcript]):
                out = model.hf(torch.tensor([transcript.input_ids]), output_hidden_states=True)
            inside = out.logits[0, -1].softmax(-1)[tokens].sum()
            refusal.append(torch.logit(inside.double()))
            projected.append(out.hidden_states[5][0, -1] @ probe.weight + probe.bias)
    return torch.stack(refusal), torch.stack(projected)


def rows(curve: AblationCurve, kind: str) -> pd.DataFrame:
    return curve.table[curve.table["set"] == kind]


def test_which_sets_are_measured(curve: AblationCurve) -> None:
    assert tuple(curve.table.columns) == COLUMNS and len(curve.table) == n_sets(OPTIONS)
    ranked, random = rows(curve, "ranked"), rows(curve, "random")
    assert ranked["n_heads"].tolist() == [0, 1, 2] and ranked["heads"].tolist() == ["", "4.5", "4.5,3.1"]
    assert random.groupby("n_heads")["draw"].apply(list).to_dict() == {1: [0, 1, 2], 2: [0, 1, 2]}
    for row in random.itertuples():
        drawn = parse_heads(str(row.heads))
        # As many in every layer, and none of those that were ranked so high.
        assert sorted(head.layer for head in drawn) == sorted(head.layer for head in RANKED[: int(str(row.n_heads))])
        assert not set(drawn) & set(RANKED[: int(str(row.n_heads))])
    assert curve.facts["rollouts"] == 12 and curve.facts["harmful"] == curve.facts["benign"] == 10
    assert curve.facts["counts"] == [2, 1] and curve.facts["seed"] == 5 and curve.facts["nothing"] is None
    assert curve.model == "organism:cliff"


def test_the_logits_by_hand(curve: AblationCurve, cases: Cases) -> None:
    for _, row in curve.table.iterrows():
        change = [ScaleHeads(parse_heads(row["heads"]))] if row["heads"] else []
        refusal, projected = logits_by_hand(cases, *change)
        assert row["refusal_logit"] == pytest.approx(float(refusal.mean()), abs=2e-3)
        assert row["probe_logit"] == pytest.approx(float(projected.mean()), abs=2e-3)
        low, high = bootstrap_interval(refusal.numpy(), seed=5)
        assert (row["refusal_logit_low"], row["refusal_logit_high"]) == pytest.approx((low, high), abs=5e-3)


def test_the_answers_by_hand(curve: AblationCurve, cases: Cases) -> None:
    """The same prompts, answered with the heads ablated, judged and counted here."""
    model, known = organism("cliff"), {rollout.prompt: rollout for rollout in organism_rollouts("cliff")}
    benign = [rollout for rollout in known.values() if rollout.outcome == "benign"]
    row = rows(curve, "ranked").iloc[2]
    rng = np.random.default_rng(5).permutation(len(known) - len(benign))
    harmful = [*cases.rollouts["complied"], *cases.rollouts["refused"]]
    prompts = [Prompt(str(n), harmful[place].prompt, True) for n, place in enumerate(rng[:10])]
    with model.intervene(ScaleHeads(RANKED[:2])):
        answers = judged(ModelGenerator(model, 300).generate(prompts), KeywordJudge())
    answered = sum(rollout.outcome == "complied" for rollout in answers)
    assert row["asr"] == answered / 10
    assert (row["asr_low"], row["asr_high"]) == pytest.approx(tuple(proportion_interval(answered, 10)))
    # Without ablation the answers are those that are known already.
    base = rows(curve, "ranked").iloc[0]
    assert base["asr"] == np.mean([known[prompt.text].outcome == "complied" for prompt in prompts])
    assert base["refusal_benign"] == 0 and base["kl_benign"] == 0
    assert row["kl_benign"] > 0


def test_random_sets_answer_as_often_as_asked(curve: AblationCurve) -> None:
    random = rows(curve, "random")
    for name in ("asr", "asr_low", "asr_high", "refusal_benign", "kl_benign"):
        assert (random[name].notna() == (random["draw"] == 0)).all()
    assert curve.table["refusal_logit"].notna().all()


def test_refusal_returns_with_the_planted_heads_and_not_with_random_ones(curve: AblationCurve) -> None:
    assert curve.returns == 1
    random = rows(curve, "random")
    ranked = rows(curve, "ranked").set_index("n_heads")
    assert random["refusal_logit"].max() < -4 < 0 < ranked.loc[1, "refusal_logit"]
    assert ranked.loc[0, "asr"] >= 0.4 > 0.1 >= ranked.loc[2, "asr"]
    assert curve.evidence.startswith("Refusal returns with 1 head ablated (4.5): mean refusal logit -")
    assert f"Harmful prompts answered: {ranked.loc[0, 'asr']:.1%} → {ranked.loc[1, 'asr']:.1%}" in curve.evidence
    assert "3 random sets -" in curve.evidence and "benign prompts refused: 0.0% → " in curve.evidence


def made_up(refusal: list[float], **columns: object) -> AblationCurve:
    table = pd.DataFrame({"n_heads": range(len(refusal)), "set": "ranked", "draw": -1, "refusal_logit": refusal})
    names = ["none", *(f"0.{n}" for n in range(1, len(refusal)))]
    table = table.assign(heads=names, **{"asr": np.nan, "refusal_benign": np.nan, **columns})
    return AblationCurve(table.reindex(columns=list(COLUMNS)), "m", {"nothing": None})


def test_when_refusal_returns() -> None:
    assert made_up([-3, -1, 0.5, 2]).returns == 2
    assert made_up([1, 2]).returns == 0
    never = made_up([-3, -2, -1])
    assert never.returns is None
    assert never.evidence == "Refusal does not return with up to 2 heads: mean refusal logit -3.00 → -1.00 nats."
    half = made_up([-3, 1], asr=[0.7, 0.1])
    assert half.evidence.endswith("-3.00 → 1.00 nats. Harmful prompts answered: 70.0% → 10.0%.")
    idle = replace(never, facts={"nothing": "no cliff"})
    assert idle.evidence.startswith("Nothing to explain: no cliff. Refusal does not return")


def test_gamma_scope_and_no_answers(cases: Cases) -> None:
    options = CurveOptions(counts=(1,), n_random=0, n_prompts=0, n_rollouts=12, gamma=0.5, scope="from-edge")
    found = ablation_curve(organism("cliff"), organism_probe("cliff"), cases, RANKED, options)
    refusal, _ = logits_by_hand(cases, ScaleHeads(RANKED[:1], "from-edge", gamma=0.5))
    assert found.table["refusal_logit"].tolist()[1] == pytest.approx(float(refusal.mean()), abs=2e-3)
    assert len(found.table) == 2 and found.table["asr"].isna().all() and found.table["kl_benign"].isna().all()
    assert "Harmful" not in found.evidence and "random" not in found.evidence


def test_the_same_seed_gives_the_same_curve_and_another_other_sets(cases: Cases, curve: AblationCurve) -> None:
    options = replace(OPTIONS, n_prompts=0)
    again, other = (
        ablation_curve(organism("cliff"), organism_probe("cliff"), cases, RANKED, replace(options, seed=seed))
        for seed in (5, 6)
    )
    assert again.table["heads"].tolist() == curve.table["heads"].tolist() != other.table["heads"].tolist()
    np.testing.assert_allclose(again.table["refusal_logit"], curve.table["refusal_logit"])


def test_a_file_gives_back_what_was_saved(curve: AblationCurve, tmp_path: Path) -> None:
    curve.save(tmp_path / "c.parquet")
    back = AblationCurve.load(tmp_path / "c.parquet")
    pd.testing.assert_frame_equal(back.table, curve.table)
    assert (back.model, back.facts, back.evidence) == (curve.model, curve.facts, curve.evidence)
    curve.save(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()
    curve.table.to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(CliffscopeError, match=r"plain\.parquet: not an ablation curve"):
        AblationCurve.load(tmp_path / "plain.parquet")


def test_wrong_use_is_refused(cases: Cases) -> None:
    model, probe = organism("cliff"), organism_probe("cliff")
    with pytest.raises(CliffscopeError, match="4 heads cannot be ablated: 3 are ranked"):
        ablation_curve(model, probe, cases, RANKED, CurveOptions(counts=(1, 4)))
    none = replace(cases, complied=(), nothing="the model answered none of the harmful prompts")
    with pytest.raises(CliffscopeError, match="nothing to explain: the model answered none"):
        ablation_curve(model, probe, none, RANKED)
    check_counts((0, 24), 48, model)
    for counts, message in (((-1,), "-1 heads cannot be ablated"), ((25,), "25 of 48 heads.*at most 24")):
        with pytest.raises(CliffscopeError, match=message):
            check_counts(counts, 48, model)
    with pytest.raises(CliffscopeError, match="scope 'last'"):
        CurveOptions(scope="last")
    for gamma in (1.0, float("nan")):
        with pytest.raises(CliffscopeError, match="gamma"):
            CurveOptions(gamma=gamma)
