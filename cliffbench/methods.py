"""The methods under test: each is one function from an instance to `HeadScores`, under a name.

To add one's own:

    @method("largest-norm")
    def largest_norm(instance: Instance) -> HeadScores:
        values = ...                      # [case, layer, head], above 0 where a head suppresses refusal
        return HeadScores.of("largest-norm", instance.model, values, to_explain=1.0)
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from circuits.ablation_scores import refused_logits
from circuits.cases import to_explain
from circuits.exchange import Exchange
from circuits.head_scores import HeadScores
from circuits.joint import greedy
from circuits.rank import RankOptions, rank_heads
from circuits.sweeps.readouts import Readouts
from cliffbench.instances import AT_ONCE, Instance
from interp.errors import CliffscopeError
from interventions.heads import Head

Method = Callable[[Instance], HeadScores]

METHODS: dict[str, Method] = {}
"""By name, in the order of the tables."""

GREEDY_HEADS = 8
"""Most heads that the greedy joint search chooses."""
IG_STEPS = 8


def method(name: str) -> Callable[[Method], Method]:
    """Puts a function among the methods. Raises `CliffscopeError` if the name is taken."""

    def add(function: Method) -> Method:
        if name in METHODS:
            raise CliffscopeError(f"method {name!r}: there is one of that name already.")
        METHODS[name] = function
        return function

    return add


def chosen(names: str | None = None) -> tuple[str, ...]:
    """The methods of a list such as `attribution,ablation`; all if `None`. Raises `CliffscopeError` for others."""
    if names is None:
        return tuple(METHODS)
    wanted = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    if unknown := [name for name in wanted if name not in METHODS]:
        raise CliffscopeError(f"method {unknown[0]!r}: expected some of {', '.join(METHODS)}.")
    return wanted


def _ranked(instance: Instance, **options: Any) -> HeadScores:
    wanted = RankOptions(**options, pairs=instance.sizes.pairs, seed=instance.seed, batch_tokens=AT_ONCE)
    return rank_heads(instance.model, instance.probe, instance.cases, wanted)


@method("attribution")
def attribution(instance: Instance) -> HeadScores:
    """Contributions along the probe's direction, confirmed by ablation."""
    return _ranked(instance, method="attribution")


@method("ablation")
def ablation(instance: Instance) -> HeadScores:
    """Each head zeroed alone, from the edge on."""
    return _ranked(instance, method="ablation")


@method("gradient")
def gradient(instance: Instance) -> HeadScores:
    """Attribution patching."""
    return _ranked(instance, method="gradient")


@method("integrated-gradients")
def integrated_gradients(instance: Instance) -> HeadScores:
    """Attribution patching with the gradient averaged along the way."""
    return _ranked(instance, method="gradient", steps=IG_STEPS)


@method("interchange")
def interchange(instance: Instance) -> HeadScores:
    """Each head exchanged alone between refused and complied rollouts."""
    return _ranked(instance, method="interchange")


@method("shapley")
def shapley(instance: Instance) -> HeadScores:
    """Sets of heads exchanged: Shapley values, named where they form a bottleneck."""
    return _ranked(instance, method="shapley")


@method("greedy-joint")
def greedy_joint(instance: Instance) -> HeadScores:
    """Heads zeroed one after another, each with those before it: chosen on half of the prompts, judged on the rest.

    A chosen head's score is the rise at its turn; that of any other head the rise after all chosen ones.
    """
    model, cases = instance.model, instance.cases
    if cases.nothing is not None:
        return HeadScores.nothing("greedy-joint", model, cases.nothing)
    readouts = Readouts(refusal_tokens=Readouts.of(model).refusal_tokens)
    prompts = cases.prompts("complied")
    drawn = np.random.default_rng(instance.seed).permutation(sorted(set(prompts)))
    ours = set(drawn[: len(drawn) // 2].tolist())
    choosing = [transcript for transcript, text in zip(cases.complied, prompts, strict=True) if text in ours]
    judging = [transcript for transcript, text in zip(cases.complied, prompts, strict=True) if text not in ours]
    found = [step.head for step in greedy(model, choosing, readouts, n=GREEDY_HEADS, batch_tokens=AT_ONCE)]
    every = [Head(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    before = [found[: found.index(head)] if head in found else found for head in every]
    judge = Exchange(model, judging, None, batch_tokens=AT_ONCE)
    logits = judge.of([], *before, *([*others, head] for others, head in zip(before, every, strict=True))).double()
    without, with_head = logits[1:].split(len(every))
    rise = (with_head - without).T.unflatten(1, (model.n_layers, model.n_heads)).numpy()
    return HeadScores.of(
        "greedy-joint",
        model,
        rise,
        to_explain=to_explain(logits[0], refused_logits(model, cases, readouts)),
        clusters=[text for text in prompts if text not in ours],
        facts={"chosen": [str(head) for head in found]},
        seed=instance.seed,
    )
