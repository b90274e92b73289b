"""Where each part of a Hugging Face model lives, told by TransformerLens' architecture adapters.

An adapter maps TransformerLens' names to a model's own modules for some 140 architectures (`component_mapping`), and
its `hook_aliases` say which end of which module carries each site. Only these names are taken: the hooks go onto the
Hugging Face modules themselves, so nothing is wrapped, converted or copied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from interp.errors import CliffscopeError
from interp.models.sites import FINAL_NORM, Site


@dataclass(frozen=True)
class Place:
    """One end of one module: where a site can be read and changed.

    Attributes:
        module: The Hugging Face module.
        end: Whether the site is the module's first input or its (first) output.
        n_heads: For per-head sites the number of query heads into which the last axis splits, else `None`.
    """

    module: nn.Module
    end: Literal["in", "out"]
    n_heads: int | None = None


class Places:
    """The places of one model.

    Attributes:
        architecture: The Hugging Face class name, for instance `Qwen3ForCausalLM`.
        n_layers, n_heads, n_kv_heads, d_model, d_head, d_vocab: Sizes; heads are query heads.
        n_ctx: The longest input, in tokens.
        decoder: The model without its LM head.

    Raises:
        CliffscopeError: If the architecture is unknown or its mapping does not fit the model.
    """

    def __init__(self, hf: nn.Module) -> None:
        unwrap: Callable[[], nn.Module] | None = getattr(hf, "get_base_model", None)  # a PEFT wrapper has it
        inner = hf if unwrap is None else unwrap()
        self.architecture = _architecture(inner)
        config, self._mapping = _adapter_of(inner, self.architecture)
        blocks = self._mapping["blocks"]
        self._aliases: dict[str, str] = dict(blocks.hook_aliases)
        self._parts: dict[str, Any] = blocks.submodules
        self.blocks = list(_submodule(inner, blocks.name, self.architecture).children())
        self.final_norm = _submodule(inner, self._mapping["ln_final"].name, self.architecture)
        self.decoder: nn.Module = inner.base_model  # type: ignore[assignment]
        self.n_layers = len(self.blocks)
        self.n_heads = int(config.n_heads)
        self.n_kv_heads = int(config.n_key_value_heads or config.n_heads)
        self.d_model = int(config.d_model)
        self.d_vocab = int(config.d_vocab)
        self.n_ctx = int(config.n_ctx)
        self.d_head = self._head_width(0)

    def find(self, site: Site) -> Place:
        """Where a site is.

        Raises:
            CliffscopeError: If this architecture has no such site, or the layer no such part.
        """
        if site.name == FINAL_NORM:
            return Place(self.final_norm, "out")
        assert site.layer is not None
        block = self.blocks[site.layer]
        if site.name == "attn.hook_z":
            return Place(self._part(block, "attn.o", site), "in", self.n_heads)
        alias = self._aliases.get(site.name)
        if alias is None:
            parallel = site.name == "hook_resid_mid" and "hook_attn_out" in self._aliases
            reason = "attention and MLP read the same residual stream in parallel" if parallel else "it is not mapped"
            raise CliffscopeError(
                f"{self.architecture} has no {site.name}: {reason}. Use hook_resid_pre or hook_resid_post."
            )
        part, _, end = alias.rpartition(".")
        if end not in ("hook_in", "hook_out"):
            raise CliffscopeError(f"{self.architecture}: site {site.name} is not mapped to a module ({alias}).")
        module = self._part(block, part, site) if part else block
        return Place(module, "in" if end == "hook_in" else "out")

    def output_projection(self, layer: int) -> nn.Module:
        """The module that reads all heads' outputs of a layer; a LoRA wrapper where there is one."""
        return self.find(Site(layer, "attn.hook_z")).module

    def attention(self, layer: int) -> nn.Module:
        """The attention module of a layer."""
        return self._part(self.blocks[layer], "attn", Site(layer, "hook_attn_out"))

    def mlp(self, layer: int) -> nn.Module:
        """The MLP of a layer, or its mixture of experts, without the norms around it."""
        return self._part(self.blocks[layer], "mlp", Site(layer, "hook_mlp_out"))

    def output_weight(self, layer: int) -> torch.Tensor:
        """W_O of a layer, one matrix a query head: `[head, d_head, d_model]`, a view of the model's own weight."""
        module = without_adapter(self.output_projection(layer))
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        if not isinstance(module, nn.Linear):
            weight = weight.T  # GPT-2's Conv1D keeps [in, out]
        return weight.T.unflatten(0, (self.n_heads, self._head_width(layer)))

    def _head_width(self, layer: int) -> int:
        """As declared by the output projection: the weight's own shape differs where it is sharded or quantized."""
        module = without_adapter(self.output_projection(layer))
        width = int(getattr(module, "in_features", 0) or module.nx)  # type: ignore[arg-type]  # Conv1D says nx
        if width % self.n_heads:
            raise CliffscopeError(
                f"{self.architecture}: layer {layer} gives {width} values for {self.n_heads} query heads; "
                "heads of unequal size are not supported."
            )
        return width // self.n_heads

    def _part(self, block: nn.Module, path: str, site: Site) -> nn.Module:
        """The module of a block that TransformerLens calls `path`, for instance `attn.o`."""
        parts, module = self._parts, block
        for name in path.split("."):
            if name not in parts:
                raise CliffscopeError(f"{self.architecture}: no part {path!r} in the mapping; {site} cannot be read.")
            module = _submodule(module, parts[name].name, self.architecture)
            parts = parts[name].submodules
        return module


def _adapter_of(hf: nn.Module, architecture: str) -> tuple[Any, dict[str, Any]]:
    """TransformerLens' configuration and component mapping for a model, made without touching the model."""
    # A 4 s import that `import interp` must not pay.
    from transformer_lens.factories.architecture_adapter_factory import (
        SUPPORTED_ARCHITECTURES,
        ArchitectureAdapterFactory,
    )
    from transformer_lens.model_bridge.sources import build_bridge_config_from_hf

    if architecture not in SUPPORTED_ARCHITECTURES:
        raise CliffscopeError(
            f"Architecture {architecture} is not among the {len(SUPPORTED_ARCHITECTURES)} that TransformerLens maps; "
            "register an adapter with TransformerLens' ArchitectureAdapterFactory, or use a supported model."
        )
    try:
        config = build_bridge_config_from_hf(hf.config, architecture, architecture, torch.float32)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(config)
        mapping = adapter.component_mapping
    except (AttributeError, KeyError, TypeError, ValueError, ImportError) as error:
        raise CliffscopeError(f"Architecture {architecture} could not be mapped: {error}") from error
    if not mapping or not {"blocks", "ln_final"} <= set(mapping) or "attn" not in mapping["blocks"].submodules:
        raise CliffscopeError(f"Architecture {architecture} is not a decoder made of attention blocks.")
    return config, mapping


def _architecture(hf: nn.Module) -> str:
    """The class name of a model; `fully_shard` puts a class of its own in front of the model's."""
    return next(kind.__name__ for kind in type(hf).__mro__ if not kind.__module__.startswith("torch.distributed."))


def without_adapter(projection: nn.Module) -> nn.Module:
    """The projection inside a LoRA wrapper, or itself."""
    return getattr(projection, "base_layer", projection)


def _submodule(module: nn.Module, path: str | None, architecture: str) -> nn.Module:
    try:
        return module.get_submodule(path or "")
    except AttributeError as error:
        raise CliffscopeError(
            f"Architecture {architecture}: no module {path!r} where its mapping expects one ({error})."
        ) from error
