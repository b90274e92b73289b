"""Sweeping and fitting probes on a model: which layers to read, in how much memory, and going on after a kill."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import FINAL_NORM, resid_post, resolve_layer
from probes.category_search import category_facts
from probes.examples import Examples
from probes.inputs import check_activations
from probes.layer_sweep import LayerSweep
from probes.linear import LinearProbe, Method
from probes.metrics import ProbeMetrics
from probes.splits import Indices
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
        The probe, with the held-out figures among its training facts (those on held-out categories of the whole search,
        choice of the layer included, or `no_held_out_category`, why there are none), and the sweep by which its layer
        was chosen (over one layer if it was given; `None` at the final norm and for the mean difference at a given
        layer).

    Raises:
        CliffscopeError: If the examples have several positions, there is no such layer, or activations are NaN.
    """
    options = options or SweepOptions()
    if len(examples.positions) != 1:
        raise CliffscopeError(f"A probe is fitted at one position, found {', '.join(examples.positions)}.")
    position = examples.positions[0]
    place = {"model": model.name, "fingerprint": model.fingerprint, "position": position}
    plan = make_plan(examples, options)
    facts: dict[str, Any] = {"layer_choice": "auto" if layer == "auto" else "given"}
    if layer == "norm":
        captured = model.capture(examples.transcripts, [FINAL_NORM], [position], batch_tokens=batch_tokens)
        values = [captured[FINAL_NORM][:, 0]] * (1 + len(plan.categories))
        probe = _fit_and_judge(values, examples, method, options, plan).at(training=facts)
        advance(1)
        return probe.at(**place, layer=model.n_layers - 1, site=FINAL_NORM), None  # type: ignore[arg-type]
    sweep, judged = None, None
    if layer == "auto" or method == "logistic":
        layers = range(model.n_layers) if layer == "auto" else [resolve_layer(layer, model.n_layers)]
        sweep = sweep_model(model, examples, layers, options, batch_tokens=batch_tokens, advance=advance)
        layer = sweep.choose_layer(position)
        judged = sweep.held_out_categories(position, options)
        if method == "logistic":
            reason = plan.no_categories or "without a group of categories one class is too small to choose a layer by"
            held_out = {"no_held_out_category": reason} if judged is None else category_facts(*judged)
            return probe_of(model, sweep, layer, position).at(training={**facts, **held_out}), sweep
    chosen = resolve_layer(layer, model.n_layers)
    each = [chosen] * len(plan.categories) if sweep is None or judged is None else judged[1]
    wanted = sorted({chosen, *each})
    activations = dict(zip(wanted, examples.activations(model, wanted, batch_tokens)[:, :, 0], strict=True))
    probe = _fit_and_judge([activations[layer] for layer in (chosen, *each)], examples, method, options, plan)
    if each:
        facts["layers_held_out_category"] = each
    if sweep is None:
        advance(1)
    return probe.at(**place, layer=chosen, site=resid_post(chosen), training=facts), sweep  # type: ignore[arg-type]


def _fit_and_judge(
    activations: Sequence[Tensor], examples: Examples, method: Method, options: SweepOptions, plan: SweepPlan
) -> LinearProbe:
    """A probe of one cell: fitted on the plan's training side, judged on its held-out side and held-out categories.

    Args:
        activations: Of the cell, then those that a probe without each group of categories reads.
        examples: What to fit on.
        method: `logistic` or `mean-difference`.
        options: See `SweepOptions`.
        plan: The splits.
    """

    def fit(values: Tensor, rows: Indices) -> LinearProbe:
        train = torch.as_tensor(rows)
        return LinearProbe.fit(
            values[train],
            examples.labels[train],
            method=method,
            C=options.C,
            balanced=options.balanced,
            seed=options.seed,
            prompts=[examples.prompts[i] for i in rows],
            ids=[examples.ids[i] for i in rows],
        )

    shared = {"resamples": options.resamples, "seed": options.seed}
    first, *others = activations
    split = plan.main.split
    probe, test = fit(first, split.train), torch.as_tensor(split.test)
    metrics = ProbeMetrics.of(probe, first[test], examples.labels[test], **shared)
    facts = {**metrics.as_row(), "n_train": len(split.train), "n_test": len(split.test), "seed": options.seed}
    if not plan.categories:
        return probe.at(training={**facts, "no_held_out_category": plan.no_categories})
    pooled = torch.empty(len(examples.labels))
    for values, held in zip(others, plan.categories, strict=True):
        rows = torch.as_tensor(held.split.test)
        pooled[rows] = fit(values, held.split.train).logit(values[rows]).cpu()
    judged = ProbeMetrics.of_logits(pooled.numpy(), examples.labels, **shared)
    return probe.at(training={**facts, **category_facts(judged)})


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
