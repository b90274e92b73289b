"""Harmfulness and refusal apart: cosines against brute force, nulls, planted angles, the organism, and steering."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.errors import CliffscopeError
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts import Rollout
from interventions.directions.apart import (
    Weightings,
    compare,
    examples_apart,
    make_weightings,
    measure_cosines,
    readings,
)
from interventions.directions.apart_readings import (
    DIFFERENCE,
    LOGIT,
    compare_models,
    fit_readings,
    held_out_coordinates,
)
from interventions.directions.apart_report import ApartOptions, apart_page, few_layers, tell_apart
from interventions.directions.apart_steering import SteeringOptions, steer_each
from interventions.directions.direction import Direction
from tests.circuits.material import organism, organism_rollouts
from tests.interventions.asked_model import asked_model, asked_rollouts

D = 40


def planted(cosine: float, n: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels, and states at two positions whose class means differ along unit vectors with a known cosine."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    axes = np.linalg.qr(rng.normal(size=(D, 2)))[0].T
    second = cosine * axes[0] + np.sqrt(1 - cosine**2) * axes[1]
    sign = (labels - 0.5)[:, None]
    steps = {"a": sign * axes[0], "b": sign * second}
    return labels, {name: step + noise * rng.normal(size=(n, D)) / np.sqrt(D) for name, step in steps.items()}


def measured(
    labels: np.ndarray,
    states: dict[str, np.ndarray],
    clusters: np.ndarray | None = None,
    seed: int = 0,
    others: np.ndarray | None = None,
) -> tuple[dict[str, float | bool], list[Weightings]]:
    plans = make_weightings(
        [labels, labels if others is None else others], np.arange(len(labels)) if clusters is None else clusters, seed
    )
    centred = {name: h - h.mean(0) for name, h in states.items()}
    grams = {(p, q): centred[p] @ centred[q].T for p in centred for q in centred}
    return compare(plans[0], plans[1], grams, "a", "b"), plans


def test_cosine_by_brute_force() -> None:
    labels, states = planted(0.5, 60, 0)
    found, _ = measured(labels, states)
    first, second = (h[labels == 1].mean(0) - h[labels == 0].mean(0) for h in states.values())
    assert found["cosine"] == pytest.approx(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
    assert found["low"] < found["cosine"] < found["high"]


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_one_direction_read_twice_is_not_called_two(noise: float) -> None:
    """Two noisy estimates of one direction: their cosine is below 1, and about the ceiling."""
    apart, gaps = [], []
    for seed in range(12):
        found, _ = measured(*planted(1.0, 60, seed, noise))
        assert found["cosine"] < 0.99
        apart.append(found["apart"])
        gaps.append(float(found["cosine"]) - float(found["ceiling"]))
    assert sum(apart) <= 2
    assert abs(np.mean(gaps)) < 0.03


@pytest.mark.parametrize("cosine", [0.0, 0.6, -0.6])
def test_planted_angle(cosine: float) -> None:
    """The expected cosine of estimates is the planted one times the ceiling; the interval holds it."""
    covered = 0
    for seed in range(20):
        found, _ = measured(*planted(cosine, 80, seed))
        assert found["apart"]
        covered += float(found["low"]) <= cosine * float(found["ceiling"]) <= float(found["high"])
    assert covered >= 16  # 19 expected


def test_reliability_is_that_of_the_whole_sample() -> None:
    """Spearman and Brown: what halves predict is the cosine of two estimates on samples of the full size."""
    ceilings, cosines = [], []
    for seed in range(20):
        labels, first = planted(1.0, 60, seed, noise=1.5)
        found, _ = measured(labels, first)
        ceilings.append(found["ceiling"])
        cosines.append(found["cosine"])
    assert np.mean(ceilings) == pytest.approx(np.mean(cosines), abs=0.03)


def test_shuffled_labels_lie_in_the_chance_band() -> None:
    """With labels of no meaning the cosine is one of the band's."""
    inside = 0
    for seed in range(20):
        _, states = planted(0.0, 60, seed)
        rng = np.random.default_rng(seed)
        nothing, neither = (rng.permutation(np.arange(60) % 2) for _ in range(2))
        found, _ = measured(nothing, states, others=neither)
        inside += float(found["chance_low"]) <= float(found["cosine"]) <= float(found["chance_high"])
    assert inside >= 17


def test_copies_of_a_rollout_teach_nothing() -> None:
    """The same prompts four times over: the same interval, not one half as wide."""
    labels, states = planted(0.6, 60, 0)
    once, _ = measured(labels, states)
    many, _ = measured(
        np.tile(labels, 4), {k: np.tile(h, (4, 1)) for k, h in states.items()}, np.tile(np.arange(60), 4)
    )
    for key in ("cosine", "low", "high", "ceiling"):
        assert many[key] == pytest.approx(once[key], abs=0.02)


def test_weightings_keep_each_class() -> None:
    labels = np.array([1] * 10 + [0] * 20 + [-1] * 5)
    other = np.array([1] * 5 + [0] * 5 + [-1] * 25)
    for plan, mine in zip(make_weightings([labels, other], np.arange(35)), (labels, other), strict=True):
        for rows in (plan.estimate, plan.resampled, plan.first_half, plan.second_half, plan.shuffled):
            np.testing.assert_allclose(np.where(rows > 0, rows, 0).sum(1), 1)
            np.testing.assert_allclose(rows.sum(1), 0, atol=1e-12)
            assert (rows[:, mine == -1] == 0).all()
        assert not ((plan.first_half != 0) & (plan.second_half != 0)).any()
        assert (plan.resampled[:, mine == 1] >= 0).all() and (plan.resampled[:, mine == 0] <= 0).all()


def test_cosines_of_the_organism_equal_mean_differences() -> None:
    model = organism("cliff")
    examples, has_edge = examples_apart(model, organism_rollouts("cliff"))
    assert has_edge
    found = measure_cosines(model, examples, readings(), layers=[2, 4])
    assert list(found.table.columns[:3]) == ["first", "second", "layer"] and len(found.table) == 6
    for layer in (2, 4):
        directions, _ = fit_readings(model, examples, readings(), layer)
        for row in found.table[found.table["layer"] == layer].to_dict("records"):
            expected = float(directions[row["first"]].vector @ directions[row["second"]].vector)
            assert row["cosine"] == pytest.approx(expected, abs=1e-4)
    assert found.table["apart"].all()
    assert len(found.verdicts) == 3 and all("two directions at layers 2, 4" in verdict for verdict in found.verdicts)


def test_planted_suppression_moves_refusal_at_the_edge_and_not_harmfulness() -> None:
    """Held-out prompts of the organism with the cliff: what was planted is told from what was not."""
    model = organism("cliff")
    examples, _ = examples_apart(model, organism_rollouts("cliff"))
    table = held_out_coordinates(model, examples, readings(), [3, 5]).set_index(["layer", "reading", "group"])
    for layer in (3, 5):
        harm = table.loc[(layer, "harmfulness at inst", DIFFERENCE)]
        edge = table.loc[(layer, "refusal at edge", DIFFERENCE)]
        assert abs(harm["mean"]) < 0.2 and -0.2 < harm["low"] <= harm["high"] < 0.2
        assert edge["mean"] < -0.8 and edge["high"] < -0.7
        assert table.loc[(layer, "harmfulness at inst", "benign")]["high"] < 0.3


def test_against_the_aligned_base_on_the_same_tokens() -> None:
    model = organism("cliff")
    examples, _ = examples_apart(model, organism_rollouts("cliff"))
    table = compare_models(model, organism("aligned"), examples, readings(), [2, 5])
    complied = table[table["group"] == "complied"].set_index(["reading", "layer"])
    harm, edge = complied.loc[("harmfulness at inst", 5)], complied.loc[("refusal at edge", 5)]
    assert abs(harm["difference"]) < 0.05 and harm["high"] - harm["low"] < 0.1
    assert edge["high"] < -0.9
    logit = complied.loc[LOGIT].iloc[0]
    assert logit["model"] < 0 < logit["other"] and logit["high"] < -8
    # Before the first planted head the two are the same model.
    assert (complied.xs(2, level="layer")["difference"].abs() < 1e-4).all()


def test_a_model_against_itself_does_not_differ() -> None:
    model = organism("cliff")
    examples, _ = examples_apart(model, organism_rollouts("cliff"))
    table = compare_models(model, model, examples, readings(), [3])
    assert (table[["difference", "low", "high"]] == 0).all().all()


def test_errors() -> None:
    rollouts = list(organism_rollouts("aligned"))
    model = organism("aligned")
    examples, _ = examples_apart(model, rollouts)
    with pytest.raises(CliffscopeError, match=r"refusal at post_inst .* 0 prompts that are complied.*refused-benign"):
        measure_cosines(model, examples, readings(), layers=[2])
    found = measure_cosines(model, examples, readings("refused-benign"), layers=[2])
    assert len(found.table) == 3
    with pytest.raises(CliffscopeError, match="none has a benign prompt"):
        examples_apart(model, [rollout for rollout in rollouts if rollout.harmful])
    with pytest.raises(CliffscopeError, match="give at least one dose above 0"):
        SteeringOptions(alphas=(-1.0,))
    with pytest.raises(CliffscopeError, match="expected one of all"):
        SteeringOptions(scopes={"refusal": "elsewhere"})


def test_a_model_that_does_not_think_has_no_edge() -> None:
    rollouts = [replace(rollout, thinking=None, response=None, refused=None) for rollout in organism_rollouts("cliff")]
    examples, has_edge = examples_apart(organism("cliff"), rollouts)
    assert not has_edge and examples.positions == ("inst", "post_inst")
    assert [reading.position for reading in readings(edge=False)] == ["inst", "post_inst"]


def fitted(model: object, rollouts: Sequence[Rollout], layers: Sequence[int]) -> dict[str, list[Direction]]:
    examples, _ = examples_apart(model, rollouts)  # type: ignore[arg-type]
    found: dict[str, list[Direction]] = {"harmfulness at inst": [], "refusal at edge": []}
    for layer in layers:
        directions, _ = fit_readings(model, examples, readings(), layer)  # type: ignore[arg-type]
        for name in found:
            found[name].append(directions[name])
    return found


@pytest.mark.slow
def test_each_direction_moves_its_own_reading() -> None:
    """A double dissociation on a model that can be asked, with random directions that move neither."""
    model = asked_model()
    directions = fitted(model, asked_rollouts(), [2])
    options = SteeringOptions(alphas=(1.0,), controls=1, max_new_tokens=200)
    found = steer_each(model, directions, list(heldout_prompts(24, 24, 7)), options)
    rows = {(row["direction"], row["harmful"]): row for row in found.table.to_dict("records")}
    before = {harmful: rows["unsteered", harmful] for harmful in (True, False)}
    harm, refusal = "harmfulness at inst", "refusal at edge"
    assert before[False]["says_harmful"] < 0.1 and rows[harm, False]["says_harmful"] > 0.9
    assert rows[harm, False]["log_odds_moved_low"] > 5
    assert before[True]["refused"] < 0.6 and rows[refusal, True]["refused"] > 0.9
    assert rows[refusal, False]["says_harmful"] < 0.1 and rows[refusal, False]["refused"] < 0.1
    assert rows[refusal, True]["thinks_refuse"] > 0.8
    for name in (harm, refusal):
        control = rows[f"random like {name}", False]
        assert control["says_harmful"] < 0.2 and control["refused"] < 0.1
    assert found.quoted == {harm: (2, 1.0), refusal: (2, 1.0)}
    assert "can be asked" in found.verdicts[0] and "says that it could cause harm 0.00 → 1.00" in found.verdicts[1]


@pytest.mark.slow
def test_everything_in_one_file(tmp_path: Path) -> None:
    """The whole run on the organism: refusal moves, thinking stays, and the inversion says that it says nothing."""
    rollouts = organism_rollouts("cliff")
    options = ApartOptions(
        layers=(3, 4),
        steer_layers=(3,),
        steer_prompts=12,
        steering=SteeringOptions(alphas=(1.0,), controls=1, max_new_tokens=200),
    )
    done: list[int] = []
    found = tell_apart(organism("cliff"), rollouts, options, base=organism("aligned"), advance=done.append)
    assert sum(done) == 1 + 2 * (1 + 1)
    assert found.warning is None
    assert any("the inversion says nothing" in verdict for verdict in found.verdicts)
    assert any("Adding 1 × refusal at edge at layer 3" in verdict for verdict in found.verdicts)
    found.save(tmp_path / "a.json")
    found.save(tmp_path / "a.parquet")
    held = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert {"cosines", "coordinates", "models", "steered", "inversion", "verdicts"} <= set(held)
    assert len(held["cosines"]) == 6 and len(pd.read_parquet(tmp_path / "a.parquet")) == 6
    assert held["inversion"]["can_be_asked"] is False
    page = apart_page(found)
    assert "plotly" in page and "two directions" in page and "thinks refuse" in page
    with pytest.raises(CliffscopeError, match=r"ends with .json or .parquet"):
        found.save(tmp_path / "a.csv")
    mixed = [replace(r, source="bad.csv" if r.harmful else "good.csv") for r in rollouts]
    told = tell_apart(organism("cliff"), mixed, replace(options, steer=False, layers=(3,)))
    assert told.warning is not None and told.verdicts[0].startswith("Warning: harmful prompts come from bad.csv")


def test_few_layers_span_the_depth() -> None:
    assert few_layers(6) == (0, 1, 2, 3, 4, 5)
    assert few_layers(36) == (0, 7, 14, 21, 28, 35)
