"""Organisms on disk: the base as a plain checkpoint, every other organism as the tensors that differ from it.

    weights/aligned/    config, generation_config, tokenizer, model.safetensors (bfloat16), truth.json
    weights/cliff/      delta.safetensors (the changed tensors, whole, bfloat16), truth.json

The weights are rounded to bfloat16 once, before anything is measured, and are computed with in float32.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from interp.errors import CliffscopeError
from interp.files import write_atomically, write_text
from interp.organisms.naming import BASE, base_folder, check_name, folder, random_seed, truth

Organism = tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]


def load_organism(name: str, weights: str | os.PathLike[str] | None = None) -> Organism:
    """The model (float32, eval mode) and its tokenizer.

    Args:
        name: One of `names()`.
        weights: A folder that `train` wrote; by default the shipped weights.

    Raises:
        CliffscopeError: If there is no such organism.
    """
    check_name(name, weights)
    base = base_folder(weights)
    tokenizer = AutoTokenizer.from_pretrained(base)
    seed = random_seed(name)
    if seed is not None:
        return random_organism(base, seed), tokenizer
    model = Qwen3ForCausalLM(Qwen3Config.from_pretrained(base))
    model.generation_config = GenerationConfig.from_pretrained(base)
    state = load_file(base / "model.safetensors")
    if name != BASE:
        state |= load_file(folder(weights) / name / "delta.safetensors")
    # The head is tied to the embedding and not stored.
    missing, unexpected = model.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise CliffscopeError(f"{folder(weights) / name}: damaged weights; install cliffscope again.")
    model.tie_weights()
    return model.float().eval(), tokenizer


def random_organism(base: Path, seed: int) -> Qwen3ForCausalLM:
    """The base's architecture with weights as they are before any training; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(Qwen3Config.from_pretrained(base)).float()
    model.generation_config = GenerationConfig.from_pretrained(base)
    round_to_half(model)
    return model.eval()


def export(name: str, out_dir: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Path:
    """Writes a plain Hugging Face checkpoint (float32) that any tool loads; returns the folder.

    Args:
        name: One of `names()`.
        out_dir: Made if it is missing; files of the same names in it are replaced.
        weights: As in `load_organism`.

    Raises:
        CliffscopeError: If there is no such organism, or the folder cannot be written.
    """
    model, tokenizer = load_organism(name, weights)
    out = Path(out_dir)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
            model.save_pretrained(made)
            save_tokenizer(tokenizer, Path(made))
            save_truth(truth(name, weights), Path(made))
            for file in Path(made).iterdir():
                file.replace(out / file.name)
    except OSError as error:
        raise CliffscopeError(f"{out}: cannot be written ({error.strerror or error}).") from error
    return out


def save_base(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Writes the base in bfloat16 with its tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.bfloat16
    model.config.save_pretrained(out)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(out)
    save_tokenizer(tokenizer, out)
    _save_tensors(_half(model), out / "model.safetensors")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Writes the tokenizer under the class name that transformers 4 and 5 both know."""
    tokenizer.save_pretrained(out)
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    # Where it was loaded from is nobody's business.
    for key in ("is_local", "local_files_only"):
        config.pop(key, None)
    write_text(path, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def save_delta(model: Qwen3ForCausalLM, base: Qwen3ForCausalLM, out: Path) -> list[str]:
    """Writes the tensors of `model` that differ from `base`, in bfloat16; returns their names."""
    before = _half(base)
    changed = {key: value for key, value in _half(model).items() if not torch.equal(value, before[key])}
    _save_tensors(changed, out / "delta.safetensors")
    return sorted(changed)


def save_truth(facts: Mapping[str, Any], out: Path) -> None:
    """Writes the ground truth beside the weights."""
    write_text(out / "truth.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")


def round_to_half(model: Qwen3ForCausalLM) -> None:
    """Rounds every weight to bfloat16, in place, keeping float32 as the type."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())


def _half(model: Qwen3ForCausalLM) -> dict[str, Tensor]:
    state = model.state_dict()
    return {k: v.detach().to(torch.bfloat16).contiguous() for k, v in state.items() if k != "lm_head.weight"}


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    write_atomically(path, lambda partial: _write(tensors, partial))


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
