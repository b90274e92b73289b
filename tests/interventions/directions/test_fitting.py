"""Directions from rollouts of the organism: what was planted, what a shuffle leaves of it, and what the facts say."""

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.errors import CliffscopeError
from interp.organisms import truth
from interp.rollouts import Rollout
from interp.transcripts.positions import EDGE
from interventions.directions import METHODS, Direction, best_layer, fit_directions
from interventions.directions.contrasts import SITES, examples_of
from interventions.directions.fitting import TEST_FRACTION
from probes.splits import prompt_keys, split_by_prompt
from tests.circuits.material import organism, organism_rollouts


def planted() -> torch.Tensor:
    return torch.tensor(truth("aligned")["direction"])


def shuffled(rollouts: tuple[Rollout, ...], seed: int) -> list[Rollout]:
    """The same rollouts with the labels dealt anew."""
    labels = [rollout.harmful for rollout in rollouts]
    random.Random(seed).shuffle(labels)
    return [replace(rollout, harmful=label) for rollout, label in zip(rollouts, labels, strict=True)]


def test_harmfulness_is_the_planted_direction_and_with_shuffled_labels_it_is_not() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    found = fit_directions(model, rollouts, kind="harmfulness")
    best = found[best_layer(found)]
    assert abs(float(best.vector @ planted())) >= 0.9
    assert best.training["auroc"] >= 0.98
    assert (best.kind, best.position, best.training["contrast"]) == ("harmfulness", "inst", "harmful-benign")
    cosines, areas = [], []
    for seed in range(4):
        null = fit_directions(model, shuffled(rollouts, seed), kind="harmfulness", layers=[best.layer or 0])
        direction = null[best.layer or 0]
        cosines.append(abs(float(direction.vector @ planted())))
        areas.append(direction.training["auroc"])
        assert direction.scale < best.scale / 2
    # Not near 0: a difference of arbitrary groups lies where activations vary most, and here that is what was planted.
    assert max(cosines) < 0.9 and np.mean(cosines) < 0.7 and np.mean(areas) < 0.7, (cosines, areas)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_tells_refused_from_complied_at_the_edge(method: str) -> None:
    found = fit_directions(organism("cliff"), organism_rollouts("cliff"), method=method, layers=[2, 3])
    assert list(found) == [2, 3]
    for layer, direction in found.items():
        assert (direction.layer, direction.site, direction.position) == (layer, f"blocks.{layer}.hook_resid_post", EDGE)
        assert direction.method == method and direction.kind == "refusal"
        assert direction.training["auroc"] > 0.9 and 0 < direction.training["auroc_low"] <= direction.training["auroc"]


def test_a_mean_difference_is_that_of_the_training_prompts_alone() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    found = fit_directions(model, rollouts, kind="harmfulness", layers=[4], seed=3)[4]
    examples = examples_of(model, rollouts, "harmful-benign", ["inst"])
    split = split_by_prompt(examples.labels.numpy(), examples.prompts, TEST_FRACTION, 3)
    values = model.capture(examples.transcripts, ["blocks.4.hook_resid_post"], ["inst"])["blocks.4.hook_resid_post"]
    labels = examples.labels.numpy()
    train = values[:, 0].numpy()[split.train]
    expected = train[labels[split.train] == 1].mean(0) - train[labels[split.train] == 0].mean(0)
    np.testing.assert_allclose(found.vector.numpy() * found.scale, expected, atol=1e-4)
    # And its held-out figure is that of the other prompts: the share of pairs in the right order.
    held = values[:, 0].numpy()[split.test] @ found.vector.numpy()
    order = held[labels[split.test] == 1][:, None] > held[labels[split.test] == 0][None]
    assert found.training["auroc"] == pytest.approx(order.mean())
    assert not set(prompt_keys([examples.prompts[i] for i in split.train])) & set(
        prompt_keys([examples.prompts[i] for i in split.test])
    )


def test_the_facts_say_where_it_comes_from() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    facts = fit_directions(model, rollouts, layers=[1], seed=5)[1].training
    used = [rollout for rollout in rollouts if rollout.outcome in ("refused", "complied")]
    ids = "\x00".join(sorted(rollout.id for rollout in used))
    assert facts["ids_sha256"] == hashlib.sha256(ids.encode()).hexdigest()
    counts = [facts[f"n_{name}"] for name in ("positive", "negative", "test_positive", "test_negative")]
    refused = sum(rollout.outcome == "refused" for rollout in used)
    assert counts[0] + counts[2] == refused and counts[1] + counts[3] == len(used) - refused
    assert facts["skipped"] == {"answered a benign prompt": len(rollouts) - len(used)}
    assert facts["seed"] == 5 and facts["cliffscope"] and facts["contrast"] == "refused-complied"


def test_the_order_of_the_rollouts_changes_nothing_but_rounding() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    one, other = (fit_directions(model, given, layers=[2])[2] for given in (rollouts, rollouts[::-1]))
    torch.testing.assert_close(one.vector, other.vector, atol=1e-5, rtol=0)
    assert one.training["prompts_sha256"] == other.training["prompts_sha256"]


def test_a_fitted_direction_survives_its_file(tmp_path: Path) -> None:
    fitted = fit_directions(organism("cliff"), organism_rollouts("cliff"), layers=[2], method="discriminant")[2]
    fitted.save(tmp_path / "v.safetensors")
    loaded = Direction.load(tmp_path / "v.safetensors")
    assert torch.equal(loaded.basis, fitted.basis) and loaded.training == fitted.training
    loaded.check_model(organism("aligned").fingerprint, "aligned")
    assert best_layer({2: loaded}) == 2


@pytest.mark.parametrize("site", sorted(SITES))
def test_any_site_of_the_models_width(site: str) -> None:
    model = organism("cliff")
    found = fit_directions(model, organism_rollouts("cliff"), kind="harmfulness", layers=[2], site=site)
    if site == "ln_final.hook_out":
        assert list(found) == [model.n_layers - 1] and found[5].site == site
        # The auxiliary loss of the organism's training worked here, on the normalized stream.
        assert abs(float(found[5].vector @ planted())) > 0.9
    else:
        assert found[2].site == f"blocks.2.{site}"
        assert found[2].training["auroc"] > 0.7


def test_pairs_are_rollouts_of_one_prompt_where_there_are_enough() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    assert fit_directions(model, rollouts, method="paired-pca", layers=[2])[2].training["pairing"] == "random"
    # Every prompt once answered and once refused: as different samples of one model would.
    refused = [r for r in rollouts if r.outcome == "refused"]
    complied = [r for r in rollouts if r.outcome == "complied"]
    twins = [
        replace(c, id=f"{c.id}-again", thinking=r.thinking, response=r.response, refused=True)
        for c, r in zip(complied, refused, strict=False)
    ]
    found = fit_directions(model, [*complied, *twins], method="paired-pca", layers=[2])[2]
    assert found.training["pairing"] == "given" and 8 <= found.training["n_pairs"] <= len(twins)


def test_the_deepest_layer_as_good_as_the_best_is_the_best_layer() -> None:
    def judged(area: float, low: float) -> Direction:
        return Direction.of(torch.ones(3), training={"auroc": area, "auroc_low": low})

    assert best_layer({0: judged(0.7, 0.6), 1: judged(0.99, 0.9), 2: judged(0.92, 0.8), 3: judged(0.85, 0.7)}) == 2
    assert best_layer({0: judged(0.9, float("nan")), 1: judged(0.8, float("nan"))}) == 0
    with pytest.raises(CliffscopeError, match="not judged on held-out rollouts of both groups; name the layer"):
        best_layer({})
    with pytest.raises(CliffscopeError, match="not judged on held-out rollouts of both groups; name the layer"):
        best_layer({0: Direction.of(torch.ones(3)), 1: judged(0.8, 0.7)})
    with pytest.raises(CliffscopeError, match="not judged on held-out rollouts of both groups"):
        best_layer({0: judged(float("nan"), float("nan")), 1: judged(0.8, 0.7)})


def test_what_does_not_exist_is_refused() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    with pytest.raises(CliffscopeError, match="no layer 6: the model has layers 0 to 5"):
        fit_directions(model, rollouts, layers=[6])
    examples = examples_of(model, rollouts, "refused-complied", ["inst"])
    with pytest.raises(CliffscopeError, match="expected them at close:-1 alone, found inst"):
        fit_directions(model, examples)
    found = fit_directions(model, examples, position="inst", layers=[-1])
    assert list(found) == [5]
