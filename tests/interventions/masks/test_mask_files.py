"""The file of a mask: its bytes, its metadata, and every way in which it can be bad."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.torch import save_file

from interp.errors import CliffscopeError
from interventions.heads import Head
from interventions.masks.expected_effect import ExpectedEffect, SequenceEffect
from interventions.masks.head_mask import HeadMask
from interventions.masks.mask_file import FORMAT

finite = st.floats(-100, 100, width=32)
names = st.none() | st.text(max_size=12)
facts = st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=6) | st.booleans() | finite, max_size=4)


@st.composite
def effects(draw: Callable[[Any], Any]) -> ExpectedEffect:
    sequences = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(1, 4))
        ids, tokens = (tuple(draw(st.lists(st.integers(0, 9999), min_size=k, max_size=k))) for k in (n + 1, n))
        before, after = (tuple(draw(st.lists(finite, min_size=n, max_size=n))) for _ in range(2))
        sequences.append(SequenceEffect(ids, tokens, before, after, draw(st.none() | st.tuples(finite, finite))))
    return ExpectedEffect(tuple(sequences), draw(st.sampled_from(["float32", "bfloat16"])))


@st.composite
def masks(draw: Callable[[Any], Any]) -> HeadMask:
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 6)))
    scale = torch.from_numpy(draw(hnp.arrays("float32", shape, elements=finite)).copy())
    scale[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = 0.0
    fingerprint = draw(st.sampled_from([{}, {"n_layers": str(shape[0]), "n_heads": str(shape[1]), "d_head": "8"}]))
    return HeadMask(
        scale, draw(st.booleans()), draw(names), fingerprint, draw(names), draw(facts), draw(st.none() | effects())
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=masks())
def test_what_is_saved_is_what_is_loaded(mask: HeadMask, tmp_path: Path) -> None:
    path, again = tmp_path / "mask.safetensors", tmp_path / "again.safetensors"
    mask.save(path)
    loaded = HeadMask.load(path)
    assert torch.equal(loaded.scale, mask.scale)
    for name in ("renormalize", "model", "fingerprint", "method", "facts", "expected", "heads", "layers", "fraction"):
        assert getattr(loaded, name) == getattr(mask, name), name
    loaded.save(again)
    assert path.read_bytes() == again.read_bytes()


def golden_mask() -> HeadMask:
    scale = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.5]])
    effect = SequenceEffect((5, 6), (1, 2), (-1.5, -0.25), (-2.0, -0.5), (0.5, 1.0))
    return HeadMask(
        scale,
        model="a model",
        fingerprint={"architecture": "X", "n_layers": "2", "n_heads": "3"},
        method="ablation",
        facts={"ranked": ["0.1", "1.2"], "threshold": 0.05},
        expected=ExpectedEffect((effect,), "float32"),
    )


def test_golden_bytes(tmp_path: Path) -> None:
    """The format is a promise to training jobs: if this fails, raise the version."""
    golden_mask().save(tmp_path / "mask.safetensors")
    content = (tmp_path / "mask.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "05e52bb5abf23709be50cb9cc62278dff7ccd66ba40c14a834525eb307ddc8f1"
    with safe_open(tmp_path / "mask.safetensors", framework="pt") as file:
        assert file.get_tensor("scale").tolist() == [[1, 0, 1], [1, 1, 0.5]]
        metadata = file.metadata()
    assert {key: value for key, value in metadata.items() if key not in ("expected", "facts", "fingerprint")} == {
        "format": "cliffscope.head_mask",
        "version": "1",
        "model": "a model",
        "method": "ablation",
        "renormalize": "false",
        "fraction": "0.333333",
    }
    assert json.loads(metadata["facts"]) == {"ranked": ["0.1", "1.2"], "threshold": 0.05}
    (sequence,) = json.loads(metadata["expected"])["sequences"]
    assert sequence["input_ids"] == [5, 6] and sequence["before"] == [-1.5, -0.25]


def test_heads_layers_and_summary_follow_from_the_scale() -> None:
    mask = golden_mask()
    assert mask.heads == (Head(0, 1), Head(1, 2))
    assert mask.layers == (0, 1)
    summary = mask.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["heads"] == ["0.1", "1.2"] and summary["scale"] == [0, 0.5] and summary["fraction"] == 1 / 3
    assert summary["expected"] == [{"tokens": 2, "largest_change": 0.5, "refusal_logit": [0.5, 1.0]}]


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (torch.tensor([[1.0, float("nan")]]), "NaN or infinity"),
        (torch.tensor([[1.0, float("-inf")]]), "NaN or infinity"),
        (torch.ones(3, 4), "masks nothing, every scale is 1"),
    ],
)
def test_a_mask_that_cannot_be_is_not_made(scale: torch.Tensor, message: str) -> None:
    with pytest.raises(CliffscopeError, match=message):
        HeadMask(scale)


def bad_files() -> dict[str, tuple[Callable[[Path], Any], str]]:
    """For each kind of bad file what writes it, and what is said of it."""
    good = {"format": FORMAT, "version": "1", "renormalize": "false"}
    scale = torch.tensor([[0.0, 1, 1, 1], [1, 1, 1, 1]])
    sizes = json.dumps({"n_layers": "2", "n_heads": "8", "n_kv_heads": "4"})

    def tensors(metadata: dict[str, str] | None = None, name: str = "scale", value: torch.Tensor = scale, **more: str):
        return lambda path: save_file({name: value}, path, {**(good if metadata is None else metadata), **more})

    def cut(path: Path) -> None:
        golden_mask().save(path)
        path.write_bytes(path.read_bytes()[:-4])

    def pickled(path: Path) -> None:
        path.write_bytes(pickle.dumps({"scale": [[0.0, 1.0]]}))

    return {
        "missing": (lambda path: None, "no such file"),
        "empty": (lambda path: path.write_bytes(b""), "not a safetensors file"),
        "truncated": (cut, "not a safetensors file"),
        "pickle": (pickled, "not a safetensors file"),
        "torch.save": (lambda path: torch.save({"scale": scale}, path), "not a safetensors file"),
        "nan": (tensors(value=torch.tensor([[0.0, float("nan")]])), "1 NaN or infinite values in 'scale'"),
        "inf": (tensors(value=torch.tensor([[0.0, float("inf")]])), "1 NaN or infinite values in 'scale'"),
        "nothing masked": (tensors(value=torch.ones(2, 4)), "masks nothing"),
        "a probe": (tensors({"format": "cliffscope.probe"}), "not a head mask .format 'cliffscope.probe'"),
        "no metadata": (tensors({}), "not a head mask .format 'missing'"),
        "version": (tensors(version="2"), "head mask of version '2'; this Cliffscope reads version '1'"),
        "no version": (tensors({"format": FORMAT}), "head mask of version 'missing'"),
        "renormalize": (tensors(renormalize="yes"), "must be 'true' or 'false', found 'yes'"),
        "one axis": (tensors(value=scale[0]), r"expected scale \[n_layers, n_heads\], found scale \[4\]"),
        "three axes": (tensors(value=scale[None]), r"found scale \[1, 2, 4\]"),
        "other name": (tensors(name="mask"), r"found mask \[2, 4\]"),
        "key-value heads": (tensors(fingerprint=sizes), r"\[2, 4\] \(a mask over key-value heads\?.*2 layers of 8"),
        "broken JSON": (tensors(facts="{"), "facts in the mask's metadata is not JSON"),
        "JSON list": (tensors(fingerprint="[]"), "fingerprint in the mask's metadata must be a JSON object"),
        "effect lacks keys": (tensors(expected="{}"), "expected effect cannot be read"),
        "effect of wrong lengths": (
            tensors(
                expected=json.dumps(
                    {
                        "dtype": "float32",
                        "sequences": [
                            {"input_ids": [1], "tokens": [1, 2], "before": [0.1], "after": [0.1], "refusal_logit": None}
                        ],
                    }
                )
            ),
            "expected effect cannot be read",
        ),
        "effect of wrong types": (
            tensors(expected=json.dumps({"dtype": "float32", "sequences": 3})),
            "expected effect cannot be read",
        ),
        "effect of unknown precision": (
            tensors(expected=json.dumps({"dtype": "int8", "sequences": []})),
            "expected effect cannot be read",
        ),
    }


@pytest.mark.parametrize("kind", list(bad_files()))
def test_a_bad_file_is_a_one_line_error_that_names_it(kind: str, tmp_path: Path) -> None:
    write, message = bad_files()[kind]
    path = tmp_path / "mask.safetensors"
    write(path)
    with pytest.raises(CliffscopeError, match=message) as caught:
        HeadMask.load(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_facts_that_json_cannot_hold_leave_no_file(tmp_path: Path) -> None:
    for fact in (float("nan"), object()):
        with pytest.raises(CliffscopeError, match="JSON cannot hold the mask's facts"):
            HeadMask(torch.zeros(1, 2), facts={"x": fact}).save(tmp_path / "mask.safetensors")
    assert list(tmp_path.iterdir()) == []
