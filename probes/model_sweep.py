"""Sweeping and fitting probes on a model: which layers to read, in how much memory, and going on after a kill."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import FINAL_NORM, resid_post, resolve_layer
from probes.examples import Examples
from probes.inputs import check_activations
from probes.layer_sweep import LayerSweep
from probes.linear import LinearProbe, Method
from probes.metrics import ProbeMetrics
from probes.sweep import ProbeSweep, SweepOptions, SweepPlan

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

ACTIVATION_BYTES = 4_000_000_000
"""Activations held at once; a sweep over more reads the model in several passes, a group of layers each."""


def make_plan(examples: Examples, options: SweepOptions) -> SweepPlan:
    """The sweep's random choices for these examples."""
    return SweepPlan.make(
        examples.labels, examples.prompts, examples.positions, examples.categories, options=options, ids=examples.ids
    )


def sweep_model(
    model: "HookedModel",
    examples: Examples,
    layers: Sequence[int],
    options: SweepOptions,
    *,
    folder: Path | None = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> ProbeSweep:
    """Fits probes at every layer and position with their controls.

    Args:
        model: The model to read.
        examples: What to fit on, at which positions.
        layers: Indices from 0.
        options: See `SweepOptions`.
        folder: Where each finished layer is kept, so that a killed sweep goes on; kept nowhere if `None`. The caller
            removes it with `forget` when the results are written.
        batch_tokens: Token budget of a batch.
        advance: Called with the number of layers that were just finished.

    Raises:
        CliffscopeError: If activations are NaN or infinite, or a layer's file cannot be written.
    """
    plan = make_plan(examples, options)
    done: list[LayerSweep] = []
    if folder is not None:
        folder = parts_folder(model, examples, plan, folder)
        done = [LayerSweep.load(path, plan.digest) for path in sorted(folder.glob("layer-*.parquet"))]
        done = [part for part in done if part.layer in layers]
        advance(len(done))
    left = [layer for layer in layers if layer not in {part.layer for part in done}]
    for layer, activations in _blocks(model, examples, left, batch_tokens):
        part = plan.fit_layer(layer, activations)
        if folder is not None:
            part.save(folder / f"layer-{layer:03}.parquet")
        done.append(part)
        advance(1)
    return ProbeSweep.merge(done)


def parts_folder(model: "HookedModel", examples: Examples, plan: SweepPlan, folder: Path) -> Path:
    """The folder of a sweep's finished layers: another one for anything that would change them."""
    told = [plan.digest, model.name, model.fingerprint, str(model.dtype), [t.input_ids for t in examples.transcripts]]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    return folder / f".layers-{key}"


def forget(folder: Path) -> None:
    """Removes what killed and finished sweeps left in a folder."""
    for parts in folder.glob(".layers-*"):
        shutil.rmtree(parts)


def probe_of(model: "HookedModel", sweep: ProbeSweep, layer: int, position: str) -> LinearProbe:
    """A sweep's probe of one cell, with its held-out and control figures among its training facts."""
    table = sweep.table
    cell = table[(table["layer"] == layer) & (table["position"] == position) & (table["control"] != "real")]
    controls = {
        f"auroc_{row.control}{end}": float(getattr(row, f"auroc{end}"))
        for row in cell.itertuples()
        for end in ("", "_low", "_high")
    }
    probe = sweep.probe(layer, position).at(training=controls)
    return probe.at(model=model.name, fingerprint=model.fingerprint, site=resid_post(layer))


def fit_probe(
    model: "HookedModel",
    examples: Examples,
    *,
    layer: int | Literal["auto", "norm"] = "auto",
    method: Method = "logistic",
    options: SweepOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> tuple[LinearProbe, ProbeSweep | None]:
    """Fits one probe on the training side of a split by prompt, and judges it on the held-out side.

    Args:
        model: The model to read.
        examples: What to fit on, at a single position.
        layer: An index; `auto` for `ProbeSweep.choose_layer` over all layers; `norm` for the output of the final norm,
            where Yin et al. 2025 read.
        method: `logistic` or `mean-difference`.
        options: See `SweepOptions`.
        batch_tokens: Token budget of a batch.
        advance: Called with the number of layers that were just finished.

    Returns:
        The probe, with the held-out figures among its training facts, and the sweep by which its layer was chosen
        (over one layer if it was given; `None` at the final norm and for the mean difference at a given layer).

    Raises:
        CliffscopeError: If the examples have several positions, there is no such layer, or activations are NaN.
    """
    options = options or SweepOptions()
    if len(examples.positions) != 1:
        raise CliffscopeError(f"A probe is fitted at one position, found {', '.join(examples.positions)}.")
    position = examples.positions[0]
    place = {"model": model.name, "fingerprint": model.fingerprint, "position": position}
    if layer == "norm":
        captured = model.capture(examples.transcripts, [FINAL_NORM], [position], batch_tokens=batch_tokens)
        probe = _fit_and_judge(captured[FINAL_NORM][:, 0], examples, method, options)
        advance(1)
        return probe.at(**place, layer=model.n_layers - 1, site=FINAL_NORM), None  # type: ignore[arg-type]
    sweep = None
    if layer == "auto" or method == "logistic":
        layers = range(model.n_layers) if layer == "auto" else [resolve_layer(layer, model.n_layers)]
        sweep = sweep_model(model, examples, layers, options, batch_tokens=batch_tokens, advance=advance)
        layer = sweep.choose_layer(position)
        if method == "logistic":
            return probe_of(model, sweep, layer, position), sweep
    chosen = resolve_layer(layer, model.n_layers)
    activations = examples.activations(model, [chosen], batch_tokens)
    probe = _fit_and_judge(activations[0, :, 0], examples, method, options)
    if sweep is None:
        advance(1)
    return probe.at(**place, layer=chosen, site=resid_post(chosen)), sweep  # type: ignore[arg-type]


def _fit_and_judge(activations: Tensor, examples: Examples, method: Method, options: SweepOptions) -> LinearProbe:
    """A probe of one cell: fitted on the plan's training side, judged on its held-out side."""
    split = make_plan(examples, options).main.split
    train, test = torch.as_tensor(split.train), torch.as_tensor(split.test)
    probe = LinearProbe.fit(
        activations[train],
        examples.labels[train],
        method=method,
        C=options.C,
        balanced=options.balanced,
        seed=options.seed,
        prompts=[examples.prompts[i] for i in split.train],
        ids=[examples.ids[i] for i in split.train],
    )
    metrics = ProbeMetrics.of(
        probe, activations[test], examples.labels[test], resamples=options.resamples, seed=options.seed
    )
    return probe.at(training={**metrics.as_row(), "n_train": len(train), "n_test": len(test), "seed": options.seed})


def _blocks(
    model: "HookedModel", examples: Examples, layers: Sequence[int], batch_tokens: int
) -> Iterator[tuple[int, Tensor]]:
    """The activations `[rollout, position, d_model]` of each layer, as many layers from one pass as memory allows."""
    one_layer = 4 * len(examples.transcripts) * len(examples.positions) * model.d_model
    at_once = max(1, ACTIVATION_BYTES // one_layer)
    for start in range(0, len(layers), at_once):
        group = layers[start : start + at_once]
        activations = examples.activations(model, group, batch_tokens)
        # All of them before the first is fitted: a model that overflows in a late layer shows at once.
        for values in activations:
            check_activations(values, examples.ids, examples.positions)
        yield from zip(group, activations, strict=True)
