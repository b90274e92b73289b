"""Texts with segments, models of more architectures, and one intervention of each kind."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Intervention
from interp.models.sites import BLOCK_SITES, FINAL_NORM, Site
from interp.transcripts import Transcript
from interventions.directions.direction import Direction
from interventions.head_ablation import MeanHeads, ResampleHeads, ScaleHeads
from interventions.head_values import HeadValues
from interventions.masks.head_mask import HeadMask
from interventions.steering.along_direction import AblateDirection, AddDirection, ClampDirection
from interventions.steering.transport import GaussianMap
from interventions.steering.transport_activations import TransportActivations
from tests.architectures import _COMMON, _GROUPED, CONFIGS, model_of

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}

_SMALL: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "bos_token_id": 1, "eos_token_id": 2}

FURTHER = {
    "bloom": transformers.BloomConfig(**_SMALL, n_layer=3, n_head=4),
    "cohere": transformers.CohereConfig(**_GROUPED),
    "cohere2": transformers.Cohere2Config(**_GROUPED, sliding_window=8),
    "falcon": transformers.FalconConfig(**_SMALL, num_hidden_layers=3, num_attention_heads=4),
    "gemma2": transformers.Gemma2Config(**_GROUPED, head_dim=16, sliding_window=8),
    "glm4": transformers.Glm4Config(**_GROUPED, head_dim=8),
    "gpt_oss": transformers.GptOssConfig(
        **_GROUPED, head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "granite": transformers.GraniteConfig(**_GROUPED),
    "hunyuan": transformers.HunYuanDenseV1Config(**_GROUPED, head_dim=16),
    "olmo3": transformers.Olmo3Config(**_GROUPED, sliding_window=8),
    "phi": transformers.PhiConfig(**_COMMON),
    "smollm3": transformers.SmolLM3Config(**_GROUPED),
}
"""Architectures that only these tests know."""

ARCHITECTURES = sorted({*CONFIGS, *FURTHER})

NOT_THE_SAME = {
    "cohere": "TransformerLens 3.9 rotates queries and keys by halves; Cohere by neighbouring pairs",
    "cohere2": "TransformerLens 3.9 rotates queries and keys by halves; Cohere by neighbouring pairs",
    "hunyuan": "TransformerLens 3.9 normalizes queries and keys before their rotation, HunYuan after it",
}
"""What TransformerLens computes differently, and why: a bridge is refused. nnsight runs all."""


@cache
def hooked(name: str) -> HookedModel:
    return HookedModel(model_of({**CONFIGS, **FURTHER}[name]), name=name)


def sites_of(model: HookedModel, layers: Sequence[int] = (0, 1, 2)) -> list[str]:
    """The sites that an architecture has."""
    found = []
    for layer in layers:
        for name in BLOCK_SITES:
            try:
                model.places.find(Site(layer, name))
            except CliffscopeError:
                continue
            found.append(f"blocks.{layer}.{name}")
    return [*found, FINAL_NORM]


def text(id: str, thinking: int = 5, seed: int = 0) -> Transcript:
    """Random tokens with all segments; two close tokens, then an answer of three."""
    labels = (
        "template",
        *["instruction"] * 3,
        "template",
        *["thinking"] * thinking,
        "close",
        "close",
        *["response"] * 3,
    )
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 96, (len(labels),), generator=generator).tolist()
    return Transcript(id, tuple(ids), ("",) * len(labels), labels, 5, "closed")


TEXTS = [text("long", 8, 1), text("short", 4, 2)]
REFERENCES = [text(f"reference {number}", 4 + number, 10 + number) for number in range(3)]


def batch(transcripts: Sequence[Transcript], side: str = "right") -> tuple[Tensor, Tensor]:
    """Padded ids and their mask."""
    width = max(map(len, transcripts))
    ids, mask = torch.zeros(2, len(transcripts), width, dtype=torch.long)
    for row, transcript in enumerate(transcripts):
        n = len(transcript)
        span = slice(0, n) if side == "right" else slice(width - n, width)
        ids[row, span] = torch.tensor(transcript.input_ids)
        mask[row, span] = 1
    return ids, mask


def direction(model: HookedModel, site: str = "blocks.1.hook_resid_post", seed: int = 0) -> Direction:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    means = {"positive": torch.tensor([1.5]), "negative": torch.tensor([-0.5])}
    return Direction.of(vector, scale=3.0, site=site, **means)


def _transport(model: HookedModel) -> GaussianMap:
    generator = torch.Generator().manual_seed(3)
    source, target = torch.randn(2, 60, model.d_model, generator=generator)
    return GaussianMap.fit(source, 2 * target + 1, components=4, site="blocks.1.hook_resid_post")


def _mask(model: HookedModel) -> HeadMask:
    scale = torch.ones(model.n_layers, model.n_heads)
    scale[1, 2], scale[2, 0] = 0.0, 0.5
    return HeadMask(scale)


@cache
def _values(name: str) -> HeadValues:
    return HeadValues.of(hooked(name), REFERENCES, [1])


KINDS: dict[str, Callable[[HookedModel], Sequence[Intervention]]] = {
    "scaled heads": lambda m: [ScaleHeads([(1, 2), (2, 0)], gamma=-0.5)],
    "scaled heads, edge": lambda m: [ScaleHeads([(1, 2)], "edge")],
    "scaled heads, renormalized": lambda m: [ScaleHeads([(1, 2)], "from-edge", renormalize=True)],
    "mean heads": lambda m: [MeanHeads([(1, 1), (1, 2)], values=_values(m.name))],
    "mean heads, edge": lambda m: [MeanHeads([(1, 1)], "edge", values=_values(m.name))],
    "resampled heads": lambda m: [ResampleHeads([(1, 0)], "thinking", values=_values(m.name))],
    "mask": lambda m: [_mask(m)],
    "added": lambda m: [AddDirection(direction(m), 1.0)],
    "added, edge": lambda m: [AddDirection(direction(m), 1.0, scope="edge")],
    "added by norm, part of the thinking": lambda m: [
        AddDirection(direction(m), 0.5, units="norm", scope="thinking", window=(0.5, 1.0))
    ],
    "ablated": lambda m: [AblateDirection(direction(m))],
    "ablated, edge": lambda m: [AblateDirection(direction(m), scope="edge")],
    "clamped": lambda m: [ClampDirection(direction(m), "positive")],
    "clamped, edge": lambda m: [ClampDirection(direction(m), 2.0, scope="edge")],
    "transport": lambda m: [TransportActivations(_transport(m))],
    "transport, edge": lambda m: [TransportActivations(_transport(m), scope="edge")],
    "several at one site": lambda m: [
        AddDirection(direction(m), 1.0), ClampDirection(direction(m, seed=1), 2.0), ScaleHeads([(1, 2)]), _mask(m)
    ],
    "at every site": lambda m: [
        AddDirection(direction(m, seed=number), 0.3, sites=[site])
        for number, site in enumerate(reversed(sites_of(m, [1]))) if changeable(m, site)
    ],
}  # fmt: skip
"""One of each, by what it is; each makes a difference to every model's logits."""


def changeable(model: HookedModel, site: str) -> bool:
    """Granite scales what attention adds, so that nothing can be put in the middle of a block."""
    return not site.endswith("hook_z") and not (model.name == "granite" and site.endswith("hook_resid_mid"))
