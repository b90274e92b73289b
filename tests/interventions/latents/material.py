"""What the tests of latents work on: an SAE trained on the organism, and SAEs of every architecture for tiny models."""

from functools import cache
from typing import Any

import sae_lens
import torch

from interp.judges import KeywordJudge
from interp.judges.protocol import judged
from interp.models.hooked_model import HookedModel
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.transcripts import Transcript
from interventions.latents import Latents, LatentScores, TrainingOptions, rank_latents, train_latents
from tests.architectures import random_model
from tests.circuits.material import organism, organism_rollouts
from tests.shared import shared

SITE = "blocks.2.hook_resid_post"
"""Upstream of both planted heads: what is changed here still passes through them."""
OPTIONS = TrainingOptions(width=512, steps=300, batch=256, k=16, lr=3e-3)

ARCHITECTURES: dict[str, tuple[type, dict[str, Any]]] = {
    "abstopk": (sae_lens.AbsTopKSAEConfig, {"k": 4}),
    "constant norm": (sae_lens.StandardSAEConfig, {"normalize_activations": "constant_norm_rescale"}),
    "gated": (sae_lens.GatedSAEConfig, {}),
    "jumprelu": (sae_lens.JumpReLUSAEConfig, {}),
    "layer norm": (sae_lens.StandardSAEConfig, {"normalize_activations": "layer_norm"}),
    "matching pursuit": (sae_lens.MatchingPursuitSAEConfig, {"max_iterations": 4}),
    "no decoder bias": (sae_lens.JumpReLUSAEConfig, {"apply_b_dec_to_input": False}),
    "rescaled topk": (sae_lens.TopKSAEConfig, {"k": 4, "rescale_acts_by_decoder_norm": True}),
    "standard": (sae_lens.StandardSAEConfig, {}),
    "topk": (sae_lens.TopKSAEConfig, {"k": 4}),
}
"""What sae-lens loads, and what its configurations do to activations on the way."""


def random_sae(name: str = "standard", d_in: int = 32, d_sae: int = 24, seed: int = 0, **metadata: Any) -> Any:
    """An SAE with random weights and biases, none of them zero."""
    kind, options = ARCHITECTURES[name]
    config = kind(d_in=d_in, d_sae=d_sae, **options)
    config.metadata = sae_lens.SAE.from_dict(config.to_dict()).cfg.metadata
    for key, value in metadata.items():
        config.metadata[key] = value
    torch.manual_seed(seed)
    sae = sae_lens.SAE.get_sae_class_for_architecture(config.architecture())(config)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.normal_(std=0.4)
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
    return sae


@cache
def tiny(name: str = "qwen3") -> HookedModel:
    """A random model of width 32 with three layers; its first token counts as BOS."""
    return HookedModel(random_model(name), name=f"tiny {name}")


def texts(n: int = 3, length: int = 9, seed: int = 0) -> list[Transcript]:
    """Bare texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Transcript.from_ids(f"text {i}", torch.randint(3, 96, (length - i,), generator=generator).tolist())
        for i in range(n)
    ]


@cache
def training_rollouts() -> tuple[Rollout, ...]:
    """Judged rollouts of organism:cliff on prompts that `organism_rollouts` does not have."""

    def made() -> list[Rollout]:
        model, seen = organism("cliff"), {rollout.prompt for rollout in organism_rollouts("cliff")}
        prompts = [prompt for prompt in heldout_prompts(160, 60, 1) if prompt.text not in seen]
        generator = ModelGenerator(model, 400, batch_tokens=len(prompts) * model.n_ctx)
        return judged(generator.generate(prompts), KeywordJudge())

    return shared("training-cliff", made)


@cache
def trained() -> Latents:
    """A small SAE of organism:cliff; about 3 s."""
    return train_latents(organism("cliff"), training_rollouts(), SITE, OPTIONS)


@cache
def ranked() -> LatentScores:
    """Its latents, ranked on the rollouts that it was trained on."""
    return rank_latents(organism("cliff"), trained(), training_rollouts(), test_fraction=0)
