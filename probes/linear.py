"""The linear refusal probe: σ(w·h + b) in raw activation coordinates, and its file.

Class 1 is "refuses" (refused a harmful prompt), class 0 "answers" (answered a benign one). Arithmetic is in
float32 whatever the activations' type.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from interp.display.shown import Shown, Words
from interp.errors import CliffscopeError
from interp.fitted_files import fitted_metadata, read_fitted
from interp.models.fingerprint import require_same_model
from interp.tensor_files import write_tensors
from probes.fitting import C_GRID, N_FOLDS, Fits, fit_logistic
from probes.inputs import check_activations, check_labels
from probes.mean_difference import fit_mean_difference
from probes.splits import folds_by_prompt

FORMAT = "cliffscope.probe"
VERSION = "1"

Method = Literal["logistic", "mean-difference"]


@dataclass(frozen=True, eq=False, repr=False)
class LinearProbe(Shown):
    """A fitted probe: logit(h) = weight · h + bias.

    Attributes:
        weight: float32 on the CPU, in raw activation coordinates (standardization is folded in).
        bias: In logits.
        method: `"logistic"` or `"mean-difference"`.
        model: Name of the model that it reads.
        fingerprint: What the model is (architecture, sizes), to refuse another; empty if unknown.
        layer: Index of the layer, from 0.
        site: TransformerLens name of the site.
        position: Name of the position at which it was fitted.
        training: Facts of the fit that JSON can hold (n, C, seed, held-out figures, …).
    """

    weight: Float[Tensor, "d_model"]
    bias: float
    method: Method = "logistic"
    model: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    layer: int | None = None
    site: str | None = None
    position: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weight = self.weight.detach().to(device="cpu", dtype=torch.float32)
        if weight.ndim != 1 or not len(weight):
            raise CliffscopeError(f"probe: expected a weight of shape [d_model], found {list(weight.shape)}.")
        if not (bool(torch.isfinite(weight).all()) and math.isfinite(self.bias)):
            raise CliffscopeError("probe: the weight or the bias is NaN or infinite.")
        object.__setattr__(self, "weight", weight)
        # The file holds float32; the probe in memory must not differ from the one read back.
        object.__setattr__(self, "bias", float(torch.tensor(self.bias, dtype=torch.float32)))

    @classmethod
    def fit(
        cls,
        activations: Float[Tensor, "n d_model"],
        labels: ArrayLike | Tensor,
        *,
        method: str = "logistic",
        C: float | Literal["cv"] = "cv",
        balanced: bool = True,
        seed: int = 0,
        prompts: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> "LinearProbe":
        """Fits a probe on the rollouts given; hold some out first (`probes.splits`) to judge it.

        Args:
            activations: One row a rollout, any float type and device.
            labels: `[n]`, 1 for refusing.
            method: `"logistic"`: L2-regularized logistic regression on standardized features, at its exact
                optimum; `"mean-difference"`: the difference of the class means (`probes.mean_difference`).
            C: Inverse strength of the penalty (logistic only), or `"cv"`: cross-validated over `C_GRID`.
            balanced: Weight the classes equally.
            seed: Of the cross-validation folds.
            prompts: `[n]` texts; rollouts of the same prompt share a fold. Each its own if `None`.
            ids: `[n]` rollout names for error messages.

        Raises:
            CliffscopeError: If activations hold NaN or infinity, or labels have one class only, are fewer than
                8, or do not match.
        """
        n = len(activations)
        y = check_labels(labels, n)
        check_activations(activations, ids)
        target = torch.as_tensor(y)[:, None]
        facts: dict[str, Any] = {"n": n, "n_positive": int(y.sum()), "balanced": balanced}
        kind: Method
        if method == "mean-difference":
            kind = "mean-difference"
            fits: Fits = fit_mean_difference(activations[None], target, balanced=balanced)
        elif method == "logistic":
            kind = "logistic"
            folds = None
            if C == "cv":
                folds = folds_by_prompt(y, prompts or [str(i) for i in range(n)], N_FOLDS, seed)
                facts |= {"C_grid": list(C_GRID), "folds": int(folds.max()) + 1, "seed": seed}
            fits = fit_logistic(activations[None], target, C, balanced=balanced, folds=folds)
            facts["C"] = float(fits.C[0, 0])
        else:
            raise CliffscopeError(f"method: expected 'logistic' or 'mean-difference', found {method!r}.")
        return cls(fits.weight[0, 0], float(fits.bias[0, 0]), method=kind, training=facts)

    def at(
        self,
        *,
        model: str | None = None,
        fingerprint: Mapping[str, str] | None = None,
        layer: int | None = None,
        site: str | None = None,
        position: str | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> "LinearProbe":
        """A copy that knows what it reads; `training` is added to the facts there are, `None` keeps a field."""
        place = {
            "model": model,
            "fingerprint": fingerprint,
            "layer": layer,
            "site": site,
            "position": position,
            "training": None if training is None else {**self.training, **training},
        }
        return replace(self, **{key: value for key, value in place.items() if value is not None})  # type: ignore[arg-type]

    @property
    def d_model(self) -> int:
        """Length of the weight."""
        return len(self.weight)

    @property
    def direction(self) -> Float[Tensor, "d_model"]:
        """The unit vector along the weight: towards refusing.

        Raises:
            CliffscopeError: If the weight is zero.
        """
        norm = self.weight.norm()
        if norm == 0:
            raise CliffscopeError("probe: the weight is zero and has no direction.")
        return self.weight / norm

    def logit(self, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """The logit weight · h + bias, in float32 on `h`'s device.

        Raises:
            CliffscopeError: If `h` has another width.
        """
        if h.shape[-1] != self.d_model:
            raise CliffscopeError(
                f"probe: made for activations of width {self.d_model}, found {h.shape[-1]}; is it another model's?"
            )
        return h.float() @ self.weight.to(h.device) + self.bias

    def score(self, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """The refusal score σ(weight · h + bias) in [0, 1], in float32 on `h`'s device."""
        return self.logit(h).sigmoid()

    def check_model(self, fingerprint: Mapping[str, str], name: str) -> None:
        """Refuses a model that the probe was not made for; a probe without a fingerprint fits any.

        Raises:
            CliffscopeError: If the fingerprints differ, naming what differs.
        """
        advice = "fit one for this model"
        require_same_model("probe", self.model, self.fingerprint, fingerprint, name, advice)

    def words(self) -> Words:
        """Where it reads, and its held-out figures beside those of its controls."""
        rows: list[list[object]] = [["held out", "value", "95 %"]]
        for name in ("auroc", "auroc_shuffled", "auroc_held_out_category", "accuracy", "ece"):
            if isinstance(value := self.training.get(name), float):
                low, high = (self.training.get(f"{name}_{end}", math.nan) for end in ("low", "high"))
                rows.append([name.replace("_", " "), value, None if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"])
        where = f"{self.site or 'no site'} at {self.position or 'no position'}"
        head = f"{where}, {self.method}, d_model {self.d_model:,}"
        return Words(f"Probe for {self.model or 'an unnamed model'}", head, rows=rows if len(rows) > 1 else ())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the probe as safetensors, atomically; equal probes give equal bytes.

        Raises:
            CliffscopeError: If the file cannot be written or JSON cannot hold the training facts.
        """
        metadata = fitted_metadata(path, FORMAT, VERSION, self) | {"method": self.method}
        write_tensors(path, {"weight": self.weight, "bias": torch.tensor(self.bias)}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LinearProbe":
        """Reads a probe.

        Raises:
            CliffscopeError: If the file is missing, not safetensors, not a probe, of another version, or holds
                wrong shapes, NaN, infinity or unreadable metadata.
        """
        tensors, metadata, place = read_fitted(path, "probe", FORMAT, VERSION)
        _check_content(path, tensors, metadata)
        return cls(
            tensors["weight"],
            float(tensors["bias"]),
            method=metadata["method"],  # type: ignore[arg-type]  # checked with the content
            **place,
        )


def _check_content(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Refuses a probe of another method, or of other tensors."""
    if metadata.get("method") not in ("logistic", "mean-difference"):
        raise CliffscopeError(f"{path}: unknown probe method {metadata.get('method')!r}.")
    if set(tensors) != {"weight", "bias"} or tensors["weight"].ndim != 1 or tensors["bias"].ndim != 0:
        found = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise CliffscopeError(f"{path}: expected weight [d_model] and bias [], found {found or 'no tensors'}.")
