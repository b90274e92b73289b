"""The subspace check: an illusion that was built in is flagged, the planted direction passes."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.sites import Site, resid_post
from interp.organisms import truth
from interventions.directions.direction import Direction
from interventions.subspace import InterchangeSubspace, SubspaceCheck, check_subspace
from interventions.subspace.check import Effect, contrast_for, effects_of
from interventions.subspace.site_passes import site_pass, values_at
from tests.architectures import random_model
from tests.circuits.material import organism, organism_rollouts
from tests.interventions.subspace.material import LAYER, Marks, at, blind_organism, difference, groups

PAIRS = 40


@cache
def built_in(which: str) -> SubspaceCheck:
    """Checks in an organism whose last layer writes onto an unread direction how the groups differ."""
    model, blind, dormant = blind_organism()
    vector = {"illusion": blind + dormant, "blind": blind, "mean difference": difference(LAYER) + 5 * blind}[which]
    with model.intervene(Marks(difference(LAYER), blind, 1.0)):
        return check_subspace(model, at(LAYER, vector), organism_rollouts("cliff"), n_pairs=PAIRS)


@cache
def planted(layer: int) -> SubspaceCheck:
    direction = at(layer, torch.tensor(truth("aligned")["direction"]))
    return check_subspace(organism("cliff"), direction, organism_rollouts("cliff"), n_pairs=PAIRS)


def test_a_direction_half_in_the_readers_null_space_is_flagged() -> None:
    found = built_in("illusion")
    effects = found.effects
    assert effects["direction"].mean > 5 and effects["direction"].p < 0.001
    assert found.read_share == pytest.approx(0.5, abs=0.02)
    assert found.unread_difference == pytest.approx(1, abs=0.05)
    assert abs(effects["read"].share) < 0.1 and abs(effects["unread"].share) < 0.1
    assert found.verdict == "illusion"
    assert found.words.startswith("Illusion: a dormant path carries it: ")
    assert f"{effects['direction'].mean:.2f} nats" in found.words and "of the groups' difference" in found.words


def test_what_is_not_read_does_little_alone() -> None:
    found = built_in("blind")
    assert found.read_share < 0.01
    assert abs(found.effects["direction"].mean) < 0.05 * found.effects["full"].mean
    assert found.verdict == "undecided"


def test_a_mean_difference_keeps_its_effect_though_half_of_it_is_not_read() -> None:
    found = built_in("mean difference")
    assert 0.3 < found.unread_difference < 0.7
    assert found.verdict == "faithful"


@pytest.mark.parametrize("layer", [4, 5])
def test_the_planted_direction_passes(layer: int) -> None:
    """Behind the planted heads, which write against it."""
    found = planted(layer)
    assert found.effects["direction"].mean > 4
    assert found.effects["read"].share_low > 0.5 and found.effects["unread"].share_high < 0.5
    assert found.verdict == "faithful" and found.words.startswith("Faithful: ")
    assert found.read_held > 0.98
    assert found.place["n_pairs"] == PAIRS and found.place["site"] == resid_post(layer)


def test_before_the_planted_heads_it_does_not_patch() -> None:
    found = planted(2)
    assert found.verdict == "undecided" and "it does not patch" in found.words
    assert math.isnan(found.effects["read"].share)
    assert "NaN" not in str(found.summary()["words"])


def test_the_whole_space_is_the_full_value_and_nothing_is_left_out() -> None:
    """A subspace of all dimensions; and the check gives the same figures again."""
    direction = at(3, torch.eye(organism("cliff").d_model))
    found, again = (
        check_subspace(organism("cliff"), direction, organism_rollouts("cliff"), n_pairs=16, seed=1) for _ in range(2)
    )
    assert found.effects["direction"].mean == pytest.approx(found.effects["full"].mean, rel=1e-4)
    assert found.effects["read"].dimensions == found.read_rank
    assert found.effects["unread"].dimensions == organism("cliff").d_model - found.read_rank
    assert math.isnan(found.unread_difference)
    assert found.summary()["effects"] == again.summary()["effects"]


def test_by_weights_the_output_projections_null_space_is_dead() -> None:
    """A direction of z of all heads, in a layer with one reader: interchange of the unread part changes nothing."""
    model, site = organism("cliff"), "blocks.4.attn.hook_z"
    values = values_at(model, groups(4).transcripts, Site(4, "attn.hook_z"), "close:-1")
    labels = groups(4).labels
    direction = Direction.of(values[labels == 1].mean(0) - values[labels == 0].mean(0), site=site)
    found = check_subspace(model, direction, organism_rollouts("cliff"), readers="weights", n_pairs=16)
    assert found.readers == "weights" and found.read_held == 1
    assert found.effects["unread"].mean == pytest.approx(0, abs=1e-3)
    assert found.verdict == "faithful"


@pytest.mark.parametrize("position", ["close:-1", "close:-2", "inst"])
@pytest.mark.parametrize("site", ["hook_resid_post", "hook_attn_out"])
def test_a_pass_with_a_value_put_in_is_the_intervention(position: str, site: str) -> None:
    """By two ways: with a cache from the edge alone, or whole; and the intervention in an ordinary pass."""
    model, texts = organism("cliff"), groups(3).transcripts[:5]
    place = Site(2, site)
    values = values_at(model, texts, place, position)
    sources = values.roll(1, 0)
    read = site_pass(model, texts, range(5), place, position)
    direction = Direction.of(torch.eye(model.d_model)[0], site=str(place))
    given = {text.id: source[None] for text, source in zip(texts, sources, strict=True)}
    with model.intervene(InterchangeSubspace(direction, given, [position], whole=True)):
        expected = model.logits(texts, ["close:-1"])[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(read.logits(sources), expected, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(read(values), read(), atol=2e-4, rtol=1e-4)
        assert float((read.logits(sources) - read.logits()).abs().max()) > 1e-3


@pytest.mark.parametrize("position", ["close:-1", "inst"])
def test_a_rollout_may_receive_several_times(position: str) -> None:
    """In one pass, in any order, each time another value; texts of other lengths beside it."""
    model, texts, place = organism("cliff"), groups(3).transcripts, Site(2, "hook_resid_post")
    rows = [3, 0, 3, 1, 0]
    given = values_at(model, texts[10:15], place, position)
    with torch.no_grad():
        together = site_pass(model, texts, rows, place, position).logits(given)
        for number, row in enumerate(rows):
            alone = site_pass(model, texts, [row], place, position).logits(given[number : number + 1])
            torch.testing.assert_close(together[number], alone[0], atol=2e-4, rtol=1e-4)
    assert len({len(texts[row]) for row in rows}) > 1


def test_effects_are_means_with_shares_of_the_first() -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(3, 1, size=200)
    values = np.stack([size, 0.5 * size, 0 * size, 2 * size + rng.normal(0, 0.1, size=200)], axis=1)
    found = effects_of(values, [str(row) for row in range(200)], [1, 1, 0, 8])
    assert [effect.dimensions for effect in found] == [1, 1, 0, 8]
    for effect, share in zip(found, (1, 0.5, 0, 2), strict=True):
        assert effect.mean == pytest.approx(size.mean() * share, abs=0.05)
        assert effect.share == pytest.approx(share, abs=0.02)
        assert effect.share_low <= effect.share <= effect.share_high
    # A share is of the same rollouts, so what they have in common is no part of its spread.
    assert found[1].share_high - found[1].share_low < 1e-9 < found[1].high - found[1].low
    assert 0.001 < found[3].share_high - found[3].share_low < 0.05
    # An independent reference of the interval: the normal one.
    half = 1.96 * size.std(ddof=1) / math.sqrt(200)
    assert found[0].low == pytest.approx(size.mean() - half, abs=0.05)
    assert found[0].high == pytest.approx(size.mean() + half, abs=0.05)


def test_rollouts_of_a_prompt_count_as_one() -> None:
    values = np.random.default_rng(1).normal(1, 1, size=(20, 1)).repeat(10, axis=0)
    apart, together = (effects_of(values, [str(row // size) for row in range(200)], [1])[0] for size in (1, 10))
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_no_share_where_the_direction_does_nothing() -> None:
    values = np.random.default_rng(2).normal(0, 1, size=(50, 2))
    assert all(math.isnan(effect.share) for effect in effects_of(values, [str(row) for row in range(50)], [1, 1]))


def effect(mean: float, share: float, spread: float = 0.05, p: float = 0.001) -> Effect:
    return Effect(mean, mean - spread, mean + spread, p, share, share - spread, share + spread, 1)


@pytest.mark.parametrize(
    ("direction", "read", "unread", "full", "verdict", "words"),
    [
        (effect(4, 1, 0), effect(4, 1), effect(0, 0), effect(8, 2), "faithful", "100% [95%, 105%]"),
        (effect(4, 1, 0), effect(0, 0), effect(0, 0), effect(8, 2), "illusion", "a dormant path carries it"),
        (effect(4, 1, 0), effect(0, 0), effect(4, 1), effect(8, 2), "undecided", "the split is not clean"),
        (effect(4, 1, 0), effect(2, 0.5), effect(0, 0), effect(8, 2), "undecided", "The intervals do not tell"),
        (effect(4, 1, 0), effect(4, 1), effect(0, 0), effect(1, 0.25), "undecided", "the full value does much less"),
        (effect(4, 1, 0), effect(4, 1), effect(0, 0), effect(2, 0.5), "undecided", "the full value does much less"),
        (effect(1, 1, 0), effect(4, 4), effect(0, 0), effect(8, 8), "undecided", "The read part does far more"),
        (effect(0, 1, 0.1), effect(4, 1), effect(0, 0), effect(8, 2), "undecided", "it does not patch"),
        (effect(1, 1, 0.1, p=0.2), effect(1, 1), effect(0, 0), effect(8, 2), "undecided", "p = 0.2: it does not"),
        (effect(-4, 1, 0), effect(-4, 1), effect(0, 0), effect(8, 2), "undecided", "it does not patch"),
    ],
)
def test_verdicts_and_their_words(
    direction: Effect, read: Effect, unread: Effect, full: Effect, verdict: str, words: str
) -> None:
    effects = {"direction": direction, "read": read, "unread": unread, "full": full}
    found = SubspaceCheck(effects, "gradients", 3, 0.99, 0.5, 0.5, {})
    assert found.verdict == verdict
    assert found.words.lower().startswith(verdict) and words in found.words


def test_the_contrast_is_that_of_the_fit_or_of_the_kind() -> None:
    plain = at(3, difference(3))
    assert contrast_for(plain) == "refused-complied"
    assert contrast_for(replace(plain, kind="harmfulness")) == "harmful-benign"
    assert contrast_for(replace(plain, kind="mood")) == "refused-complied"
    assert contrast_for(plain.at(training={"contrast": "refused-benign"})) == "refused-benign"


def some_direction(width: int = 128, site: str | None = resid_post(3)) -> Direction:
    return Direction.of(torch.ones(width), site=site)


@pytest.mark.parametrize(
    ("direction", "options", "message"),
    [
        (some_direction(site=None), {}, "does not say at which site"),
        (some_direction(64), {}, "of width 64, and blocks.3.hook_resid_post of .* has width 128"),
        (some_direction(), {"readers": "rumour"}, "readers 'rumour': expected one of gradients, weights"),
        (some_direction(), {"readers": "weights"}, "is read by every later layer"),
        (some_direction(), {"held": 0.0}, "share between 0 and 1"),
        (some_direction(), {"n_pairs": 4}, "pairs: 4 asked for, of 23 refused and 41 complied rollouts"),
        (some_direction(), {"contrast": "good-evil"}, "contrast 'good-evil'"),
    ],
)
def test_what_cannot_be_checked_is_said(direction: Direction, options: dict[str, object], message: str) -> None:
    with pytest.raises(CliffscopeError, match=message):
        check_subspace(organism("cliff"), direction, organism_rollouts("cliff"), **options)  # type: ignore[arg-type]


def test_one_group_alone_is_said() -> None:
    complied = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome != "refused"]
    with pytest.raises(CliffscopeError, match="none refused a harmful prompt"):
        check_subspace(organism("cliff"), some_direction(), complied)


def test_nothing_of_the_model_is_changed() -> None:
    model = organism("cliff")
    before = [(parameter.requires_grad, parameter.sum().item()) for parameter in model.hf.parameters()]
    forwards = [part for part in model.hf.modules() if "forward" in part.__dict__]
    planted(4)
    assert before == [(parameter.requires_grad, parameter.sum().item()) for parameter in model.hf.parameters()]
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    assert forwards == [part for part in model.hf.modules() if "forward" in part.__dict__]


def test_values_that_are_not_finite_are_refused() -> None:
    model = HookedModel(random_model("qwen3"))
    text = replace(
        groups(3).transcripts[0], input_ids=tuple(token % 96 for token in groups(3).transcripts[0].input_ids)
    )

    class Broken:
        def changes(self, model: HookedModel) -> dict[str, object]:
            def spoil(value: Tensor, tokens: object) -> Tensor:
                return value * float("nan")

            return {resid_post(0): spoil}

    with (
        pytest.raises(CliffscopeError, match=r"activations at blocks\.1\.hook_resid_post are NaN"),
        model.intervene(Broken()),
    ):
        values_at(model, [text], Site(1, "hook_resid_post"), "close:-1")
