"""The probe sweep: every layer and position, with its controls, fitted together.

Steps, for each layer:

1. *real*: a probe of the labels, fitted on the training side of a split by prompt, judged on the held-out side.
2. *shuffled*: the same search (strength by cross-validation included) with labels permuted within each fold and
   within the held-out side, several times; the figures are means over the permutations. It should give 0.5.
3. *held_out_category*: every rollout is scored by a probe that saw neither its category nor the matched benign
   controls (`probes.splits.splits_by_category`, arXiv 2603.18280), and the scores are pooled. Pooling asks that
   one threshold carries over to unseen categories, which is how a probe is used; it is the stricter reading.
   For judging the choice of the layer too, each layer is also read within the other categories
   (`probes.category_search`).

A `SweepPlan` fixes every random choice, so the layers can be fitted in any order, in separate processes, and
be saved one file each: a killed sweep goes on where it was and ends with the same table.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp.display.shown import Drawn, Words
from interp.errors import CliffscopeError
from interp.files import write_atomically
from interp.statistics import Array, bootstrap_counts
from probes.category_search import CategorySearch, deepest_as_good, judge_search
from probes.fitting import N_FOLDS, Fits, fit_logistic
from probes.inputs import check_activations, check_labels
from probes.layer_sweep import LayerSweep
from probes.linear import LinearProbe
from probes.metrics import ProbeMetrics, Resampled
from probes.splits import Split, folds_by_prompt, permuted_within, prompt_keys, split_by_prompt, splits_by_category

if TYPE_CHECKING:
    import plotly.graph_objects as go

CONTROLS = ("real", "shuffled", "held_out_category")

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class SweepOptions:
    """What a sweep does in each cell.

    Attributes:
        C: Inverse strength of the penalty, or `"cv"`.
        balanced: Whether classes weigh the same.
        test_fraction: Share of rollouts held out by prompt.
        n_shuffles: Permutations of the shuffled control; 0 leaves it out.
        category_folds: Groups of categories held out in turn; 0 leaves the control out, `None` holds out one
            category at a time.
        resamples: Of the bootstrap.
        seed: Of every random choice.
    """

    C: float | Literal["cv"] = "cv"
    balanced: bool = True
    test_fraction: float = 0.3
    n_shuffles: int = 5
    category_folds: int | None = 4
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class TrainingSet:
    """Rollouts that are fitted together: indices, folds, and one or more labellings `[n_train, problem]`."""

    split: Split
    folds: Indices
    labels: Indices


@dataclass(frozen=True)
class SweepPlan:
    """Every choice of a sweep, made before the first activation is seen.

    Attributes:
        labels: `[rollout]` of 0 and 1.
        positions: Names along the position axis.
        ids: Rollout names for messages, or `None`.
        options: The options it was made with.
        main: The split by prompt; labellings: the real one, then the shuffled ones.
        test_labels: `[n_test, problem]`, to go with `main.labels`.
        categories: One training set for each group of categories held out.
        within: For each of these, its training side split by prompt once more: what its layer is chosen by.
        no_categories: Why there is no held-out-category control; `None` if there is one.
        digest: Changes with anything that changes the result, other than the activations.
    """

    labels: Indices
    positions: tuple[str, ...]
    ids: tuple[str, ...] | None
    options: SweepOptions
    main: TrainingSet
    test_labels: Indices
    categories: tuple[TrainingSet, ...]
    within: tuple[TrainingSet, ...]
    no_categories: str | None
    digest: str

    @classmethod
    def make(
        cls,
        labels: ArrayLike | Tensor,
        prompts: Sequence[str],
        positions: Sequence[str],
        categories: Sequence[str | None] | None = None,
        *,
        options: SweepOptions | None = None,
        ids: Sequence[str] | None = None,
    ) -> "SweepPlan":
        """Draws the splits, folds and permutations.

        Args:
            labels: `[rollout]`, 1 for refusing.
            prompts: `[rollout]` texts; a prompt never stands on both sides of a split.
            positions: Names along the position axis, in order.
            categories: `[rollout]`, `None` for a rollout without one; or `None` for none at all.
            options: See `SweepOptions`.
            ids: `[rollout]` names for messages.

        Raises:
            CliffscopeError: If labels have one class only or are fewer than 8, or a class has too few prompts.
        """
        options = options or SweepOptions()
        y = check_labels(labels, len(prompts))
        split = split_by_prompt(y, prompts, options.test_fraction, options.seed)
        folds = _folds(y, prompts, split.train, options.seed)
        rng = np.random.default_rng([options.seed, 1])
        train = [y[split.train]] + [permuted_within(folds, y[split.train], rng) for _ in range(options.n_shuffles)]
        test = [y[split.test]] + [rng.permutation(y[split.test]) for _ in range(options.n_shuffles)]
        held, within, reason = _category_sets(y, prompts, categories, options)
        told = ["2", y.tolist(), prompt_keys(prompts), list(categories or ()), list(positions), asdict(options)]
        return cls(
            labels=y,
            positions=tuple(positions),
            ids=None if ids is None else tuple(ids),
            options=options,
            main=TrainingSet(split, folds, np.stack(train, 1)),
            test_labels=np.stack(test, 1),
            categories=held,
            within=within,
            no_categories=reason,
            digest=hashlib.sha256(json.dumps(told).encode()).hexdigest(),
        )

    def fit_layer(self, layer: int, activations: Float[Tensor, "rollout position d_model"]) -> LayerSweep:
        """Fits all positions and controls of one layer.

        Args:
            layer: Its index, for the table.
            activations: Of all rollouts of the plan, any float type.

        Raises:
            CliffscopeError: If the shape does not match the plan or a value is NaN or infinite.
        """
        expected = (len(self.labels), len(self.positions))
        if activations.ndim != 3 or tuple(activations.shape[:2]) != expected:
            raise CliffscopeError(
                f"activations: expected [{expected[0]}, {expected[1]}, d_model] for this sweep, "
                f"found {list(activations.shape)}."
            )
        check_activations(activations, self.ids, self.positions)
        fits, logits = self._fit(self.main, activations)
        measured = {"real": self._measure(logits[:, 0], self.test_labels[:, 0])}
        C = {"real": fits.C[:, 0]}
        if self.options.n_shuffles:
            shuffled = [self._measure(logits[:, k], self.test_labels[:, k]) for k in range(1, logits.shape[1])]
            measured["shuffled"] = Resampled.mean(shuffled)
            C["shuffled"] = fits.C[:, 1:].quantile(0.5, dim=1, interpolation="nearest")
        search = None
        if self.categories:
            pooled = np.empty((len(self.positions), len(self.labels)))
            strengths = []
            for held in self.categories:
                part, scores = self._fit(held, activations)
                pooled[:, held.split.test] = scores[:, 0]
                strengths.append(part.C[:, 0])
            measured["held_out_category"] = self._measure(pooled, self.labels)
            C["held_out_category"] = torch.stack(strengths, 1).quantile(0.5, dim=1, interpolation="nearest")
            search = self._search(activations, pooled)
        rows = self._rows(layer, {name: found.metrics() for name, found in measured.items()}, C)
        return LayerSweep(layer, rows, fits.weight[:, 0].float(), fits.bias[:, 0].float(), self.digest, search)

    def _search(self, activations: Tensor, pooled: Array) -> CategorySearch:
        """How well the layer separates rollouts within the categories that are not held out, and its pooled scores."""
        groups = np.empty(len(self.labels), dtype=np.int64)
        areas, lows = (np.empty((len(self.positions), len(self.categories))) for _ in range(2))
        for group, (held, within) in enumerate(zip(self.categories, self.within, strict=True)):
            groups[held.split.test] = group
            _, logits = self._fit(within, activations)
            metrics = self._measure(logits[:, 0], self.labels[within.split.test]).metrics()
            areas[:, group] = [found.auroc for found in metrics]
            lows[:, group] = [found.auroc_interval.low for found in metrics]
        return CategorySearch(self.labels, groups, pooled, areas, lows)

    def _fit(self, training: TrainingSet, activations: Tensor) -> tuple[Fits, Array]:
        """The fits of every position, and the held-out logits `[position, problem, n_test]`."""
        split, options = training.split, self.options
        fits = fit_logistic(
            activations[torch.as_tensor(split.train)].transpose(0, 1),
            torch.as_tensor(training.labels),
            options.C,
            balanced=options.balanced,
            folds=training.folds,
        )
        # Scored as `LinearProbe.score` does, in float32.
        test = activations[torch.as_tensor(split.test)].cpu().float()
        logits = torch.einsum("npd,pkd->pkn", test, fits.weight.cpu().float()) + fits.bias.cpu().float()[..., None]
        return fits, logits.double().numpy()

    def _measure(self, logits: Array, labels: Indices) -> Resampled:
        """Figures `[position]` with the same resamples for every cell."""
        counts = bootstrap_counts(len(labels), self.options.resamples, self.options.seed, labels)
        return Resampled.of(logits, labels, counts)

    def _rows(self, layer: int, metrics: Mapping[str, list[ProbeMetrics]], C: Mapping[str, Tensor]) -> pd.DataFrame:
        """One row for each position and control."""
        n_train = {name: len(self.main.split.train) for name in CONTROLS}
        if self.categories:
            n_train["held_out_category"] = round(np.mean([len(held.split.train) for held in self.categories]))
        fits = {"real": 1, "shuffled": self.options.n_shuffles, "held_out_category": len(self.categories)}
        rows: list[dict[str, Any]] = []
        for place, position in enumerate(self.positions):
            for control, found in metrics.items():
                row: dict[str, Any] = {"layer": layer, "position": position, "control": control}
                row |= found[place].as_row()
                row |= {"C": float(C[control][place]), "n_train": n_train[control], "n_test": found[place].n}
                rows.append(row | {"n_probes": fits[control]})
        return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False, repr=False)
class ProbeSweep(Drawn):
    """A finished sweep.

    Attributes:
        table: One row for each layer, position and control: `layer, position, control, auroc, auroc_low,
            auroc_high, accuracy…, ece…, C` (the median, where a control has several probes), `n_train` (the
            mean), `n_test, n_probes`.
        layers: What was fitted, by layer.
    """

    table: pd.DataFrame
    layers: Mapping[int, LayerSweep]

    @classmethod
    def run(
        cls, plan: SweepPlan, blocks: Iterable[tuple[int, Float[Tensor, "rollout position d_model"]]]
    ) -> "ProbeSweep":
        """Fits layer after layer; `blocks` may yield them one at a time, so that not all are in memory."""
        return cls.merge([plan.fit_layer(layer, activations) for layer, activations in blocks])

    @classmethod
    def merge(cls, layers: Sequence[LayerSweep]) -> "ProbeSweep":
        """Puts layers together, in the order of depth.

        Raises:
            CliffscopeError: If there are none, a layer comes twice, or they come from different plans.
        """
        by_layer = {part.layer: part for part in sorted(layers, key=lambda part: part.layer)}
        if not layers or len(by_layer) < len(layers) or len({part.plan for part in layers}) > 1:
            what = "no layers" if not layers else "layers twice, or of different sweeps"
            raise CliffscopeError(f"sweep: {what}; delete the folder and run the sweep again.")
        table = pd.concat([part.rows for part in by_layer.values()], ignore_index=True)
        return cls(table, by_layer)

    def figure(self) -> "go.Figure":
        """The AUROC of every layer and position, and of the controls; see `probes.sweep_figure`."""
        from probes.sweep_figure import sweep_figure

        return sweep_figure(self.table)

    def words(self) -> Words:
        """At each position the layer that `choose_layer` gives, its AUROC, and there the AUROC of each control."""
        positions = list(dict.fromkeys(self.table["position"]))
        controls = [name for name in CONTROLS[1:] if name in set(self.table["control"])]
        titles = [name.replace("_", " ") for name in controls]
        rows: list[list[object]] = [["position", "layer", "AUROC", "95 %", *titles]]
        for position in positions:
            at = self.table[self.table["position"] == position]
            if at.loc[at["control"] == "real", "auroc"].notna().any():
                layer = self.choose_layer(position)
                found = at[at["layer"] == layer].set_index("control")
                low, high = (float(found.at["real", f"auroc_{end}"]) for end in ("low", "high"))
                others = [float(found.at[name, "auroc"]) if name in found.index else None for name in controls]
                rows.append([position, layer, float(found.at["real", "auroc"]), f"[{low:.3f}, {high:.3f}]", *others])
        head = f"{self.table['layer'].nunique()} layers × {len(positions)} positions"
        said = [null["sentence"] for null in self.table.attrs.get("nulls") or ()]
        return Words("Probe sweep", head, said, rows, f"Held-out AUROC of probes, {head}.")

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Writes the table. Raises `CliffscopeError` if it cannot."""
        write_atomically(path, lambda partial: self.table.to_parquet(partial, index=False))

    def probe(self, layer: int, position: str) -> LinearProbe:
        """The real probe of a cell, with its held-out figures among the training facts.

        Raises:
            CliffscopeError: If the sweep has no such cell.
        """
        rows = self._real(position)
        if layer not in self.layers:
            raise CliffscopeError(f"sweep: no layer {layer}; there are {', '.join(map(str, self.layers))}.")
        row = rows[rows["layer"] == layer].iloc[0].to_dict()
        place = list(dict.fromkeys(self.table["position"])).index(position)
        facts = {str(key): row[key] for key in row if key not in ("layer", "position", "control")}
        facts = {key: value.item() if isinstance(value, np.generic) else value for key, value in facts.items()}
        part = self.layers[layer]
        return LinearProbe(part.weight[place], float(part.bias[place]), layer=layer, position=position, training=facts)

    def choose_layer(self, position: str) -> int:
        """The deepest layer whose held-out AUROC is at least the lower bound of the best layer's interval.

        Early layers know that a prompt is harmful; the cliff shows only after the layers that cause it. The
        AUROC of the chosen layer was looked at to choose it; judge it on other rollouts, or by its controls.

        Raises:
            CliffscopeError: If the sweep has no such position, or no AUROC at it.
        """
        rows = self._real(position).dropna(subset=["auroc"])
        if rows.empty:
            raise CliffscopeError(f"sweep: no AUROC at {position}; the held-out side needs both classes.")
        layer = deepest_as_good(*(rows[name].tolist() for name in ("layer", "auroc", "auroc_low")))
        assert layer is not None, "rows without AUROC were left out"
        return layer

    def held_out_categories(self, position: str, options: SweepOptions) -> tuple[ProbeMetrics, list[int]] | None:
        """The search for the layer, judged on categories that it did not see, and the layers that it chose.

        `None` if categories were not held out. Raises `CliffscopeError` if the sweep has no such position.
        """
        self._real(position)
        parts = {layer: part.search for layer, part in self.layers.items() if part.search is not None}
        place = list(dict.fromkeys(self.table["position"])).index(position)
        return judge_search(parts, place, resamples=options.resamples, seed=options.seed) if parts else None

    def _real(self, position: str) -> pd.DataFrame:
        rows = self.table[(self.table["control"] == "real") & (self.table["position"] == position)]
        if rows.empty:
            known = ", ".join(dict.fromkeys(self.table["position"]))
            raise CliffscopeError(f"sweep: no position {position!r}; there are {known}.")
        return rows


def _folds(y: Indices, prompts: Sequence[str], train: Indices, seed: int) -> Indices:
    """Cross-validation folds of a training side."""
    return folds_by_prompt(y[train], [prompts[i] for i in train], N_FOLDS, seed)


def _category_sets(
    y: Indices, prompts: Sequence[str], categories: Sequence[str | None] | None, options: SweepOptions
) -> tuple[tuple[TrainingSet, ...], tuple[TrainingSet, ...], str | None]:
    """The training sets of the category control, each split once more within, or none and the reason."""
    if options.category_folds == 0:
        return (), (), "not asked for"
    if categories is None:
        return (), (), "the rollouts have no categories"
    if len(categories) != len(y):
        raise CliffscopeError(f"categories: expected {len(y)}, one a rollout, found {len(categories)}.")
    try:
        splits = splits_by_category(y, categories, prompts, options.category_folds, options.seed)
        sets = [
            TrainingSet(split, _folds(y, prompts, split.train, options.seed), y[split.train][:, None])
            for split in splits
        ]
        within = [_within(y, prompts, split.train, options) for split in splits]
    except CliffscopeError as error:
        return (), (), str(error)
    return tuple(sets), tuple(within), None


def _within(y: Indices, prompts: Sequence[str], rows: Indices, options: SweepOptions) -> TrainingSet:
    """A training side split by prompt, as the whole is."""
    inner = split_by_prompt(y[rows], [prompts[i] for i in rows], options.test_fraction, options.seed)
    split = Split(rows[inner.train], rows[inner.test])
    return TrainingSet(split, _folds(y, prompts, split.train, options.seed), y[split.train][:, None])
