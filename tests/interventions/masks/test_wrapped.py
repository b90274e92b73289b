"""Masks on models as training jobs wrap them: LoRA, compiled code, several processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from interp.models.hooked_model import HookedModel
from interventions.masks.head_mask import HeadMask
from interventions.masks.unwrapping import unwrap
from tests.architectures import random_model
from tests.interventions.masks.material import (
    TOLERANCE,
    adapted,
    logits,
    model_and_mask,
    n_hooks,
    output_projections,
    random_scale,
    with_scaled_weights,
)

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[3]),
    "PYTHONWARNINGS": "ignore",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""Of processes that the tests start."""

# ---- LoRA ----


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
@pytest.mark.parametrize("renormalize", [False, True])
def test_under_lora_base_and_adapter_read_masked_outputs(name: str, renormalize: bool) -> None:
    """The same as masking the model into which the adapter was merged."""
    model = adapted(name)
    mask = HeadMask(random_scale(), renormalize)
    with mask.attached(model):
        found = logits(model)
    assert n_hooks(model) == 0
    with model.disable_adapter(), mask.attached(model):
        without_adapter = logits(model)
    with mask.attached(random_model(name)) as attached:
        assert len(attached.calls) == len(mask.layers)
    merged = model.merge_and_unload()
    with mask.attached(merged):
        torch.testing.assert_close(logits(merged), found, atol=1e-4, rtol=1e-4)
    base = random_model(name)
    with mask.attached(base):
        torch.testing.assert_close(logits(base), without_adapter, **TOLERANCE)
    assert not torch.allclose(found, without_adapter, atol=1e-3)


def test_a_mask_made_before_lora_is_proved_on_the_new_adapter() -> None:
    """A fresh adapter adds nothing: the effect is reproduced to the last."""
    _, mask = model_and_mask("qwen3")
    model = peft.get_peft_model(random_model("qwen3"), peft.LoraConfig(target_modules=["q_proj", "o_proj"]))
    assert mask.check(model).ok


# ---- compiled code ----


@pytest.mark.slow
def test_compiled_code_obeys_a_mask_put_on_and_taken_off_later(tmp_path: Path) -> None:
    """In a process of its own: the run-time checks of signatures cannot be compiled."""
    script = Path(__file__).with_name("compiled_models.py")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == ["whole", "in_place", "by_block", "renormalized", "training", "machine_code"]


# ---- wrappers ----


def test_unwrapping_finds_the_model_in_all_of_them() -> None:
    model = random_model("qwen3")
    for wrapped in (
        model,
        HookedModel(model),
        torch.compile(model),
        nn.DataParallel(model),
        nn.DataParallel(torch.compile(model)),
    ):
        assert unwrap(wrapped) is model
    lora = adapted()
    assert unwrap(torch.compile(lora)) is lora


def test_a_wrapped_model_is_masked_as_it_is() -> None:
    _, mask = model_and_mask("qwen3")
    model = random_model("qwen3")
    wrapped = nn.DataParallel(model)
    with mask.attached(wrapped):
        torch.testing.assert_close(logits(wrapped), logits(with_scaled(mask)), **TOLERANCE)
    assert mask.check(wrapped).ok
    assert n_hooks(model) == 0 and len(output_projections(model)) == 3


def with_scaled(mask: HeadMask) -> Any:
    return with_scaled_weights(random_model("qwen3"), mask.scale)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script in two processes on this machine's CPU; their output together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    return subprocess.run(
        [*command, str(free_port()), str(script), *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_in_two_processes_every_kind_of_sharding_is_masked(tmp_path: Path) -> None:
    done = torchrun(Path(__file__).with_name("two_processes.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    for kind in ("ddp", "fsdp1", "fsdp2", "fsdp2 lora", "fsdp2 compiled"):
        assert done.stdout.count(f"{kind}: masked, live, removed") == 2, done.stdout
