"""The recipe in RECIPE.md does what an attached mask does, where only torch and safetensors are installed."""

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from safetensors.torch import save_file

import interventions.masks
from interventions.masks.head_mask import HeadMask
from tests.architectures import random_model
from tests.interventions.masks.material import logits, n_hooks, output_projections, random_scale

RECIPE = Path(interventions.masks.__file__).parent / "RECIPE.md"

PROGRAM = """
import sys

sys.path.append(ENVIRONMENT)
for name in ("interventions", "interp", "transformers", "transformer_lens", "numpy"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported here")

RECIPE_CODE

import torch
from safetensors.torch import load_file

weights = load_file("weights.safetensors")

class Attention(torch.nn.Module):
    def __init__(self, weight, bias):
        super().__init__()
        self.o_proj = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        self.o_proj.weight.data = weight
        if bias is not None:
            self.o_proj.bias.data = bias

class Holder(torch.nn.Module):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

n = sum(name.endswith("weight") for name in weights)
layers = [Holder(self_attn=Attention(weights[f"{i}.weight"], weights.get(f"{i}.bias"))) for i in range(n)]
model = Holder(model=Holder(layers=torch.nn.ModuleList(layers)))
handles = apply_head_mask("mask.safetensors", model)
with torch.no_grad():
    written = {str(i): layer.self_attn.o_proj(weights["z"]) for i, layer in enumerate(model.model.layers)}
for handle in handles:
    handle.remove()
assert not any(module._forward_pre_hooks for module in model.modules())
torch.save(written, "written.pt")  # safetensors cannot write without numpy
"""


def bare_environment(folder: Path) -> Path:
    """A folder of installed packages that holds torch, safetensors and what they require, and nothing else."""
    folder.mkdir()
    waiting, seen = ["torch", "safetensors"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        package = distribution(name)
        requirements = [Requirement(text) for text in package.requires or ()]
        waiting += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(Path(str(package.locate_file(top))))
    return folder


def recipe_code() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return code


def recipe() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(recipe_code(), names)
    return names


@pytest.mark.parametrize("renormalize", [False, True])
def test_it_does_the_same_without_this_project(renormalize: bool, tmp_path: Path) -> None:
    model = random_model("qwen3")
    projections = output_projections(model)
    projections[0].bias = torch.nn.Parameter(torch.randn(32))
    z = torch.randn(2, 5, 64)
    weights = {f"{i}.weight": projection.weight.detach() for i, projection in enumerate(projections)}
    save_file({**weights, "0.bias": projections[0].bias.detach(), "z": z}, tmp_path / "weights.safetensors")
    mask = HeadMask(random_scale(), renormalize)
    mask.save(tmp_path / "mask.safetensors")
    with torch.no_grad():
        before = [projection(z) for projection in projections]
        with mask.attached(model):
            expected = [projection(z) for projection in projections]
    environment = repr(str(bare_environment(tmp_path / "packages")))
    program = PROGRAM.replace("ENVIRONMENT", environment).replace("RECIPE_CODE", recipe_code())
    # Isolated, without this environment's packages and what its .pth files add.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = torch.load(tmp_path / "written.pt", weights_only=True)
    for layer, value in enumerate(expected):
        torch.testing.assert_close(written[str(layer)], value, atol=1e-5, rtol=1e-5)
        assert torch.allclose(value, before[layer], atol=1e-4) == (layer not in mask.layers)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "mistral", "phi3", "olmo2"])
def test_it_masks_the_models_that_it_names(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    for mask in (HeadMask(random_scale()), HeadMask(random_scale(1), renormalize=True)):
        mask.save(tmp_path / "mask.safetensors")
        with mask.attached(model):
            expected = logits(model)
        handles = recipe()["apply_head_mask"](tmp_path / "mask.safetensors", model)
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
        for handle in handles:
            handle.remove()
        assert n_hooks(model) == 0


def test_it_refuses_what_is_no_mask_or_not_for_the_model(tmp_path: Path) -> None:
    apply = recipe()["apply_head_mask"]
    save_file({"scale": torch.zeros(3, 4)}, tmp_path / "other.safetensors")
    HeadMask(torch.zeros(2, 4)).save(tmp_path / "mask.safetensors")
    for name, message in (("other", "not a head mask of version 1"), ("mask", "for 2 layers of 4 heads, not for")):
        with pytest.raises(ValueError, match=message):
            apply(tmp_path / f"{name}.safetensors", random_model("qwen3"))
