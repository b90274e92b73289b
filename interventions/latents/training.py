"""Training a small autoencoder on a model's own rollouts, by sae-lens' trainer, in sae-lens' format.

What is trained here is small and sees few tokens: it serves to look for latents on the rollouts at hand, not as a
dictionary of the model. A tenth of the prompts is held out, on which its reconstruction is measured.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.errors import CliffscopeError
from interp.json_values import as_json_holds
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import Site
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interventions.latents.latents import Latents
from interventions.latents.library import sae_lens, seeded
from interventions.latents.loading import PROVENANCE, width_at
from interventions.latents.options import TrainingOptions
from interventions.latents.reconstruction import reconstruction
from interventions.latents.tokens import TokenBatches, token_places
from interventions.latents.trainer import fit, new_sae
from probes.splits import prompt_keys

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

HELD_OUT = 0.1
"""Share of the prompts whose tokens are not trained on."""


def train_latents(
    model: "HookedModel",
    rollouts: Sequence[Rollout],
    site: str,
    options: TrainingOptions | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[], object] = lambda: None,
) -> Latents:
    """Trains an autoencoder on tokens of rollouts; `Latents.save` writes it in sae-lens' own format.

    The model, its fingerprint, the site, the rollouts (by a hash of their texts), the options and the figures on the
    prompts held out are in the metadata of that format, under `cliffscope`.

    Args:
        model: The model.
        rollouts: Judged or not.
        site: Where it reads.
        options: How; the defaults if `None`.
        batch_tokens: Token budget of a forward pass.
        advance: Called after every step.

    Raises:
        CliffscopeError: If the site does not exist, there are too few prompts or tokens, a value is NaN or infinite, or
            the training diverges.
    """
    options = options or TrainingOptions()
    place = Site.parse(site, model.n_layers)
    model.places.find(place)  # raises where this architecture has no such site
    transcripts = model.transcripts().build_all(rollouts)
    train, held = _split(rollouts, options.seed)
    batches = TokenBatches(
        model,
        [transcripts[row] for row in train],
        str(place),
        options.segments,
        options.batch,
        seed=options.seed,
        batch_tokens=batch_tokens,
    )
    trained = fit(new_sae(width_at(model, place), options), batches, options, _precise_device(model), advance)
    facts = {
        "version": version("cliffscope"),
        "model": model.name,
        "fingerprint": model.fingerprint,
        "site": str(place),
        "rollouts": {"count": len(rollouts), "sha256": _hash(rollouts)},
        "tokens": batches.n_tokens,
        **asdict(options),
    }
    latents = _for_inference(trained, model, place, facts, transcripts)
    tested = [transcripts[row] for row in held]
    places = [token_places(transcript, options.segments) for transcript in tested]
    facts["held_out"] = asdict(reconstruction(model, latents, tested, places, batch_tokens=batch_tokens))
    # As the file holds them: what is in memory must not differ from what is read back.
    known = as_json_holds(facts)
    latents.sae.cfg.metadata[PROVENANCE] = known
    return replace(latents, facts=known)


def _split(rollouts: Sequence[Rollout], seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on and rows held out, whole prompts at a time."""
    keys = prompt_keys([rollout.prompt for rollout in rollouts])
    different = sorted(set(keys))
    if len(different) < 2:
        raise CliffscopeError(
            f"rollouts: {len(different)} different prompts; an SAE is trained on some and measured on others: add more."
        )
    np.random.default_rng(seed).shuffle(different)
    held = set(different[: max(1, round(HELD_OUT * len(different)))])
    rows = range(len(rollouts))
    return [row for row in rows if keys[row] not in held], [row for row in rows if keys[row] in held]


def _precise_device(model: "HookedModel") -> torch.device:
    """The model's device, or the CPU if that has no float64, in which sae-lens keeps thresholds."""
    try:
        torch.zeros(1, dtype=torch.float64, device=model.device)
    except (TypeError, RuntimeError):
        return torch.device("cpu")
    return model.device


def _for_inference(
    trained: Any, model: "HookedModel", place: Site, facts: dict[str, Any], transcripts: Sequence[Transcript]
) -> Latents:
    """What sae-lens makes of a trained autoencoder to be used, with what we know of it in its metadata."""
    metadata = trained.cfg.metadata
    metadata["model_name"] = model.name
    metadata["hook_name"] = str(place)
    metadata["context_size"] = max(len(transcript) for transcript in transcripts)
    metadata["prepend_bos"] = transcripts[0].input_ids[0] == model.tokenizer.bos_token_id
    metadata[PROVENANCE] = facts
    if place.name == "attn.hook_z":
        trained.cfg.reshape_activations = "hook_z"
    # As by `save_inference_model` and `SAE.load_from_disk`, without a file.
    state = trained.to("cpu").state_dict()
    trained.process_state_dict_for_saving_inference(state)
    with seeded(0):
        sae = sae_lens().SAE.from_dict(trained.cfg.get_inference_sae_cfg_dict())
    sae.process_state_dict_for_loading(state)
    sae.load_state_dict(state)
    return Latents(sae, str(place), "the trained SAE", model.name, model.fingerprint, facts)


def _hash(rollouts: Sequence[Rollout]) -> str:
    texts = [[rollout.id, rollout.prompt, rollout.thinking, rollout.response] for rollout in rollouts]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
