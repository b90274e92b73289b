"""Frozen interventions: they do what the live ones do, as data that a process without this package can run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Change
from interp.models.interop.frozen import frozen
from interp.models.interop.nnsight import intervened
from interp.models.interop.recording import Recorder
from interventions.head_ablation import ScaleHeads
from interventions.steering.along_direction import AddDirection
from tests.architectures import random_model
from tests.interp.models.interop.material import KINDS, TEXTS, TOLERANCE, batch, direction, hooked
from tests.interp.models.interop.tracing import traced

SENDABLE = [kind for kind in KINDS if "renormalized" not in kind]


@pytest.mark.parametrize("name", ["gemma3", "gpt_neox", "qwen3"])
def test_frozen_interventions_do_what_live_ones_do(name: str) -> None:
    model = hooked(name)
    lm = model.as_nnsight()
    for kind in SENDABLE:
        interventions = KINDS[kind](model)
        for side in ("right", "left"):
            ids, mask = batch(TEXTS, side)
            expected = traced(intervened(lm, model, interventions, TEXTS), ids, mask)
            found = traced(frozen(lm, interventions, ids, mask, TEXTS), ids, mask)
            torch.testing.assert_close(found, expected, **TOLERANCE, msg=lambda m, k=kind: f"{k}: {m}")
            assert not torch.equal(traced(lm, ids, mask), expected)


def test_a_model_without_weights_gives_the_same_program() -> None:
    """Interventions are frozen for a model that is too large to load here."""
    from nnsight import NNsight

    hf = random_model("qwen3")
    with torch.device("meta"):
        empty = NNsight(type(hf)(hf.config))
    ids, mask = batch(TEXTS)
    interventions = KINDS["at every site"](hooked("qwen3"))
    programs = [
        frozen(lm, interventions, ids, mask, TEXTS)._edits[0].lcls["begin"].__self__.programs
        for lm in (empty, NNsight(hf))
    ]
    assert _plain(programs[0]) == _plain(programs[1])


def _plain(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part.tolist()
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items()}
    return [_plain(item) for item in part] if isinstance(part, list | tuple) else part


class Doing:
    def __init__(self, change: Callable[[Tensor], Tensor], site: str = "blocks.1.hook_resid_post") -> None:
        self.site, self.do = site, change

    def changes(self, model: HookedModel) -> dict[str, Change]:
        return {self.site: lambda value, tokens: self.do(value)}


def test_operations_that_write_in_place_are_recorded() -> None:
    model = hooked("qwen3")
    ids, mask = batch(TEXTS[:1])

    def in_place(value: Tensor) -> Tensor:
        new, own = value.clone(), torch.zeros(32)
        own.copy_(value[0, 0])
        new[:, 2:5, ::2] *= 3
        new[:, torch.tensor([1, 7])] += own
        return new.softmax(-1).topk(32, -1).values + new.split(16, -1)[0].mean() + (new > 0).sum()

    lm, doing = model.as_nnsight(), Doing(in_place)
    expected = traced(intervened(lm, model, [doing]), ids, mask)
    once = frozen(lm, [doing], ids, mask)
    for _ in range(2):
        torch.testing.assert_close(traced(once, ids, mask), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value * 2 if value[0, 0, 0] > 0 else value, "looking at the value"),
        (lambda value: value + value.nonzero().shape[0], "looking at the value"),
        (lambda value: value * float(value.norm()), "looking at the value"),
    ],
)
def test_what_looks_at_values_is_refused(change: Callable[[Tensor], Tensor], reason: str) -> None:
    model = hooked("qwen3")
    with pytest.raises(CliffscopeError, match=rf"Doing at blocks\.1\.hook_resid_post cannot be frozen .*{reason}"):
        frozen(model.as_nnsight(), [Doing(change)], *batch(TEXTS))


def test_what_remembers_between_calls_is_refused() -> None:
    model, calls = hooked("qwen3"), []

    def count(value: Tensor) -> Tensor:
        calls.append(value)
        return value * len(calls)

    with pytest.raises(CliffscopeError, match="whose steps depend on the values"):
        frozen(model.as_nnsight(), [Doing(count)], *batch(TEXTS))


def test_weights_are_not_sent() -> None:
    model = hooked("qwen3")
    with pytest.raises(CliffscopeError, match="reads the model's weights, which are not sent"):
        frozen(model.as_nnsight(), KINDS["scaled heads, renormalized"](model), *batch(TEXTS), TEXTS)


def test_another_batch_and_unfrozen_generation_are_refused() -> None:
    model = hooked("qwen3")
    ids, mask = batch(TEXTS)
    lm = frozen(model.as_nnsight(), [AddDirection(direction(model), 1.0)], ids, mask)
    with pytest.raises(ValueError, match=r"values of shape \[2, 18, 32\], found \[1, 18, 32\]: trace the rows"):
        traced(lm, ids[:1], mask[:1])
    edge = [ScaleHeads([(1, 2)], "from-edge")]
    with pytest.raises(CliffscopeError, match="does not say whose tokens it carries"):
        frozen(model.as_nnsight(), edge, ids, mask, TEXTS, generating=True)
    first = [AddDirection(direction(model), 1.0, sites=["blocks.0.hook_resid_pre"])]
    with pytest.raises(CliffscopeError, match="sent with its KV cache; take another site"):
        frozen(model.as_nnsight(), first, ids, mask, TEXTS, generating=True)


def test_a_recorder_writes_down_only_what_depends_on_the_value() -> None:
    recorder = Recorder([])
    value, other = torch.ones(3), torch.arange(3)
    recorder.begin(value)
    with recorder:
        new = value + (other * 2 + 1).float().sort().values
    (operation,) = recorder.operations
    assert operation[0] == "aten.add.Tensor" and recorder.number_of(new) == operation[3][0]
    assert [constant.tolist() for constant in recorder.constants.values()] == [[1, 3, 5]]


@pytest.mark.slow
def test_another_process_without_this_package_computes_the_same(tmp_path: Path) -> None:
    """What is sent to a server, loaded by a process that has torch and nnsight, and cannot import this package."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "HF_HUB_OFFLINE": "1"}

    def run(script: str, *options: str) -> str:
        command = [sys.executable, *options, str(here / script), str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("send.py")
    del environment["PYTHONPATH"]
    assert "cannot import interp" in run("receive.py", "-P")
    for name in ("trace", "generation"):
        sent, received = (torch.load(tmp_path / f"{name}.{end}.pt") for end in ("expected", "found"))
        torch.testing.assert_close(received, sent, **TOLERANCE)
    assert (tmp_path / "trace.request").stat().st_size < 100_000
