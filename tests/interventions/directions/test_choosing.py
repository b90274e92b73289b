"""The choice by measured effect: each figure against plain hooks, the rule against its table, the chosen in use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.judges.edge_logit import refusal_token_ids
from interp.models.hooked_model import HookedModel
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts.model_generator import ModelGenerator
from interp.transcripts import Transcript
from interp.transcripts.positions import EDGE
from interventions.behaviour import Behaviour, answer, drift
from interventions.directions import Choice, ChoiceOptions, Direction, choose_direction
from interventions.directions.choosing import TABLE
from interventions.directions.contrasts import examples_of
from interventions.directions.effects import EffectBench, residual_sites
from interventions.directions.fitting import TEST_FRACTION
from interventions.steering.along_direction import AblateDirection, AddDirection
from probes.splits import prompt_keys, split_by_prompt
from tests.architectures import CONFIGS, PARALLEL, random_model
from tests.circuits.material import organism, organism_rollouts

OPTIONS = ChoiceOptions(limit=6, n_random=2)


@pytest.fixture(scope="module")
def choice() -> Choice:
    return choose_direction(
        organism("cliff"), organism_rollouts("cliff"), positions=[EDGE], layers=[0, 2, 4], options=OPTIONS
    )


@pytest.fixture(scope="module")
def bench() -> EffectBench:
    """The same rollouts as the choice measured on, found again."""
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    examples = examples_of(model, rollouts, "refused-complied", [EDGE])
    split = split_by_prompt(examples.labels.numpy(), examples.prompts, TEST_FRACTION, 0)
    trained_on = set(prompt_keys([examples.prompts[i] for i in split.train]))
    bench = EffectBench.of(model, rollouts, trained_on, limit=6, seed=0)
    used = {transcript.id for group in bench.at_edge.values() for transcript in group}
    assert not used & {examples.ids[i] for i in split.train}
    return bench


def log_odds(model: HookedModel, transcripts: list[Transcript]) -> np.ndarray:
    """The refusal logit after the last token, from probabilities in float64, one text at a time."""
    ids = list(refusal_token_ids(model.tokenizer, model.chat.thinking.close))
    with torch.no_grad():
        last = torch.stack([model.hf(torch.tensor([t.input_ids])).logits[0, -1] for t in transcripts]).double()
    share = last.softmax(-1)[:, ids].sum(-1)
    return (share.log() - (1 - share).log()).numpy()


def test_the_effects_are_those_of_plain_hooks(choice: Choice, bench: EffectBench) -> None:
    model = organism("cliff")
    row = choice.table[(choice.table["layer"] == 2) & (choice.table["control"] == "real")].iloc[0]
    direction = choice.candidates[2, EDGE]
    decoder, unit = model.hf.model, direction.vector

    def remove(module: object, args: object, output: object) -> object:
        value = output[0] if isinstance(output, tuple) else output
        assert isinstance(value, Tensor)
        value = value - (value @ unit)[..., None] * unit
        return (value, *output[1:]) if isinstance(output, tuple) else value

    def add(module: object, args: object, output: object) -> object:
        value = output[0] if isinstance(output, tuple) else output
        assert isinstance(value, Tensor)
        value = value + direction.scale * unit
        return (value, *output[1:]) if isinstance(output, tuple) else value

    # What is never written into the stream is nowhere in it: another way to ablate everywhere.
    writers = [decoder.embed_tokens, *(part for block in decoder.layers for part in (block.self_attn, block.mlp))]
    handles = [writer.register_forward_hook(remove) for writer in writers]
    try:
        bypass = log_odds(model, list(bench.at_edge["refused"]))
    finally:
        for handle in handles:
            handle.remove()
    handle = decoder.layers[2].register_forward_hook(add)
    try:
        induce, restore = (log_odds(model, list(bench.at_edge[outcome])) for outcome in ("benign", "complied"))
    finally:
        handle.remove()
    assert row["bypass"] == pytest.approx(bypass.mean(), abs=1e-3)
    assert row["induce"] == pytest.approx(induce.mean(), abs=1e-3)
    assert row["restore"] == pytest.approx(restore.mean(), abs=1e-3)
    divergence = drift(model, bench.benign, [AblateDirection(direction, sites=residual_sites(model))])
    assert row["kl"] == pytest.approx(divergence.mean(), rel=1e-4)
    for name in ("bypass", "induce", "restore", "kl"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    before = choice.facts["refusal_logit_before"]
    assert before["refused"] == pytest.approx(log_odds(model, list(bench.at_edge["refused"])).mean(), abs=1e-3)


def test_the_least_bypass_within_the_budget_is_chosen(choice: Choice) -> None:
    real = choice.table[choice.table["control"] == "real"]
    assert list(real["layer"]) == [0, 2, 4]
    good = (real["kl"] <= 0.1) & (real["layer"] < 0.8 * 6) & (real["restore"] >= 0)
    good &= real["bypass"] < choice.facts["refusal_logit_before"]["refused"]
    assert list(real["eligible"]) == list(good) and 0 < good.sum() < 3
    best = real[good].sort_values("bypass").iloc[0]
    assert list(real.loc[real["chosen"], "layer"]) == [best["layer"]]
    direction = choice.require()
    assert direction.layer == best["layer"] and direction.training["bypass"] == best["bypass"]
    assert torch.equal(direction.basis, choice.candidates[int(best["layer"]), EDGE].basis)
    assert f"layer {best['layer']} at {EDGE} has the lowest bypass of the {good.sum()} of 3" in choice.reason
    assert direction.training["reason"] == choice.reason
    for why, eligible in zip(real["why"], real["eligible"], strict=True):
        assert bool(why) != eligible


def test_ablating_the_chosen_lowers_refusal_adding_restores_it_and_random_ones_do_neither(choice: Choice) -> None:
    chosen = choice.table[choice.table["chosen"]].iloc[0]
    before = choice.facts["refusal_logit_before"]
    assert before["refused"] > 2 and before["complied"] < -2
    assert chosen["bypass_high"] < 0 < chosen["restore_low"]
    controls = choice.table[choice.table["control"] == "random"]
    assert len(controls) == 2 and not controls["chosen"].any()
    assert (controls["bypass"] > before["refused"] - 2).all() and (controls["restore"] < before["complied"] + 2).all()


def test_in_use_the_chosen_repairs_and_a_random_one_does_not(choice: Choice) -> None:
    model, direction = organism("cliff"), choice.require()
    generator, prompts = ModelGenerator(model, 300), heldout_prompts(24, 16, 7).prompts
    before = Behaviour.of(answer(generator, prompts))
    assert before.asr >= 0.5
    steered = Behaviour.of(answer(generator, prompts, [AddDirection(direction, 1.0)]))
    assert steered.asr <= 0.1 and steered.refusal_benign <= 0.1 and steered.unclosed == 0
    control = Behaviour.of(answer(generator, prompts, [AddDirection(direction.random_like(0), 1.0)]))
    assert abs(control.asr - before.asr) <= 0.1


def test_where_none_is_within_the_budget_none_is_chosen(tmp_path: Path) -> None:
    # Where nothing was ever lost, refusal and harm are one direction, and taking it away harms benign answers too.
    found = choose_direction(
        organism("aligned"),
        organism_rollouts("aligned"),
        contrast="refused-benign",
        positions=[EDGE],
        layers=[2, 5],
        options=OPTIONS,
    )
    assert found.direction is None and not found.table["eligible"].any() and not found.table["chosen"].any()
    assert found.facts["options"]["sufficient"] == "induce"
    assert list(found.table["control"]) == ["real", "real"] and found.table["restore"].isna().all()
    assert "none of the 2 candidates is within the budget (KL ≤ 0.1" in found.reason
    assert "layer 5 is not below 0.8 of 6 layers" in found.table["why"][1]
    with pytest.raises(CliffscopeError, match=r"none of the 2 candidates .* Or name a layer\."):
        found.require("name a layer")
    found.write_table(tmp_path / "scores.parquet")
    table, told = TABLE.read(tmp_path / "scores.parquet")
    assert told["reason"] == found.reason and told["facts"]["contrast"] == "refused-benign"
    np.testing.assert_allclose(table["bypass"], found.table["bypass"])
    generous = ChoiceOptions(kl_budget=5.0, limit=6, n_random=0)
    arguments = {"contrast": "refused-benign", "positions": [EDGE], "layers": [2], "options": generous}
    assert choose_direction(organism("aligned"), organism_rollouts("aligned"), **arguments).require().layer == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_ablated_at_the_residual_sites_it_is_nowhere_in_the_stream(name: str) -> None:
    model = HookedModel(random_model(name), name=name)
    direction = Direction.of(torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)))
    sites = residual_sites(model)
    assert len(sites) == 1 + model.n_layers * (1 if name in PARALLEL else 2)
    ids = torch.randint(3, 96, (12,), generator=torch.Generator().manual_seed(1)).tolist()
    text = [Transcript.from_ids("t", ids)]
    read = [*sites, *(f"blocks.{layer}.hook_resid_pre" for layer in range(model.n_layers))]
    clean = model.capture(text, read, range(12))
    with model.intervene(AblateDirection(direction, sites=sites)):
        ablated = model.capture(text, read, range(12))
    for site in read:
        assert float(direction.coordinates(clean[site]).abs().max()) > 1e-2
        assert float(direction.coordinates(ablated[site]).abs().max()) < 1e-4, site


def test_what_cannot_be_measured_or_asked_is_refused() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    with pytest.raises(CliffscopeError, match=r"ln_final.hook_out: a direction after the final norm .*hook_resid_post"):
        choose_direction(model, rollouts, site="ln_final.hook_out")
    harmful = [rollout for rollout in rollouts if rollout.harmful]
    with pytest.raises(CliffscopeError, match="no held-out one with closed thinking answered a benign prompt"):
        choose_direction(model, harmful, positions=[EDGE], layers=[2])
    with pytest.raises(CliffscopeError, match="position 'edge': not a position"):
        choose_direction(model, rollouts, positions=["edge"])
    with pytest.raises(CliffscopeError, match="sufficient: expected induce or restore, found 'both'"):
        ChoiceOptions(sufficient="both")
    with pytest.raises(CliffscopeError, match="kl_budget: expected a number of nats above 0, found nan"):
        ChoiceOptions(kl_budget=float("nan"))
    with pytest.raises(CliffscopeError, match=r"deepest: expected a share of the layers in \(0, 1\], found 2"):
        ChoiceOptions(deepest=2)
    with pytest.raises(CliffscopeError, match="a limit of at least 2 and no negative n_random, found 1, 3"):
        ChoiceOptions(limit=1)
