"""Scores of a pool's examples: against `measure_cliff`, and what cannot be scored."""

import json
from dataclasses import asdict, replace

import pytest

from interp.errors import CliffscopeError
from interp.judges import Judgement, KeywordJudge, judged
from interp.rollouts import Rollout
from probes.cliff_run import measure_cliff
from selection.loss import mean_loss
from selection.pool import PoolExample
from selection.scoring import Scorer, rollout_from_score_row, score_from_row
from selection.targets import refusal
from tests.circuits.material import organism, organism_probe, organism_rollouts


def scorer(**options: object) -> Scorer:
    return Scorer(organism("cliff"), organism_probe("cliff"), **options)  # type: ignore[arg-type]


def example(rollout: Rollout, own: bool = True, **changed: object) -> PoolExample:
    made = PoolExample(rollout.id, rollout.prompt, rollout.harmful, rollout.category, rollout=rollout if own else None)
    return replace(made, **changed)  # type: ignore[arg-type]


def mixed() -> tuple[Rollout, ...]:
    return organism_rollouts("cliff")[:12] + organism_rollouts("cliff")[64:72]


@pytest.mark.parametrize("plateau", ["mean", "max"])
def test_scores_are_those_of_the_cliff_command(plateau: str) -> None:
    rollouts = mixed()
    found = scorer(plateau=plateau, batch_tokens=700).score([example(r) for r in rollouts])
    measured = measure_cliff(
        organism("cliff"), organism_probe("cliff"), rollouts, plateau=plateau, n_shuffles=0, by_layer=False
    )  # type: ignore[arg-type]
    for item, row, rollout in zip(found, measured.rows, rollouts, strict=True):
        assert (item.score.id, item.score.outcome, item.score.category) == (row.id, row.outcome, row.category)
        for name in ("plateau", "edge", "cliff", "fall"):
            assert getattr(item.score, name) == pytest.approx(getattr(row, name), abs=1e-4)
        assert item.score.n_tokens == len(organism("cliff").transcripts().build(rollout))
        assert item.score.answered == (not rollout.refused) and item.score.own
        assert item.score.unscorable is item.score.loss is item.score.judged is None


def test_generated_rollouts_score_as_given_ones() -> None:
    rollouts = mixed()[:6]
    given, generated = (scorer(max_new_tokens=400).score([example(r, own) for r in rollouts]) for own in (True, False))
    assert [item.rollout for item in generated] == [replace(rollout, source=None) for rollout in rollouts]
    for one, other in zip(given, generated, strict=True):
        assert not other.score.own
        assert one.score == replace(other.score, own=True)


def test_what_cannot_be_scored_is_kept_with_the_reason() -> None:
    good = organism_rollouts("cliff")[0]
    long = "very " * 3000
    examples = [
        example(good),
        example(replace(good, id="open", response=None, refused=None)),
        example(replace(good, id="empty", thinking="")),
        example(replace(good, id="absent", thinking=None)),
        example(replace(good, id="long", thinking=long)),
        PoolExample("prompt", long, True),
    ]
    found = [item.score for item in scorer().score(examples)]
    assert [score.unscorable for score in found] == [
        None,
        "thinking unclosed",
        "thinking empty",
        "thinking absent",
        "longer than the context",
        "prompt longer than the context",
    ]
    assert found[0].cliff is not None and all(score.cliff is score.edge is None for score in found[1:])
    assert [score.answered for score in found] == [not good.refused, False, *[not good.refused] * 3, False]
    # Scored among them or alone: the same.
    assert found[0] == scorer().score(examples[:1])[0].score


def test_a_judge_is_asked_beside_the_keywords() -> None:
    class Contrary:
        name = "contrary"

        def judge(self, rollouts: object) -> list[Judgement]:
            return [replace(found, refused=not found.refused) for found in KeywordJudge().judge(rollouts)]  # type: ignore[arg-type]

    found = scorer(judge=Contrary()).score([example(r) for r in mixed()])
    assert all(item.score.judged is (not item.score.refused) for item in found)
    assert scorer(judge=Contrary()).settings["judge"] == "contrary" and scorer().settings["judge"] is None


def test_the_loss_is_of_the_target() -> None:
    model, rollouts = organism("cliff"), mixed()
    refusing = replace(rollouts[-1], id="over", response="I'm sorry, I can't help with that.")
    made = [example(r) for r in (*rollouts, refusing)]
    found = [item.score.loss for item in scorer(loss_target="own-thinking").score(made)]
    targets = [replace(r, response=refusal(r.id) if r.harmful else r.response) for r in rollouts]
    expected = mean_loss(model, model.transcripts().build_all(targets))
    assert found[:-1] == pytest.approx(expected, rel=1e-3)
    # A benign prompt that was refused has no target.
    assert found[-1] is None
    pool = [replace(item, target_response="No.", target_thinking="Hm.") for item in made]
    targets = [replace(r, thinking="Hm.", response="No.") for r in (*rollouts, refusing)]
    found = [item.score.loss for item in scorer(loss_target="pool").score(pool)]
    assert found == pytest.approx(mean_loss(model, model.transcripts().build_all(targets)), rel=1e-3)
    with pytest.raises(CliffscopeError, match="ranking by loss needs a target for the whole pool"):
        scorer(loss_target="endpoint")


def test_rows_hold_everything() -> None:
    for item in scorer().score([example(r) for r in mixed()[:3]]):
        row = json.loads(json.dumps(item.as_row()))
        assert score_from_row(row) == item.score
        assert rollout_from_score_row(row) == judged([replace(item.rollout, source=None)], KeywordJudge())[0]
        assert set(asdict(item.score)) < set(row)


def test_a_probe_of_another_model_is_refused() -> None:
    probe = organism_probe("cliff").at(
        model="other", fingerprint={"architecture": "Other"}, layer=1, site="blocks.1.hook_resid_post", position="inst"
    )
    with pytest.raises(CliffscopeError, match="probe"):
        Scorer(organism("cliff"), probe)
