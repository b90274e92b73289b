"""Instances: an organism made ready under test, as a user of the product would make it ready.

The organism answers held-out prompts, the answers are judged, a probe is fitted at the edge by the product's defaults,
the cliff is measured, and cases are chosen. The seed draws the prompts, and with fresh planting the mechanism too: it
is planted anew into the shipped base. What takes long (planting, answers) is kept on disk, so that a killed run goes
on.

A control answers no harmful prompt, so there would be nothing to search. It is given the rollouts of `cliff` on the
same prompts instead, as if they were its own: the search is then the one that found something there, and whatever it
finds here is not there (as in "dead salmons", arXiv 2512.18792, whose null is another model put through the same
search).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from circuits.cases import Cases
from cliffbench.planting import heldout, organism_of
from cliffbench.truth import Truth
from interp.errors import CliffscopeError
from interp.judges import KeywordJudge, judged
from interp.models.capture import BATCH_TOKENS
from interp.models.hooked_model import HookedModel
from interp.organisms.prompt_set import as_prompt_set
from interp.rollouts import Rollout, read_rollouts, write_rollouts
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.transcripts.positions import EDGE
from probes.cliff import MIN_ROLLOUTS, Cliff
from probes.cliff_run import measure_cliff
from probes.examples import Examples
from probes.linear import LinearProbe
from probes.model_sweep import fit_probe

LENDER = "cliff"
"""The organism whose rollouts controls are given."""
MAX_NEW_TOKENS = 300
AT_ONCE = 16 * BATCH_TOKENS
"""Token budget of a batch: these models are tiny, and the time goes by passes, not by rows."""


@dataclass(frozen=True)
class Sizes:
    """How much an instance rests on.

    Attributes:
        n_harmful, n_benign: Held-out prompts that are answered for the search.
        n_test: More harmful, and as many benign, on which masks are tried; none of them is searched.
        n_shuffles: Probes on shuffled labels behind the verdict.
        pairs: Of rollouts, between which values are exchanged.
    """

    n_harmful: int = 128
    n_benign: int = 80
    n_test: int = 64
    n_shuffles: int = 39
    pairs: int = 120

    def with_prompts(self, n_harmful: int) -> "Sizes":
        """As many harmful prompts, and the others in proportion."""
        share = n_harmful / self.n_harmful
        return replace(
            self,
            n_harmful=n_harmful,
            n_benign=max(MIN_ROLLOUTS, round(share * self.n_benign)),
            n_test=max(MIN_ROLLOUTS, round(share * self.n_test)),
            pairs=max(MIN_ROLLOUTS, round(share * self.pairs)),
        )


@dataclass(frozen=True, eq=False)
class Instance:
    """An organism under test.

    Attributes:
        organism: Its name.
        seed: Of prompts, fits and searches; with fresh planting of the mechanism too.
        model: The organism.
        truth: What is known about it.
        rollouts: Judged rollouts for the search.
        own: Whether they are the organism's own.
        test: Prompts on which masks are tried.
        probe: Fitted by the product's defaults.
        cliff: Measured with it.
        cases: What methods are given.
        sizes: How much this rests on.
    """

    organism: str
    seed: int
    model: HookedModel
    truth: Truth
    rollouts: tuple[Rollout, ...]
    own: bool
    test: tuple[Prompt, ...]
    probe: LinearProbe
    cliff: Cliff
    cases: Cases
    sizes: Sizes = field(default_factory=Sizes)

    @classmethod
    def of(
        cls,
        model: HookedModel,
        truth: Truth,
        rollouts: Sequence[Rollout],
        test: Sequence[Prompt],
        *,
        own: bool = True,
        seed: int = 0,
        sizes: Sizes | None = None,
    ) -> "Instance":
        """Fits the probe, measures the cliff and chooses the cases, all by the product's defaults.

        Raises:
            CliffscopeError: If the rollouts do not allow a probe.
        """
        sizes = sizes or Sizes()
        probe, _ = fit_probe(model, Examples.of(model, rollouts, [EDGE]))
        cliff = measure_cliff(model, probe, rollouts, n_shuffles=sizes.n_shuffles, by_layer=False, seed=seed)
        cases = Cases.of(model, probe, rollouts, seed=seed)
        return cls(truth.name, seed, model, truth, tuple(rollouts), own, tuple(test), probe, cliff, cases, sizes)

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What several scores ask for, and is computed once: by a key of the one who computed it."""
        return {}


def prepare(organism: str, seed: int, folder: str | os.PathLike[str], *, fresh: bool, sizes: Sizes) -> Instance:
    """Makes an organism ready.

    Args:
        organism: A shipped organism's name.
        seed: See `Instance`.
        folder: Where planted weights and rollouts are kept.
        fresh: Whether the mechanism is planted anew with this seed; else the shipped weights are used.
        sizes: How much it rests on.

    Raises:
        CliffscopeError: If there is no such organism, or its rollouts do not allow a probe.
    """
    home = Path(folder)
    model, facts = organism_of(organism, seed, home, fresh=fresh)
    truth = Truth.of(facts)
    prompts, test = _prompts(organism, seed, sizes)
    rollouts = _answers(model, prompts, home / f"rollouts-{organism}-{seed}.jsonl")
    complied = sum(rollout.outcome == "complied" for rollout in rollouts)
    own = not truth.control or complied >= MIN_ROLLOUTS
    if not own:
        lender, _ = organism_of(LENDER, seed, home, fresh=False)
        rollouts = _answers(lender, prompts, home / f"rollouts-{LENDER}-shipped-{seed}.jsonl")
    return Instance.of(model, truth, rollouts, test, own=own, seed=seed, sizes=sizes)


def _prompts(organism: str, seed: int, sizes: Sizes) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts for the search, and others for trying masks."""
    search: list[Prompt] = []
    test: list[Prompt] = []
    for kind, n in (("harmful", sizes.n_harmful), ("benign", sizes.n_benign)):
        drawn = list(as_prompt_set(heldout(organism, kind, n + sizes.n_test, seed)))
        # Not in the order in which they were drawn: a mechanism may put those that it acts on first.
        order = np.random.default_rng(seed).permutation(len(drawn))
        search += [drawn[place] for place in order[:n]]
        test += [drawn[place] for place in order[n:]]
    return search, test


def _answers(model: HookedModel, prompts: Sequence[Prompt], path: Path) -> list[Rollout]:
    """Judged rollouts, from the file if it is there."""
    if path.is_file():
        found = read_rollouts(path)
        if [rollout.prompt for rollout in found] == [prompt.text for prompt in prompts]:
            return found
        raise CliffscopeError(f"{path}: rollouts of other prompts; give another folder or remove the file.")
    generator = ModelGenerator(model, MAX_NEW_TOKENS, batch_tokens=AT_ONCE)
    rollouts = list(judged(generator.generate(prompts), KeywordJudge()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rollouts(path, rollouts)
    return rollouts
