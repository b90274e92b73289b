"""sae-lens' own trainer, driven: first weights by a seed, no logging, no progress bars of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interventions.latents.library import sae_lens, seeded
from interventions.latents.options import TrainingOptions
from interventions.latents.tokens import TokenBatches


def new_sae(width: int, options: TrainingOptions) -> Any:
    """An autoencoder of sae-lens to be trained, its first weights drawn by the seed."""
    library = sae_lens()
    common = {"d_in": width, "d_sae": options.width, "normalize_activations": "expected_average_only_in"}
    with seeded(options.seed):
        if options.architecture == "standard":
            config = library.StandardTrainingSAEConfig(l1_coefficient=options.l1, **common)
            return library.StandardTrainingSAE(config)
        if options.architecture == "topk":
            return library.TopKTrainingSAE(library.TopKTrainingSAEConfig(k=options.k, **common))
        # The threshold is a running mean that begins at 0: in few steps it must move faster than by sae-lens' 0.01.
        rate = min(1.0, max(0.01, 20 / options.steps))
        config = library.BatchTopKTrainingSAEConfig(k=float(options.k), topk_threshold_lr=rate, **common)
        return library.BatchTopKTrainingSAE(config)


def fit(
    sae: Any, batches: TokenBatches, options: TrainingOptions, device: torch.device, advance: Callable[[], object]
) -> Any:
    """Trains an autoencoder in place, and gives it back.

    Raises:
        CliffscopeError: If the weights become NaN or infinite.
    """
    library = sae_lens()
    configs = import_module("sae_lens.config")
    sae.to(device)
    config = configs.SAETrainerConfig(
        total_training_samples=options.steps * options.batch,
        train_batch_size_samples=options.batch,
        lr=options.lr,
        lr_end=options.lr / 10,
        lr_warm_up_steps=options.steps // 20,
        lr_decay_steps=options.steps // 5,
        device=str(device),
        dead_feature_window=max(1, min(1000, options.steps // 5)),
        n_batches_for_norm_estimate=min(20, max(1, batches.n_tokens // options.batch)),
        logger=configs.LoggingConfig(log_to_wandb=False),
    )

    class Trainer(library.SAETrainer):  # type: ignore[name-defined]
        def step(self, batch: Tensor) -> Any:
            done = super().step(batch)
            advance()
            return done

    with _no_bars():
        Trainer(config, sae, data_provider=batches).fit()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in sae.state_dict().values()):
        raise CliffscopeError("training: the weights became NaN or infinite; lower the learning rate.")
    return sae


@contextmanager
def _no_bars() -> Iterator[None]:
    """sae-lens' trainer draws progress bars and takes no option against them."""
    modules: list[Any] = [import_module(f"sae_lens.training.{name}") for name in ("activation_scaler", "sae_trainer")]
    drawn = [module.tqdm for module in modules]
    try:
        for module, bar in zip(modules, drawn, strict=True):
            module.tqdm = partial(bar, disable=True)
        yield
    finally:
        for module, bar in zip(modules, drawn, strict=True):
            module.tqdm = bar
