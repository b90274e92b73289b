"""A model in TransformerLens: a bridge over the same weights, and interventions as its hooks."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from interp.errors import CliffscopeError
from interp.models.hooks import Change, Intervention, Seen, changed, in_order, planned
from interp.models.interop.pass_tokens import DecoderCall, PassTokens
from interp.models.interop.twin import twin
from interp.models.interop.versions import require
from interp.models.sites import Site
from interp.models.token_context import TokenContext

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

    from interp.models.hooked_model import HookedModel
    from interp.transcripts import Transcript

ROUNDING = 1e-3
LOW_PRECISION_ROUNDING = 0.1
"""By how much of their spread logits may differ: far more than rounding, far less than another computation."""

TransformerLensHook = tuple[str, Callable[..., Tensor | None]]
"""The name of a hook point and what is called with its value: an entry of `fwd_hooks`."""


@dataclass
class BridgePass:
    """The pass that a model's bridges are in.

    Attributes:
        call: What the decoder was called with; `None` between passes.
    """

    call: DecoderCall | None = field(default=None)

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook of the bridge's decoder."""
        self.call = DecoderCall.of(args, kwargs)

    def end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A forward hook of it, called after an error too."""
        self.call = None


def as_transformer_lens(model: "HookedModel", current: BridgePass, check: bool = True) -> "TransformerBridge":
    """A TransformerBridge whose parameters are the model's own; see `HookedModel.as_transformer_lens`.

    Args:
        model: Not changed.
        current: Is told of the bridge's passes.
        check: Compare the bridge's numbers with the model's.

    Raises:
        CliffscopeError: If the model cannot be bridged without changing or copying it, or the numbers differ.
    """
    _refuse_unreadable(model)
    require("transformer_lens")
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    from interp.models.interop.shared_bridge import SharedBridge, read_fused_projections

    skeleton = twin(model, "TransformerLens").eval()
    expected = _logits(model, skeleton) if check else None
    with torch.random.fork_rng(devices=[]):  # layers that are thrown away again are initialized on the way
        bridge = build_bridge_from_module(
            skeleton, model.places.architecture, hf_config=skeleton.config, model_name=model.name
        )
    bridge.__class__ = SharedBridge
    copies = read_fused_projections(bridge)
    bridge.eval()
    if copies:
        warnings.warn(
            f"TransformerLens keeps copies of the fused projections of {len(copies)} layers ({copies[0]} first): they "
            "do not follow later changes of the weights.",
            stacklevel=3,
        )
    _give_tokenizer(bridge, model.tokenizer)
    if expected is not None:
        _check_numbers(model, expected, _logits(model, skeleton))
    skeleton.base_model.register_forward_pre_hook(current.begin, with_kwargs=True)
    skeleton.base_model.register_forward_hook(current.end, always_call=True)
    return bridge


def transformer_lens_hooks(
    model: "HookedModel",
    current: BridgePass,
    interventions: Sequence[Intervention],
    transcripts: Sequence["Transcript"] = (),
) -> list[TransformerLensHook]:
    """Interventions as hooks of a model's bridges; see `HookedModel.as_transformer_lens_hooks`."""
    places = model.places
    tokens = _Tokens(current, PassTokens(model, transcripts))

    def see(intervention: Intervention, change: Change, site: Site) -> Callable[[Tensor], Tensor]:
        who = type(intervention).__name__
        return lambda value: changed(change, value, tokens.now(), who, str(site))

    steps = in_order(places, planned(model, interventions, see))
    return [(str(site), partial(_at_hook_point, step, places.find(site).n_heads)) for site, step in steps]


class _Tokens:
    """The tokens of the pass that is running."""

    def __init__(self, current: BridgePass, rows: PassTokens) -> None:
        self._current = current
        self._rows = rows
        self._call: DecoderCall | None = None
        self._tokens: TokenContext | None = None

    def now(self) -> TokenContext:
        call = self._current.call
        if call is None:
            raise CliffscopeError(
                "these hooks belong to bridges that HookedModel.as_transformer_lens() makes of the same model; they "
                "ran on another one."
            )
        if call is not self._call or self._tokens is None:
            self._call, self._tokens = call, self._rows.of(call)
        return self._tokens


def _at_hook_point(see: Seen, n_heads: int | None, value: Tensor, hook: Any = None) -> Tensor | None:
    """A step as TransformerLens calls it; its `hook_z` may come with heads apart or side by side."""
    if n_heads is None or value.ndim == 4:
        return see(value)
    new = see(value.unflatten(-1, (n_heads, -1)))
    return None if new is None else new.flatten(-2)


def _refuse_unreadable(model: "HookedModel") -> None:
    hf = model.hf
    adapters = [name for name, module in hf.named_modules() if hasattr(module, "base_layer")]
    if hasattr(hf, "get_base_model") or adapters:
        raise CliffscopeError(
            f"{model.name} has adapters (PEFT), which TransformerLens would read past: merge them first "
            "(merge_and_unload), or use as_nnsight."
        )
    if getattr(hf, "is_quantized", False) or getattr(hf, "hf_quantizer", None) is not None:
        raise CliffscopeError(
            f"{model.name} is quantized, and TransformerLens reads weights in ways that packed ones do not allow: load "
            "it in bfloat16, or use as_nnsight."
        )
    places = {parameter.device.type for parameter in hf.parameters()}
    if "meta" in places:
        raise CliffscopeError(f"{model.name} holds no weights (they are on the meta device): load them first.")


@torch.no_grad()
def _logits(model: "HookedModel", hf: Any) -> Tensor:
    """Logits of a few tokens from all over the vocabulary."""
    ids = torch.linspace(0, model.d_vocab - 1, min(16, model.n_ctx)).long()[None]
    logits: Tensor = hf(input_ids=ids.to(model.device), use_cache=False).logits
    return logits.float()


def _check_numbers(model: "HookedModel", expected: Tensor, found: Tensor) -> None:
    off = float((found - expected).square().mean().sqrt() / expected.std())
    if not off < (ROUNDING if model.dtype == torch.float32 else LOW_PRECISION_ROUNDING):
        raise CliffscopeError(
            f"TransformerLens computes {model.places.architecture} differently: its logits are off by {off:.2g} of "
            "their spread. Use as_nnsight, or as_transformer_lens(check=False) to have the bridge all the same."
        )


def _give_tokenizer(bridge: Any, tokenizer: Any) -> None:
    """Makes text the same tokens as everywhere else: no BOS that the tokenizer does not put there itself."""
    if tokenizer is None:
        return
    from transformer_lens.model_bridge.sources import detect_tokenizer_bos_eos

    mine = copy.deepcopy(tokenizer)
    if mine.pad_token is None:
        mine.pad_token = mine.eos_token
    prepends, appends = detect_tokenizer_bos_eos(mine)
    bridge.cfg.tokenizer_prepends_bos, bridge.cfg.tokenizer_appends_eos = prepends, appends
    bridge.cfg.default_prepend_bos = prepends
    bridge.tokenizer = mine
