"""What a guard reads at one layer: how much closer a state lies to harmful prompts than to benign ones.

*centroids*: cos(h, μ₊) − cos(h, μ₋), where μ₊ and μ₋ are the means of the states of harmful and of benign prompts; the
guard's score is the mean over layers (arXiv 2507.11878, section on the Latent Guard). The published means are those of
refused harmful and of accepted harmless prompts; here the labels of the prompts decide, so that a model that answers
everything can be guarded too.

*probe*: the logit of a logistic regression at one layer, chosen by the AUROC on prompts of the fitting split that were
held out from it, among equals by the loss on them; then fitted again on the whole fitting split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.statistics import auroc
from probes.inputs import MIN_ROLLOUTS
from probes.linear import LinearProbe
from probes.splits import Indices, split_by_prompt

Method = Literal["centroids", "probe"]
METHODS: tuple[Method, ...] = ("centroids", "probe")


@dataclass(frozen=True, eq=False)
class Centroids:
    """The means of two classes at several layers.

    Attributes:
        layers: Indices from 0, ascending.
        harmful, benign: float32 on the CPU, one row a layer.

    Raises:
        CliffscopeError: If the shapes differ, or a mean is zero and so has no angle to anything.
    """

    layers: tuple[int, ...]
    harmful: Float[Tensor, "layer d_model"]
    benign: Float[Tensor, "layer d_model"]

    def __post_init__(self) -> None:
        for name in ("harmful", "benign"):
            object.__setattr__(self, name, getattr(self, name).detach().to(device="cpu", dtype=torch.float32))
        if self.harmful.ndim != 2 or self.harmful.shape != self.benign.shape or len(self.layers) != len(self.harmful):
            raise CliffscopeError(
                f"guard: expected two means [{len(self.layers)}, d_model], found {list(self.harmful.shape)} and "
                f"{list(self.benign.shape)}."
            )
        if not bool((torch.cat([self.harmful, self.benign]).norm(dim=-1) > 0).all()):
            raise CliffscopeError("guard: the mean of a class is zero at some layer; leave that layer out.")

    @classmethod
    def fit(cls, layer: int, h: Float[Tensor, "prompt d_model"], labels: Indices) -> "Centroids":
        """The means at one layer."""
        positive = torch.as_tensor(labels == 1)
        values = h.double()
        return cls((layer,), values[positive].mean(0, keepdim=True), values[~positive].mean(0, keepdim=True))

    @classmethod
    def join(cls, parts: Sequence["Centroids"]) -> "Centroids":
        """The means of several layers in one."""
        layers = tuple(layer for part in parts for layer in part.layers)
        return cls(layers, torch.cat([part.harmful for part in parts]), torch.cat([part.benign for part in parts]))

    def at(self, layer: int, h: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """cos(h, μ₊) − cos(h, μ₋) at one of the layers, in float32 on `h`'s device; NaN for a state of NaN.

        Raises:
            CliffscopeError: If `h` has another width.
        """
        if h.shape[-1] != self.harmful.shape[-1]:
            raise CliffscopeError(
                f"guard: made for activations of width {self.harmful.shape[-1]}, found {h.shape[-1]}; is it another "
                "model's?"
            )
        place = self.layers.index(layer)
        means = torch.stack([self.harmful[place], self.benign[place]]).to(h.device)
        cosine = torch.nn.functional.cosine_similarity(h.float()[..., None, :], means, dim=-1)
        return cosine[..., 0] - cosine[..., 1]


@dataclass(frozen=True, eq=False)
class LayerFit:
    """What was fitted at one layer.

    Attributes:
        layer: Its index.
        reader: Centroids of this layer, or a probe.
        scores: Of all prompts, fitted on or not.
        auroc, loss: Of a probe of part of the fitting split, on the rest of it: by these the layer is chosen.
    """

    layer: int
    reader: Centroids | LinearProbe
    scores: Float[np.ndarray, " prompt"]
    auroc: float = float("nan")
    loss: float = float("nan")


def fit_layer(
    method: str,
    layer: int,
    h: Float[Tensor, "prompt d_model"],
    labels: Indices,
    texts: Sequence[str],
    rows: Indices,
    seed: int,
) -> LayerFit:
    """Fits one layer on some of the prompts and scores them all.

    Args:
        method: `centroids` or `probe`.
        layer: Its index.
        h: The states of all prompts.
        labels: `[prompt]`, 1 for harmful.
        texts: `[prompt]`.
        rows: The prompts to fit on.
        seed: Of the probe's splits.
    """
    chosen, mine = h[torch.as_tensor(rows)], labels[rows]
    if method == "centroids":
        centroids = Centroids.fit(layer, chosen, mine)
        return LayerFit(layer, centroids, centroids.at(layer, h).numpy().astype(np.float64))
    words = [texts[row] for row in rows]
    split = split_by_prompt(mine, words, seed=seed)
    if len(split.train) < MIN_ROLLOUTS:
        raise CliffscopeError(
            f"guard: {len(rows)} prompts to fit on are too few to choose a layer; add prompts, or use "
            "the method centroids."
        )
    part = LinearProbe.fit(
        chosen[torch.as_tensor(split.train)],
        mine[split.train],
        seed=seed,
        prompts=[words[row] for row in split.train],
    )
    logits = part.logit(chosen[torch.as_tensor(split.test)]).double().numpy()
    held = mine[split.test]
    probe = LinearProbe.fit(chosen, mine, seed=seed, prompts=words)
    return LayerFit(
        layer,
        probe,
        probe.logit(h).double().numpy(),
        auroc=float(auroc(logits, held)),
        loss=float(np.logaddexp(0, (1 - 2 * held) * logits).mean()),
    )


def combine(fits: Sequence[LayerFit]) -> tuple[Centroids | LinearProbe, Float[np.ndarray, " prompt"]]:
    """The reader of a guard and its scores of all prompts: centroids of all layers, or the probe of the best one."""
    if isinstance(fits[0].reader, Centroids):
        parts = [fit.reader for fit in fits if isinstance(fit.reader, Centroids)]
        return Centroids.join(parts), np.mean([fit.scores for fit in fits], axis=0)
    best = min(fits, key=lambda fit: (-fit.auroc, fit.loss))
    assert isinstance(best.reader, LinearProbe)
    return best.reader.at(layer=best.layer, training={"auroc_choosing_layer": best.auroc}), best.scores
