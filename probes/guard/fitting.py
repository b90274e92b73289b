"""Fitting a guard and judging it on what it did not see.

1. The prompts are divided into a fitting split and a calibration split, no prompt in both.
2. A reader is fitted at every layer on the fitting split (`probes.guard.readers`), and the threshold is chosen on the
   calibration split (`probes.guard.threshold`).
3. The whole recipe, with its choice of layer and its threshold, is repeated without each category in turn (and the
   benign controls that are dealt to it: arXiv 2603.18280), and what was left out is scored and flagged. These are the
   honest figures. Without categories prompts are left out instead, which says nothing about unseen kinds.

The layers are read a few at a time, so that memory does not grow with their number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import resid_post
from interp.rollouts.prompts import Prompt
from interp.transcripts import Transcript
from probes.guard.figures import GuardFigures, confounded
from probes.guard.latent_guard import POSITION, LatentGuard, prompt_transcripts
from probes.guard.readers import METHODS, LayerFit, combine, fit_layer
from probes.guard.threshold import check_calibration, check_false_positives, choose_threshold
from probes.inputs import check_activations, check_labels
from probes.linear import LinearProbe
from probes.model_sweep import ACTIVATION_BYTES
from probes.splits import Indices, Split, folds_by_prompt, split_by_prompt, splits_by_category

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

N_FOLDS = 5
"""Parts left out in turn where the prompts have no categories."""


@dataclass(frozen=True)
class GuardOptions:
    """How a guard is fitted.

    Attributes:
        method: `centroids` or `probe`.
        false_positives: The share of benign prompts that may be flagged; `None` for the threshold of the best balanced
            accuracy, which promises nothing.
        calibration: Share of the prompts kept for the threshold.
        folds: Groups of categories left out in turn; `None` leaves out one at a time.
        seed: Of every random choice.

    Raises:
        CliffscopeError: If the method is unknown or a share is none.
    """

    method: str = "centroids"
    false_positives: float | None = 0.05
    calibration: float = 0.3
    folds: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise CliffscopeError(f"method: expected {' or '.join(METHODS)}, found {self.method!r}.")
        check_false_positives(self.false_positives)
        if not 0 < self.calibration < 1:
            raise CliffscopeError(f"calibration: expected a share between 0 and 1, found {self.calibration:g}.")


@dataclass(frozen=True, eq=False)
class GuardFit:
    """A guard with the figures by which to judge it.

    Attributes:
        guard: The guard.
        calibration: On the calibration split, on which the threshold was chosen: its AUROC is honest within the kinds
            of prompts that were fitted on, its rates are flattered.
        held_out: Of guards that saw none of the categories (or prompts, see `held_out_by`) that they judge.
        held_out_by: `category` or `prompt`.
        warning: What speaks against trusting the figures at all, or `None`.
    """

    guard: LatentGuard
    calibration: GuardFigures
    held_out: GuardFigures
    held_out_by: str
    warning: str | None


@dataclass(frozen=True)
class _Partition:
    """Rows to fit on, to calibrate on, and to judge."""

    fit: Indices
    calibrate: Indices
    judge: Indices


def fit_guard(
    model: "HookedModel",
    prompts: Sequence[Prompt],
    options: GuardOptions | None = None,
    *,
    layers: Sequence[int] | None = None,
    system: str | None = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> GuardFit:
    """Fits a guard on prompts that are known to be harmful or benign; the others are left out.

    Args:
        model: The model to read.
        prompts: With `harmful`, and best with `category`, and from one source: see `GuardFit.warning`.
        options: See `GuardOptions`.
        layers: Indices from 0; all if `None`.
        system: The system prompt with which the model is used.
        batch_tokens: Token budget of a batch.
        advance: Called with the number of layers that were just finished.

    Raises:
        CliffscopeError: If a class is missing or too small, a prompt does not fit the context, or activations are NaN.
    """
    options = options or GuardOptions()
    known = [prompt for prompt in prompts if prompt.harmful is not None]
    labels = _check_classes(known)
    texts = [prompt.text for prompt in known]
    main = _partition(labels, texts, Split(np.arange(len(known)), np.arange(0)), options)
    splits, held_out_by = _held_out(known, labels, options)
    partitions = [main, *(_partition(labels, texts, split, options) for split in splits)]
    # Before the model is read: whether the calibration splits can promise what is asked.
    for number, part in enumerate(partitions):
        n_harmful = int(labels[part.calibrate].sum())
        when = f" without held-out {held_out_by} group {number} of {len(splits)}" if number else ""
        check_calibration(n_harmful, len(part.calibrate) - n_harmful, options.false_positives, when)
    transcripts = prompt_transcripts(model, known, system)
    found: list[list[LayerFit]] = [[] for _ in partitions]
    for layer, states in _states(model, transcripts, list(layers or range(model.n_layers)), batch_tokens):
        check_activations(states, [prompt.id for prompt in known])
        for fits, part in zip(found, partitions, strict=True):
            fits.append(fit_layer(options.method, layer, states, labels, texts, part.fit, options.seed))
        advance(1)
    reader, scores = combine(found[0])
    threshold = choose_threshold(*_by_class(scores, labels, main.calibrate), options.false_positives)
    calibration = _figures(known, scores, threshold.value, main.calibrate, options.seed)
    held_out = _pooled(known, labels, partitions[1:], found[1:], options)
    if isinstance(reader, LinearProbe):
        assert reader.layer is not None
        place = {"site": resid_post(reader.layer), "position": POSITION}
        reader = reader.at(model=model.name, fingerprint=model.fingerprint, **place)  # type: ignore[arg-type]
    warning = confounded(known)
    facts = {
        "method": options.method,
        "n_fit": len(main.fit),
        "n_calibration": len(main.calibrate),
        "n_harmful": int(labels.sum()),
        "n_benign": int(len(labels) - labels.sum()),
        "false_positives": options.false_positives,
        "promise": threshold.promise,
        "seed": options.seed,
        "system": system,
        "calibration": calibration.summary(),
        "held_out": held_out.summary(),
        "held_out_by": held_out_by,
        "warning": warning,
    }
    guard = LatentGuard(reader, threshold.value, model.name, model.fingerprint, facts)
    return GuardFit(guard, calibration, held_out, held_out_by, warning)


def _check_classes(prompts: Sequence[Prompt]) -> Indices:
    """The labels. Raises `CliffscopeError` if a class is missing or there are too few prompts."""
    labels = np.array([bool(prompt.harmful) for prompt in prompts], dtype=np.int64)
    if not labels.any() or labels.all():
        raise CliffscopeError(
            f"prompts: {int(labels.sum())} are labelled harmful and {int((1 - labels).sum())} benign; a guard needs "
            "both: give a column `harmful`, or prompts of the other class."
        )
    return check_labels(labels, len(labels))


def _partition(labels: Indices, texts: Sequence[str], split: Split, options: GuardOptions) -> _Partition:
    """Divides a split's training side into fitting and calibration, by prompt."""
    rows = split.train
    inner = split_by_prompt(labels[rows], [texts[row] for row in rows], options.calibration, options.seed)
    return _Partition(rows[inner.train], rows[inner.test], split.test)


def _held_out(prompts: Sequence[Prompt], labels: Indices, options: GuardOptions) -> tuple[list[Split], str]:
    """Splits that leave out categories, or prompts where the prompts have no two categories a class."""
    texts = [prompt.text for prompt in prompts]
    categories = [prompt.category for prompt in prompts]
    by_class = [{c for c, y in zip(categories, labels, strict=True) if y == label and c} for label in (0, 1)]
    if min(len(names) for names in by_class) >= 2:
        return splits_by_category(labels, categories, texts, options.folds, options.seed), "category"
    folds = folds_by_prompt(labels, texts, options.folds or N_FOLDS, options.seed)
    numbers = range(int(folds.max()) + 1)
    return [Split(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in numbers], "prompt"


def _states(
    model: "HookedModel", transcripts: Sequence[Transcript], layers: Sequence[int], batch_tokens: int
) -> Iterator[tuple[int, Float[Tensor, "prompt d_model"]]]:
    """The states at `inst` of each layer, as many layers from one pass as memory allows."""
    at_once = max(1, ACTIVATION_BYTES // (4 * len(transcripts) * model.d_model))
    for start in range(0, len(layers), at_once):
        group = layers[start : start + at_once]
        captured = model.capture(
            transcripts, [resid_post(layer) for layer in group], [POSITION], batch_tokens=batch_tokens
        )
        for layer in group:
            yield layer, captured[resid_post(layer)][:, 0]


def _by_class(scores: np.ndarray, labels: Indices, rows: Indices) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the harmful and of the benign among some rows."""
    return scores[rows][labels[rows] == 1], scores[rows][labels[rows] == 0]


def _figures(prompts: Sequence[Prompt], scores: np.ndarray, threshold: float, rows: Indices, seed: int) -> GuardFigures:
    mine = scores[rows]
    return GuardFigures.of([prompts[row] for row in rows], mine, mine > threshold, seed)


def _pooled(
    prompts: Sequence[Prompt],
    labels: Indices,
    partitions: Sequence[_Partition],
    found: Sequence[Sequence[LayerFit]],
    options: GuardOptions,
) -> GuardFigures:
    """Figures of all prompts, each scored and flagged by the guard that did not see its part."""
    scores = np.full(len(prompts), np.nan)
    flagged = np.zeros(len(prompts), dtype=bool)
    for part, fits in zip(partitions, found, strict=True):
        _, mine = combine(fits)
        threshold = choose_threshold(*_by_class(mine, labels, part.calibrate), options.false_positives)
        scores[part.judge] = mine[part.judge]
        flagged[part.judge] = mine[part.judge] > threshold.value
    return GuardFigures.of(prompts, scores, flagged, options.seed)
