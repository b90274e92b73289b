"""Rollout files: what is written is read back, and what cannot be read is refused by name."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.rollouts import Rollout, read_rollouts, write_rollouts

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
FILLED = TEXT.filter(lambda text: bool(text.strip()))


def wrong(field: str, value: object) -> Rollout:
    """A rollout with a value of the wrong type, as code without a type checker can make it."""
    rollout = Rollout("1", "p", None, "r")
    object.__setattr__(rollout, field, value)
    return rollout


@st.composite
def rollout_lists(draw: st.DrawFn) -> list[Rollout]:
    ids = draw(st.lists(FILLED, unique=True, min_size=1, max_size=6))
    maybe = st.none() | TEXT
    rollouts = []
    for name in ids:
        response = draw(maybe)
        rollouts.append(
            Rollout(
                id=name,
                prompt=draw(FILLED),
                thinking=draw(maybe),
                response=response,
                harmful=draw(st.none() | st.booleans()),
                category=draw(maybe),
                refused=None if response is None else draw(st.none() | st.booleans()),
                source=draw(maybe),
                model=draw(maybe),
            )
        )
    return rollouts


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rollouts=rollout_lists())
def test_any_rollouts_come_back_unchanged(tmp_path: Path, rollouts: list[Rollout]) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(path, rollouts)
    assert read_rollouts(path) == rollouts
    assert path.read_bytes().count(b"\n") == len(rollouts)


def test_line_separators_within_texts_do_not_end_a_line(tmp_path: Path) -> None:
    odd = "a\u2028b\u2029c\x85d\re\nf\x0bg\U0001f600"
    write_rollouts(tmp_path / "r.jsonl", [Rollout("1", odd, odd, odd)])
    assert read_rollouts(tmp_path / "r.jsonl") == [Rollout("1", odd, odd, odd)]


def test_the_file_has_the_documented_keys_in_order(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "r.jsonl", [Rollout("1", "p", "t", "r", True, "c", False, "s", "m")])
    expected = (
        '{"id": "1", "prompt": "p", "thinking": "t", "response": "r", "harmful": true, "category": "c", '
        '"refused": false, "source": "s", "model": "m"}\n'
    )
    assert (tmp_path / "r.jsonl").read_text() == expected


def test_missing_optional_keys_take_their_default(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "1", "prompt": "p", "thinking": null, "response": "r"}\n\n')
    assert read_rollouts(tmp_path / "r.jsonl") == [Rollout("1", "p", None, "r")]


GOOD = {"id": "1", "prompt": "p", "thinking": "t", "response": "r"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "'id' must be text, found NoneType None"),
        ({"id": 7}, "'id' must be text, found int 7"),
        ({"id": " "}, "'id' is empty"),
        ({"prompt": ""}, "'prompt' is empty"),
        ({"prompt": ["x"]}, "'prompt' must be text, found list"),
        ({"thinking": 3}, "'thinking' must be text or null, found int 3"),
        ({"harmful": 1}, "'harmful' must be true, false or null, found int 1"),
        ({"harmful": "true"}, "'harmful' must be true, false or null, found str 'true'"),
        ({"refused": 0.0}, "'refused' must be true, false or null"),
        ({"response": None, "refused": True}, "'refused' must be null where 'response' is null"),
        ({"responce": "r"}, "unknown 'responce'"),
        ({"prompt": "\ud83d half"}, "'prompt' is not valid Unicode (lone surrogate at character 1)"),
        ({"thinking": "a\udc00"}, "'thinking' is not valid Unicode (lone surrogate at character 2)"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "id": "2", **change}) + "\n")
    with pytest.raises(CliffscopeError) as caught:
        read_rollouts(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rollouts"),
        ("\n \n", "no rollouts"),
        ('{"id": "1"\n', "line 1: not valid JSON"),
        ("[1]\n", "line 1: expected a JSON object, found list"),
        ('{"id": "1", "prompt": "p"}\n', "line 1: no 'thinking', 'response'"),
        (json.dumps(GOOD) + "\n" + json.dumps(GOOD) + "\n", "line 2: the id '1' is already on line 1"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(CliffscopeError, match=message) as caught:
        read_rollouts(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=r"nope\.jsonl: no such file"):
        read_rollouts(tmp_path / "nope.jsonl")


@pytest.mark.parametrize(
    ("rollouts", "message"),
    [
        ([Rollout("1", "p", None, "r"), Rollout("1", "q", None, "r")], "2 rollouts have the id '1'"),
        ([Rollout("1", "p", None, "half \ud800")], "lone surrogate at character 6"),
        ([Rollout("1", "p", None, None, refused=False)], "'refused' must be null"),
        ([wrong("harmful", 1)], "'harmful' must be true"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, rollouts: list[Rollout], message: str) -> None:
    with pytest.raises(CliffscopeError, match=message):
        write_rollouts(tmp_path / "r.jsonl", rollouts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("harmful", "refused", "outcome"),
    [
        (True, True, "refused"),
        (True, False, "complied"),
        (False, True, "benign_refused"),
        (False, False, "benign"),
        (None, True, "unknown"),
        (True, None, "unknown"),
    ],
)
def test_outcome(harmful: bool | None, refused: bool | None, outcome: str) -> None:
    assert Rollout("1", "p", None, "r", harmful, refused=refused).outcome == outcome


def test_every_field_is_in_the_file() -> None:
    assert list(asdict(Rollout("1", "p", None, "r"))) == [field.name for field in fields(Rollout)]
