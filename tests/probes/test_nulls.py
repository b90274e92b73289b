"""Nulls: each world is made as it says, p̂ is what it says, and what a null shows too is called that."""

import math
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.reinitialized import reinitialized
from interp.null_runs import MAX_P, NULLS, NullRuns
from interp.rollouts import Rollout
from interp.transcripts.positions import EDGE
from probes.cliff import STATISTIC
from probes.cliff_run import mean_cliff_of, measure_cliff
from probes.examples import Examples
from probes.model_sweep import fit_probe
from probes.nulls import (
    AUROC,
    AUROC_BY_CATEGORY,
    World,
    auroc_of,
    benign_as_complied,
    make_null,
    random_probe,
    run_null,
    shuffled_outcomes,
)
from probes.sweep import SweepOptions
from tests.architectures import random_model
from tests.circuits.material import PROBE_LAYER, organism, organism_probe, organism_rollouts

GIVEN = {"layer_choice": "given"}


@cache
def few(name: str = "cliff", each: int = 12) -> tuple[Rollout, ...]:
    """A few rollouts of each outcome."""
    rollouts = organism_rollouts(name)
    return tuple(
        rollout
        for outcome in ("complied", "refused", "benign")
        for rollout in [rollout for rollout in rollouts if rollout.outcome == outcome][:each]
    )


def world(name: str = "cliff") -> World:
    return World(organism(name), few(name), organism_probe(name).at(training=GIVEN))


def told(values: tuple[float, ...], observed: float = 0.9) -> NullRuns:
    return NullRuns("random-weights", "mean cliff", observed, values)


# The figure beside the finding.


@given(
    observed=st.integers(-3, 3).map(float),
    values=st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=60).map(tuple),
)
def test_p_counts_the_runs_that_reach_the_observed(observed: float, values: tuple[float, ...]) -> None:
    found = told(values, observed)
    beaten = sorted([*values, observed], reverse=True)
    # The observed stands among its equals: its rank from above, ties against it.
    assert found.p == pytest.approx((len(beaten) - beaten[::-1].index(observed)) / len(beaten))
    assert found.p >= found.smallest_p == 1 / (len(values) + 1)
    assert found.shown == (found.p > MAX_P and max(values) >= observed)
    assert found.stands == (found.p <= MAX_P) and not (found.stands and found.shown)
    assert NullRuns.of_summary(found.summary()) == found


def test_p_is_uniform_where_the_observed_is_one_of_the_null() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 20)).tolist()
    p = np.array([NullRuns("shuffled", "x", row[0], tuple(row[1:])).p for row in draws])
    assert np.mean(p <= MAX_P) == pytest.approx(0.05, abs=0.012)
    assert p.mean() == pytest.approx(21 / 40, abs=0.02)


def test_the_sentence_says_whether_the_null_shows_as_much() -> None:
    stands = told((0.1,) * 19)
    assert (
        stands.stands and "Against random weights: mean cliff 0.9 here, 0.1 in the mean of 19 runs" in stands.sentence
    )
    shown = told((0.1,) * 18 + (0.95,))
    assert shown.shown and shown.p == 0.1
    assert shown.sentence.startswith("Random weights show as much: mean cliff 0.9 here")
    assert shown.sentence.endswith("By this null it is no finding.")
    unclear = told((0.1,) * 9)
    assert not unclear.shown and not unclear.stands
    assert "at least 19 are needed to tell" in unclear.sentence
    none = told((0.1,), math.nan)
    assert math.isnan(none.p) and not none.shown and not none.stands
    assert none.sentence == "No mean cliff was found, so there is nothing to set against random weights."
    assert NullRuns.of_summary(none.summary()).summary() == none.summary()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: NullRuns("labels", "x", 1.0, (0.0,)), "null 'labels': expected one of shuffled, random-weights"),
        (lambda: NullRuns("benign", "x", 1.0, ()), "expected at least one run"),
        (lambda: NullRuns("benign", "AUROC", 1.0, (0.0, math.nan)), "a run has no AUROC"),
        (lambda: make_null("labels", world(), 0), "expected one of"),
        (lambda: run_null("benign", world(), lambda w: {"x": 0.0}, runs=0), "at least one run, found 0"),
        (lambda: make_null("random-direction", replace(world(), probe=None), 0), "there is no probe"),
        (
            lambda: make_null("random-weights", replace(world(), rollouts=few()[:12]), 0),
            "null random-weights: the probe cannot be fitted anew: one class only",
        ),
        (lambda: make_null("benign", replace(world(), rollouts=few()[:25]), 0), "1 benign prompts were answered"),
        (lambda: make_null("shuffled", replace(world(), rollouts=few()[:12]), 0), "no two prompts differ in theirs"),
    ],
)
def test_what_cannot_be_made_is_refused(made, says) -> None:
    with pytest.raises(CliffscopeError, match=says):
        made()


def test_runs_are_seeded_one_after_the_other_and_a_run_without_a_figure_is_none() -> None:
    seen: list[World] = []
    done: list[int] = []

    def analysis(given: World) -> dict[str, float]:
        seen.append(given)
        return {"a": float(len(seen)), "b": math.nan if len(seen) == 2 else 0.0, "c": math.nan}

    observed = {"a": 9.0, "b": 1.0, "c": 1.0}
    found = run_null("benign", world(), analysis, observed, runs=3, seed=5, advance=done.append)
    assert [(one.statistic, one.values) for one in found] == [("a", (1.0, 2.0, 3.0)), ("b", (0.0, 0.0))]
    assert [one.rollouts for one in seen] == [benign_as_complied(few(), seed) for seed in (5, 6, 7)]
    assert done == [1, 1, 1]
    assert run_null("benign", world(), lambda w: {"n": len(w.rollouts)}, runs=1)[0].observed == len(few())


# The worlds.


def test_shuffled_outcomes_keep_their_counts_and_a_prompts_rollouts_together() -> None:
    pairs = [
        Rollout(f"{number}-{turn}", f"Prompt {number}", "", "x", number % 2 == 0, "kind", number < 4)
        for number in range(12)
        for turn in range(2)
    ]
    single = [Rollout(f"s{number}", f"single {number}", "", "x", True, "kind", number < 3) for number in range(9)]
    unjudged = [Rollout("u", "unjudged", "", None, True, "kind")]
    rollouts = [*pairs, *single, *unjudged]
    dealt = shuffled_outcomes(rollouts, 0)
    assert dealt == shuffled_outcomes(rollouts, 0) and dealt != shuffled_outcomes(rollouts, 1)
    assert Counter(r.outcome for r in dealt) == Counter(r.outcome for r in rollouts)
    assert dealt[-1] == unjudged[0]
    for group in (slice(0, 24), slice(24, 33)):  # prompts with two rollouts trade with each other, and so do the others
        assert Counter(r.outcome for r in dealt[group]) == Counter(r.outcome for r in rollouts[group])
    for first, second in zip(dealt[:24:2], dealt[1:24:2], strict=True):
        assert (first.harmful, first.refused) == (second.harmful, second.refused)
    plain = [replace(r, harmful=None, refused=None) for r in dealt]
    assert plain == [replace(r, harmful=None, refused=None) for r in rollouts]


def test_any_prompt_gets_any_outcome() -> None:
    rollouts = [Rollout(f"{n}", f"p{n}", "", "x", True, None, n == 0) for n in range(6)]
    drawn = Counter(
        next(i for i, r in enumerate(shuffled_outcomes(rollouts, seed)) if r.refused) for seed in range(300)
    )
    assert len(drawn) == 6 and max(drawn.values()) < 90


def test_half_of_the_benign_take_the_place_of_the_complied() -> None:
    made = benign_as_complied(few(), 0)
    counts = Counter(rollout.outcome for rollout in made)
    assert counts == {"complied": 6, "refused": 12, "benign": 6}
    taken = {rollout.id for rollout in made if rollout.outcome == "complied"}
    assert taken <= {rollout.id for rollout in few() if rollout.outcome == "benign"}
    assert taken != {rollout.id for rollout in benign_as_complied(few(), 1) if rollout.outcome == "complied"}
    # No more than there were complied ones.
    less = [rollout for rollout in few() if rollout.outcome != "complied"] + list(few()[:2])
    assert Counter(rollout.outcome for rollout in benign_as_complied(less, 0))["complied"] == 2


def test_a_random_direction_has_the_length_of_the_probe_and_the_middle_of_the_classes() -> None:
    given = world()
    assert given.probe is not None
    made = random_probe(given, given.probe, 0)
    assert float(made.weight.norm()) == pytest.approx(float(given.probe.weight.norm()), rel=1e-5)
    assert (made.site, made.position, made.layer) == (given.probe.site, given.probe.position, given.probe.layer)
    examples = Examples.of(given.model, given.rollouts, [EDGE])
    logits = made.logit(examples.activations(given.model, [PROBE_LAYER], 8192)[0, :, 0])
    refused, benign = (float(logits[examples.labels == label].mean()) for label in (1, 0))
    assert refused > 0 and refused == pytest.approx(-benign, abs=1e-3)
    assert torch.equal(made.weight, random_probe(given, given.probe, 0).weight)
    cosines = [float(random_probe(given, given.probe, seed).direction @ given.probe.direction) for seed in range(40)]
    # Turned towards refusing, but not along the probe: of 128 dimensions one.
    assert abs(np.mean(cosines)) < 0.1 and np.std(cosines) < 0.2


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_random_weights_are_of_the_same_architecture_and_leave_the_model_alone(name: str) -> None:
    model = HookedModel(random_model(name), name=name)
    before = {key: value.clone() for key, value in model.hf.state_dict().items()}
    state = torch.get_rng_state()
    made, again, other = reinitialized(model, 0), reinitialized(model, 0), reinitialized(model, 1)
    assert torch.equal(state, torch.get_rng_state())
    assert made.fingerprint == model.fingerprint and made.dtype == model.dtype and not made.hf.training
    assert made.name == f"{name} (random weights 0)"
    drawn = made.hf.state_dict()
    matrices = [key for key, value in before.items() if value.ndim > 1 and value.is_floating_point()]
    assert matrices and all(torch.equal(before[key], value) for key, value in model.hf.state_dict().items())
    for key in matrices:
        assert not torch.equal(drawn[key], before[key]), key
        assert torch.equal(drawn[key], again.hf.state_dict()[key]) and not torch.equal(
            drawn[key], other.hf.state_dict()[key]
        )
        assert drawn[key].data_ptr() != model.hf.state_dict()[key].data_ptr()


def test_random_weights_keep_precision_tokenizer_and_chat() -> None:
    source = organism("aligned")
    model = HookedModel(random_model("qwen3").to(torch.bfloat16), source.tokenizer)
    model.chat = source.chat
    made = reinitialized(model)
    assert made.dtype == torch.bfloat16 and made.tokenizer is model.tokenizer and made.chat is source.chat


@pytest.mark.parametrize(
    ("attribute", "holder", "says"),
    [
        ("quantization_config", "config", "is quantized and cannot be initialized anew"),
        ("peft_config", None, "has no initialization of its own"),
    ],
)
def test_weights_without_an_initialization_are_refused(attribute: str, holder: str | None, says: str) -> None:
    model = HookedModel(random_model("llama"))
    setattr(model.hf if holder is None else getattr(model.hf, holder), attribute, {"bits": 4})
    with pytest.raises(CliffscopeError, match=says):
        reinitialized(model)


def test_the_probe_is_fitted_anew_by_the_search_that_made_it() -> None:
    given = replace(world(), probe=organism_probe("cliff"))  # how its layer was chosen is not known: by search
    searched, fixed = make_null("random-weights", given, 0).probe, make_null("random-weights", world(), 0).probe
    assert searched is not None and fixed is not None
    assert searched.training["layer_choice"] == "auto" and fixed.training["layer_choice"] == "given"
    assert fixed.layer == PROBE_LAYER and fixed.model == "organism:cliff (random weights 0)"
    examples = Examples.of(reinitialized(organism("cliff"), 0), few(), [EDGE])
    options = SweepOptions(n_shuffles=0, category_folds=0)
    expected, _ = fit_probe(reinitialized(organism("cliff"), 0), examples, layer="auto", options=options)
    assert searched.layer == expected.layer and torch.equal(searched.weight, expected.weight)


# Findings, true and false.


@pytest.mark.slow
@pytest.mark.parametrize("null", sorted(NULLS))
def test_the_planted_cliff_stands_against_every_null(null: str) -> None:
    given = world()
    assert given.probe is not None
    (found,) = run_null(null, given, mean_cliff_of())
    assert found.observed > 0.9 and found.p == 0.05 and found.stands, found.sentence
    cliff = measure_cliff(given.model, given.probe, given.rollouts, n_shuffles=0, by_layer=False)
    assert found.statistic == STATISTIC and found.observed == pytest.approx(cliff.mean)
    with_null = replace(cliff, nulls=(found,))
    assert with_null.verdict == "cliff" and f"Against {NULLS[null]}" in with_null.evidence
    assert with_null.summary()["nulls"] == [found.summary()]


def test_a_cliff_that_its_null_shows_too_is_none() -> None:
    given = world()
    assert given.probe is not None
    cliff = measure_cliff(given.model, given.probe, given.rollouts, n_shuffles=0, by_layer=False)
    found = replace(cliff, nulls=(NullRuns("benign", STATISTIC, cliff.mean, (0.999,) * 19),))
    assert cliff.verdict == "cliff" and found.verdict == "no cliff"
    assert "benign rollouts in place of complied ones show as much: mean cliff" in found.evidence


def test_same_seed_same_figures() -> None:
    first, second = (run_null("random-direction", world(), mean_cliff_of(), runs=2, seed=3) for _ in range(2))
    assert first == second
    assert first[0].values != run_null("random-direction", world(), mean_cliff_of(), runs=2, seed=9)[0].values


def separated_by_text() -> tuple[Rollout, ...]:
    """Rollouts whose outcome one word of the thinking tells, whatever a model makes of it."""
    words = {"refused": "should refuse", "benign": "should help"}
    chosen = [rollout for rollout in organism_rollouts("aligned") if rollout.outcome in words]
    return tuple(replace(rollout, thinking=f"I {words[rollout.outcome]}") for rollout in chosen)


def test_a_probe_of_the_text_is_called_what_it_is() -> None:
    """AUROC 1 on held-out prompts and on held-out categories, and random weights reach it too."""
    given = World(organism("aligned"), separated_by_text())
    found = run_null("random-weights", given, auroc_of("think:1", 2, "logistic", SweepOptions(), True), runs=3)
    assert [one.statistic for one in found] == [AUROC, AUROC_BY_CATEGORY]
    for one in found:
        assert one.observed == 1.0 and one.shown, one.sentence
        assert one.sentence.startswith("Random weights show as much")


def test_a_probe_of_what_the_model_knows_is_not_matched() -> None:
    """At the instruction's last token only what the model made of the prompt can tell."""
    given = World(organism("cliff"), organism_rollouts("cliff"))
    found = run_null("random-weights", given, auroc_of("inst", 3, "logistic", SweepOptions(), True), runs=2)
    for one in found:
        assert one.observed > 0.95 and max(one.values) < 0.8 and not one.shown


def test_a_random_direction_is_judged_where_the_probe_was() -> None:
    probe, _ = fit_probe(organism("cliff"), Examples.of(organism("cliff"), few(), [EDGE]), layer=PROBE_LAYER)
    given = World(organism("cliff"), few(), probe)
    analysis = auroc_of(EDGE, PROBE_LAYER, "logistic", SweepOptions(), False)
    assert analysis(given)[AUROC] == pytest.approx(probe.training["auroc"])
    (found,) = run_null("random-direction", given, analysis, runs=6)
    assert 0.4 < np.mean(found.values) < 1.0
