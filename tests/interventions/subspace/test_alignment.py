"""Distributed alignment search finds what was planted, on prompts that it never saw, and nothing where is nothing."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from interp.errors import CliffscopeError
from interp.models.sites import resid_post
from interp.rollouts import Rollout
from interp.statistics import proportion_interval
from interventions.directions.direction import Direction
from interventions.subspace import Alignment, AlignmentOptions, align_subspace
from tests.circuits.material import organism, organism_rollouts


@cache
def aligned(site: str, k: int = 1) -> Alignment:
    options = AlignmentOptions(k=k, steps=120, n_pairs=40, n_random=20 if site == resid_post(3) and k == 1 else 1)
    return align_subspace(organism("cliff"), organism_rollouts("cliff"), site, options=options)


def test_the_learned_direction_carries_the_outcome_and_random_ones_do_not() -> None:
    found = aligned(resid_post(3))
    assert found.accuracy["das"].value >= 0.95 and found.accuracy["das"].kept >= 0.95
    assert found.accuracy["none"].value == 0 and max(found.random) < 0.2 and len(found.random) == 20
    assert found.accuracy["das"].low > found.accuracy["none"].high
    assert found.losses[-1] < 0.1 < found.losses[0] and len(found.losses) == 10


@pytest.mark.parametrize(("layer", "head"), [(3, 1), (4, 5)])
def test_it_lies_in_the_planted_head(layer: int, head: int) -> None:
    """Learned in the values of all heads of a layer, most of it is in one of eight."""
    direction = aligned(f"blocks.{layer}.attn.hook_z").direction
    shares = direction.vector.square().unflatten(0, (organism("cliff").n_heads, -1)).sum(1)
    assert int(shares.argmax()) == head and float(shares[head]) > 0.5


def test_what_comes_back_is_a_direction_with_its_provenance(tmp_path: object) -> None:
    found = aligned(resid_post(3), k=3)
    direction, model = found.direction, organism("cliff")
    assert (direction.k, direction.method, direction.kind) == (3, "das", "refusal")
    assert (direction.site, direction.layer, direction.position) == (resid_post(3), 3, "close:-1")
    assert direction.fingerprint == model.fingerprint
    assert direction.training["contrast"] == "refused-complied" and direction.training["steps"] == 120
    assert direction.training["n"] == found.n_train and direction.training["n_test"] == found.n_test
    assert direction.training["accuracy"] == found.accuracy["das"].value
    # Rows in order: the first takes all of the difference of the means, and points to the refused ones.
    assert direction.positive is not None and direction.negative is not None
    apart = direction.positive - direction.negative
    assert float(apart[0]) == pytest.approx(direction.scale, rel=1e-4)
    assert float(apart[1:].abs().max()) < 1e-3
    direction.save(str(tmp_path) + "/das.safetensors")
    assert torch.equal(Direction.load(str(tmp_path) + "/das.safetensors").basis, direction.basis)


def test_all_dimensions_are_the_full_value() -> None:
    options = AlignmentOptions(k=organism("cliff").d_model, steps=2, n_pairs=20, n_random=1)
    found = align_subspace(organism("cliff"), organism_rollouts("cliff"), resid_post(4), options=options)
    assert found.accuracy["das"].value == found.accuracy["full"].value == found.random[0]


def test_the_seed_decides_everything() -> None:
    def run(seed: int) -> Alignment:
        options = AlignmentOptions(steps=5, n_pairs=10, n_random=1, seed=seed)
        return align_subspace(organism("cliff"), organism_rollouts("cliff"), resid_post(3), options=options)

    first, again, other = run(0), run(0), run(1)
    assert torch.equal(first.direction.basis, again.direction.basis) and first.losses == again.losses
    assert first.accuracy == again.accuracy
    assert not torch.allclose(first.direction.basis, other.direction.basis)


def with_outcomes(refused: Mapping[str, bool]) -> list[Rollout]:
    return [
        replace(rollout, refused=refused[rollout.id]) for rollout in organism_rollouts("cliff") if rollout.id in refused
    ]


def test_shuffled_outcomes_cannot_be_learned() -> None:
    """What a donor really did does not tell what it is said to have done: about every other interchange is right."""
    harmful = [rollout for rollout in organism_rollouts("cliff") if rollout.harmful and rollout.refused is not None]
    drawn = np.random.default_rng(3).permutation([bool(rollout.refused) for rollout in harmful])
    outcomes = {rollout.id: bool(said) for rollout, said in zip(harmful, drawn, strict=True)}
    options = AlignmentOptions(steps=60, n_pairs=60, n_random=1)
    found = align_subspace(organism("cliff"), with_outcomes(outcomes), resid_post(3), options=options)
    assert 0.25 < found.accuracy["das"].value < 0.75
    assert found.losses[-1] > 0.3


def test_training_and_held_out_prompts_differ() -> None:
    """Prompts that are the same up to case stand on one side: with two rollouts of each, half of them are held out."""
    chosen = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome in ("refused", "complied")]
    twice = [*chosen, *(replace(r, id=f"{r.id}-again", prompt=r.prompt.upper()) for r in chosen)]
    options = AlignmentOptions(steps=1, n_pairs=10, n_random=1)
    found = align_subspace(organism("cliff"), twice, resid_post(3), options=options)
    assert found.n_train % 2 == 0 and found.n_test % 2 == 0 and found.n_train + found.n_test == len(twice)


def test_the_interval_is_wilsons_of_the_smaller_group() -> None:
    found = aligned(resid_post(3))
    held_out_refused = round(found.n_test * 23 / 64)
    for name in ("full", "none"):
        accuracy = found.accuracy[name]
        expected = [proportion_interval(int(accuracy.value * n), n) for n in range(8, 13)]
        assert any((accuracy.low, accuracy.high) == (interval.low, interval.high) for interval in expected)
    assert 8 <= held_out_refused <= 12


def test_the_model_is_as_it_was() -> None:
    model = organism("cliff")
    for parameter in model.hf.parameters():
        parameter.requires_grad_(True)
    before = [parameter.clone() for parameter in model.hf.parameters()]
    options = AlignmentOptions(steps=2, n_pairs=8, n_random=1)
    align_subspace(model, organism_rollouts("cliff"), resid_post(3), options=options)
    for old, parameter in zip(before, model.hf.parameters(), strict=True):
        assert torch.equal(old, parameter) and parameter.requires_grad and parameter.grad is None


def test_few_rollouts_are_refused() -> None:
    chosen = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "refused"][:14]
    chosen += [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "complied"]
    with pytest.raises(CliffscopeError, match=r"side has . rollouts of one group, at least 8 are needed"):
        align_subspace(organism("cliff"), chosen, resid_post(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1, found 0"),
        ({"k": 129, "steps": 1}, r"k is 129, and blocks\.3\.hook_resid_post has width 128"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"learning_rate": 0.0}, "learning rate must be above 0, found 0"),
        ({"learning_rate": float("nan")}, "learning rate must be above 0, found nan"),
    ],
)
def test_bad_options_are_said(options: dict[str, int | float], message: str) -> None:
    with pytest.raises(CliffscopeError, match=message):
        align_subspace(
            organism("cliff"),
            organism_rollouts("cliff"),
            resid_post(3),
            options=AlignmentOptions(**options),  # type: ignore[arg-type]
        )
