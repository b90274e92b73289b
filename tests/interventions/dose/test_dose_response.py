"""The sweep on an organism: figures against a hook of one's own, resumption, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.errors import CliffscopeError
from interp.judges import Judgement, KeywordJudge
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interventions.directions.direction import Direction
from interventions.dose import DoseOptions, DoseResponse, dose_response
from interventions.dose.bench import outcomes
from interventions.dose.response import COLUMNS
from tests.circuits.material import organism
from tests.interventions.dose.material import few_prompts, refusal_direction

OPTIONS = DoseOptions(layers=(2,), alphas=(1.0,), controls=1, max_new_tokens=200)


class Counting(KeywordJudge):
    """Counts how often it is asked; stops the process, as it were, when asked once too often."""

    def __init__(self, stop: int | None = None) -> None:
        super().__init__()
        self.asked, self.stop = 0, stop

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        if self.asked == self.stop:
            raise KeyboardInterrupt
        self.asked += 1
        return super().judge(rollouts)


@cache
def measured() -> DoseResponse:
    """The unsteered model, one dose and one control."""
    return dose_response(organism("cliff"), refusal_direction(), few_prompts(), OPTIONS)


def sweep(out: Path, judge: KeywordJudge | None = None, **how: Any) -> DoseResponse:
    options = replace(OPTIONS, **{name: how.pop(name) for name in list(how) if hasattr(OPTIONS, name)})
    return dose_response(
        organism("cliff"), refusal_direction(), how.pop("prompts", few_prompts()), options, judge=judge, out=out, **how
    )


def test_one_row_a_dose_with_all_columns() -> None:
    table = measured().table
    assert list(table.columns) == list(COLUMNS)
    assert list(table["set"]) == ["unsteered", "vector", "random"]
    assert list(table["n_harmful"]) == [6] * 3 and list(table["n_benign"]) == [4] * 3
    unsteered = measured().unsteered
    assert (unsteered["kl_benign"], unsteered["kl_benign_low"], unsteered["kl_benign_high"]) == (0, 0, 0)
    assert measured().facts["options"]["mode"] == "add"


def test_figures_are_those_of_a_hook_of_ones_own() -> None:
    """The vector added by a plain PyTorch hook on the block, generation and judging without any intervention."""
    model, vector = organism("cliff"), refusal_direction()
    added = vector.scale * vector.vector
    row = measured().rows[1]
    block = model.hf.model.layers[2]
    handle = block.register_forward_hook(lambda module, args, output: output + added)
    try:
        rollouts = ModelGenerator(model, max_new_tokens=200).generate(few_prompts())
    finally:
        handle.remove()
    refused = [judgement.refused for judgement in KeywordJudge().judge(rollouts)]
    harmful = [verdict for verdict, prompt in zip(refused, few_prompts(), strict=True) if prompt.harmful]
    benign = [verdict for verdict, prompt in zip(refused, few_prompts(), strict=True) if not prompt.harmful]
    assert row["asr"] == harmful.count(False) / 6 and row["refusal_benign"] == benign.count(True) / 4
    assert row["unclosed"] == sum(rollout.response is None for rollout in rollouts) / 10


def test_next_to_nothing_changes_next_to_nothing() -> None:
    options = replace(OPTIONS, alphas=(1e-6,), controls=0)
    made = dose_response(organism("cliff"), refusal_direction(), few_prompts(), options)
    unsteered, steered = made.rows
    for name in ("answered", "benign_refused", "unclosed", "looping", "useless"):
        assert steered[name] == unsteered[name]
    assert 0 <= steered["kl_benign"] < 1e-6
    assert steered["refusal_logit"] == pytest.approx(unsteered["refusal_logit"], abs=1e-3)


def test_killed_and_run_again_it_gives_the_same_bytes_and_measures_nothing_twice(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    counting = Counting()
    sweep(whole, counting)
    assert counting.asked == 3
    with pytest.raises(KeyboardInterrupt):
        sweep(cut, Counting(stop=2))
    assert not cut.exists() and (tmp_path / ".cut.parquet.partial").exists()
    with pytest.raises(CliffscopeError, match=r"cut.parquet: an unfinished run with other settings .*seed is 0 there"):
        sweep(cut, Counting(), seed=1)
    counting, steps = Counting(), []
    sweep(cut, counting, advance=steps.append)
    assert counting.asked == 1 and steps == [1, 1, 1]
    assert cut.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"whole.parquet", "cut.parquet"}


def test_what_is_finished_is_read_and_what_is_other_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    measured().save(out)
    before, counting = out.read_bytes(), Counting()
    assert sweep(out, counting).rows == measured().rows and counting.asked == 0
    with pytest.raises(
        CliffscopeError, match=r"made with other settings \(options.scope is \"all\" there and \"edge\""
    ):
        sweep(out, counting, scope="edge")
    with pytest.raises(CliffscopeError, match=r"made with other settings \(prompts.count is 10 there and 2 now"):
        sweep(out, counting, prompts=few_prompts(1, 1))
    assert out.read_bytes() == before and counting.asked == 0
    sweep(out, counting, prompts=few_prompts(1, 1), restart=True)
    assert counting.asked == 3 and DoseResponse.load(out).unsteered["n_harmful"] == 1


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(CliffscopeError, match=r"out\.parquet: is there already, and no table of doses"):
        sweep(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"] and out.read_text(encoding="utf-8") == "mine"


def test_responses_without_a_verdict_count_in_no_rate() -> None:
    def made(harmful: bool, refused: bool | None, response: str | None = "Sure.") -> Rollout:
        return Rollout("x", "p", "t", response, harmful, refused=refused)

    rollouts = [made(True, False), made(True, None), made(True, None, None), made(False, True), made(False, None, " ")]
    found = outcomes(rollouts)
    assert (found["n_harmful"], found["answered"], found["n_benign"], found["benign_refused"]) == (2, 1, 2, 1)
    assert (found["unjudged"], found["unclosed"], found["useless"]) == (1, 1 / 5, 2 / 5)


def test_looping_is_seen_in_the_thinking_and_in_the_response() -> None:
    loop = "I must think again about it. " * 10
    rollouts = [
        Rollout("a", "p", loop, None, True),
        Rollout("b", "p", loop, "Sure.", True, refused=False),
        Rollout("c", "p", "t", loop, False, refused=False),
        Rollout("d", "p", "t", "Sure.", False, refused=False),
    ]
    found = outcomes(rollouts)
    # Thinking that loops and then ends in an answer is not useless.
    assert (found["looping"], found["unclosed"], found["useless"]) == (3 / 4, 1 / 4, 2 / 4)


def test_both_kinds_of_prompts_are_needed() -> None:
    model, vector = organism("cliff"), refusal_direction()
    with pytest.raises(CliffscopeError, match="no benign prompts: a dose is judged by"):
        dose_response(model, vector, few_prompts()[:6], OPTIONS)
    unknown = [replace(few_prompts()[0], harmful=None)]
    with pytest.raises(CliffscopeError, match="not known whether it is harmful"):
        dose_response(model, vector, unknown, OPTIONS)


def test_what_does_not_fit_is_refused_before_anything_is_answered(tmp_path: Path) -> None:
    model, counting = organism("cliff"), Counting()
    for vector, options, says in (
        (Direction.of(torch.ones(7)), OPTIONS, "width 7"),
        (refusal_direction(), replace(OPTIONS, layers=(9,)), "9"),
        (refusal_direction(), replace(OPTIONS, mode="transport"), "does not go with a direction"),
        (refusal_direction(), replace(OPTIONS, units="miles"), "units 'miles'"),
    ):
        with pytest.raises(CliffscopeError, match=says):
            dose_response(model, vector, few_prompts(), options, judge=counting, out=tmp_path / "out.parquet")
    assert counting.asked == 0 and not list(tmp_path.iterdir())
