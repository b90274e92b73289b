"""Measures one dose after the other on the same prompts."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.judges import Judge, is_looping, is_useless
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.models.hooks import Intervention
from interp.models.intervening import NothingChangedWarning
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.statistics import Interval, bootstrap_interval, proportion_interval
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.behaviour import Behaviour, answer, drift
from interventions.dose.options import Cell, DoseOptions
from interventions.dose.vector import Vector, in_force

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass(eq=False)
class Bench:
    """A model with the prompts that it answers at every dose.

    The unsteered model comes first: on its rollouts the drift and the refusal logit of the others are read.

    Attributes:
        model: The model.
        vector: What is added, removed, clamped or transported along.
        prompts: Harmful and benign ones.
        options: How.
        judge: Of the answers.
        unsteered: Rollouts of the unsteered model; empty until they are measured or given.
    """

    model: "HookedModel"
    vector: Vector
    prompts: Sequence[Prompt]
    options: DoseOptions
    judge: Judge
    unsteered: Sequence[Rollout] = ()

    def __post_init__(self) -> None:
        self._generator = ModelGenerator(
            self.model,
            self.options.max_new_tokens,
            self.options.temperature,
            self.options.seed,
            self.options.system,
        )
        self._tokens = refusal_token_ids(self.model.tokenizer, self.model.chat.thinking.close)

    @property
    def settings(self) -> dict[str, Any]:
        """What the figures depend on beside prompts, vector and options."""
        return self._generator.settings

    def row(self, cell: Cell) -> dict[str, Any]:
        """All figures of one dose."""
        change = in_force(self.vector, cell, self.options)
        rollouts = answer(self._generator, self.prompts, change, self.judge)
        if not change:
            self.unsteered = rollouts
        place = {field.name: getattr(cell, field.name) for field in fields(cell)}
        return place | outcomes(rollouts) | self._drift(change) | self._refusal_logit(change)

    def _drift(self, change: Sequence[Intervention]) -> dict[str, float]:
        benign = [rollout for rollout in self.unsteered if rollout.harmful is False]
        if not change:
            return _estimate("kl_benign", np.zeros(len(benign)), self.options.seed)
        moved = drift(self.model, benign, change, batch_tokens=self.options.batch_tokens)
        found = _estimate("kl_benign", moved, self.options.seed)
        return found | {"kl_benign_low": max(found["kl_benign_low"], 0.0)}  # NaN stays: a divergence is not negative

    def _refusal_logit(self, change: Sequence[Intervention]) -> dict[str, float]:
        """At the edge of the unsteered model's own harmful rollouts, so that only the change makes a difference."""

        def reduce(logits: Float[Tensor, "batch 1 d_vocab"]) -> Float[Tensor, "batch 1"]:
            return refusal_logit(logits[:, 0], self._tokens)[:, None]

        transcripts = self._harmful_with_edge()
        if not transcripts:
            return _estimate("refusal_logit", np.empty(0), self.options.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingChangedWarning)
            with self.model.intervene(*change):
                read = self.model.logits(transcripts, [EDGE], reduce=reduce, batch_tokens=self.options.batch_tokens)
        return _estimate("refusal_logit", read[:, 0].numpy(), self.options.seed)

    def _harmful_with_edge(self) -> list[Transcript]:
        harmful = [rollout for rollout in self.unsteered if rollout.harmful and rollout.response is not None]
        built = self.model.transcripts(self.options.system).build_all(harmful)
        return [transcript for transcript in built if "close" in transcript.segments]


def outcomes(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Counts and shares of judged rollouts, with Wilson's 95 % intervals.

    A response that the judge gave no verdict on counts in no rate but those of broken answers.
    """
    known = [r for r in rollouts if r.refused is not None or r.response is None or not r.response.strip()]
    found = Behaviour.of(known)
    n, useless = len(rollouts), sum(map(is_useless, rollouts))
    return {
        "n_harmful": found.n_harmful,
        "answered": found.answered,
        **_bounds("asr", found.asr, found.asr_interval),
        "n_benign": found.n_benign,
        "benign_refused": found.refused,
        **_bounds("refusal_benign", found.refusal_benign, found.refusal_benign_interval),
        "unjudged": n - len(known),
        "unclosed": sum(r.response is None for r in rollouts) / n,
        "looping": sum(is_looping(r.thinking or "") or is_looping(r.response or "") for r in rollouts) / n,
        **_bounds("useless", useless / n, proportion_interval(useless, n)),
    }


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raises `CliffscopeError` unless there are harmful and benign prompts, and no others."""
    for prompt in prompts:
        if prompt.harmful is None:
            raise CliffscopeError(
                f"prompt {prompt.id!r}: not known whether it is harmful; say so in a column `harmful`."
            )
    counts = {
        word: sum(prompt.harmful is kind for prompt in prompts) for word, kind in (("harmful", True), ("benign", False))
    }
    for word, count in counts.items():
        if not count:
            raise CliffscopeError(
                f"no {word} prompts: a dose is judged by the harmful prompts answered and the benign ones refused."
            )


def _estimate(name: str, values: Float[np.ndarray, " rollout"], seed: int) -> dict[str, float]:
    mean = float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")
    return _bounds(name, mean, bootstrap_interval(values, seed=seed))


def _bounds(name: str, value: float, interval: Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}
