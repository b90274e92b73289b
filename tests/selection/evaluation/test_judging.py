"""Judging in batches: nothing is asked twice, nothing that was said is lost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from interp.errors import CliffscopeError
from interp.judges import Judgement
from interp.rollouts import Rollout
from selection.evaluation.judging import judge_resumably

ROLLOUTS = [Rollout(str(n), f"prompt {n}", "So.", f"Text {n}.", True) for n in range(10)]


@dataclass
class Judge:
    """Refuses even ids; gives no verdict on some, and breaks at one."""

    name: str = "even"
    silent: set[str] = field(default_factory=set)
    breaks: str | None = None
    asked: list[str] = field(default_factory=list)

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        made = []
        for rollout in rollouts:
            if rollout.id == self.breaks:
                raise CliffscopeError("the judge is gone")
            self.asked.append(rollout.id)
            verdict = None if rollout.id in self.silent else int(rollout.id) % 2 == 0
            made.append(Judgement(verdict, None, "said so"))
        return made


def judge(judge: Judge, path: Path, rollouts: Sequence[Rollout] = ROLLOUTS, **options: bool) -> list[bool | None]:
    return [made.refused for made in judge_resumably(rollouts, judge, path, batch_size=3, **options)]


EVEN = [n % 2 == 0 for n in range(10)]


def test_in_order_and_once(tmp_path: Path) -> None:
    first, second = Judge(), Judge()
    assert judge(first, tmp_path / "log") == EVEN
    before = (tmp_path / "log").read_bytes()
    assert judge(second, tmp_path / "log") == EVEN
    assert second.asked == [] and (tmp_path / "log").read_bytes() == before
    reversed_ = judge_resumably(ROLLOUTS[:5], Judge(), tmp_path / "other", batch_size=2)
    assert [made.reason for made in reversed_] == ["said so"] * 5


def test_it_goes_on_where_it_broke(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match="the judge is gone"):
        judge(Judge(breaks="7"), tmp_path / "log")
    after = Judge()
    assert judge(after, tmp_path / "log") == EVEN
    assert after.asked == ["6", "7", "8", "9"]  # the batch that broke, and what followed
    judge(Judge(), tmp_path / "whole")
    assert (tmp_path / "log").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_has_no_verdict_is_asked_again(tmp_path: Path) -> None:
    expected = [None if n in (2, 9) else even for n, even in enumerate(EVEN)]
    assert judge(Judge(silent={"2", "9"}), tmp_path / "log") == expected
    again = Judge(silent={"9"})
    assert judge(again, tmp_path / "log") == [None if n == 9 else even for n, even in enumerate(EVEN)]
    assert again.asked == ["2", "9"]


@pytest.mark.parametrize("other", [{"name": "odd"}, {}])
def test_what_another_judge_or_another_text_left_is_dropped(other: dict[str, str], tmp_path: Path) -> None:
    judge(Judge(), tmp_path / "log")
    rollouts = ROLLOUTS if other else [*ROLLOUTS[:-1], Rollout("9", "prompt 9", "So.", "Other.", True)]
    second = Judge(**other)  # type: ignore[arg-type]
    judge(second, tmp_path / "log", rollouts)
    assert len(second.asked) == 10


def test_restart_asks_all_again(tmp_path: Path) -> None:
    judge(Judge(), tmp_path / "log")
    second = Judge()
    judge(second, tmp_path / "log", restart=True)
    assert len(second.asked) == 10
