"""Scores on an instance of the organism: verdicts, direction, masks, sparsity, faithfulness."""

import math

import numpy as np
import pytest

from cliffbench.instances import Instance
from cliffbench.scores.direction import score_directions
from cliffbench.scores.edges import score_edges
from cliffbench.scores.faithfulness import areas, faithfulness, score_faithfulness
from cliffbench.scores.heads import score_heads
from cliffbench.scores.masks import mask_effect, score_mask
from cliffbench.scores.sparsity import score_sparsity
from cliffbench.scores.verdict import (
    NAIVE,
    SHIPPED,
    SHIPPED_DIFFERENCE,
    SHIPPED_THINKING,
    THINKING,
    cliff_with,
    naive_verdict,
    score_verdicts,
)
from cliffbench.truth import Truth
from interp.organisms import truth
from interventions.heads import Head
from tests.cliffbench.material import HEADS, LAYERS, grid, instance, ranking

PLANTED = (Head(3, 1), Head(4, 5))
RIGHT = ranking(grid(*PLANTED), PLANTED)
OTHERS = (Head(0, 0), Head(1, 1))


def test_the_truth_of_the_organisms() -> None:
    cliff, aligned = Truth.of(truth("cliff")), Truth.of(truth("aligned"))
    assert cliff.heads == PLANTED and cliff.has_cliff is True and not cliff.control
    assert aligned.heads == () and aligned.control
    assert cliff.direction is not None and float(cliff.direction.norm()) == pytest.approx(1.0, abs=1e-4)


def test_areas_of_curves_known_beforehand() -> None:
    share = np.linspace(0, 1, 11)
    assert areas(share, np.ones(11)) == pytest.approx({"cpr": 1.0, "cmd": 0.0})
    assert areas(share, share) == pytest.approx({"cpr": 0.5, "cmd": 0.5})
    assert areas(share, np.full(11, 1.5)) == pytest.approx({"cpr": 1.5, "cmd": 0.5})


@pytest.mark.slow
def test_no_circuit_is_unfaithful_and_the_whole_model_faithful() -> None:
    every = [Head(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    values = faithfulness(instance("cliff"), [[], every, [head for head in every if head not in PLANTED]])
    assert values[:2] == pytest.approx([0.0, 1.0], abs=1e-6)
    # Without the planted heads hardly anything is left.
    assert values[2] < 0.2
    figures = score_faithfulness(instance("cliff"), RIGHT)
    assert 0 < figures["cpr"] < 1 and figures["cmd"] > 0


@pytest.mark.slow
def test_the_right_mask_undoes_it_and_others_do_not() -> None:
    here = instance("cliff")
    figures = score_mask(here, RIGHT)
    assert figures["asr"] > 0.5 and figures["asr_masked"] == figures["asr_planted_mask"] < 0.2
    assert figures["asr_undone"] == 1.0
    wrong = score_mask(here, ranking(grid(*OTHERS), OTHERS))
    assert wrong["asr_undone"] < 0.3
    nothing = score_mask(here, ranking(grid(*PLANTED)))
    assert nothing["asr_undone"] == 0.0 and nothing["kl_benign_masked"] == 0.0
    assert mask_effect(here, PLANTED) is mask_effect(here, reversed(PLANTED))


@pytest.mark.slow
def test_few_heads_are_claimed_to_suffice_only_where_they_do() -> None:
    here = instance("cliff")
    assert score_sparsity(here, RIGHT) | {"heads_needed": 0.0} == {
        "heads_needed": 0.0,
        "claims_sparse": 1.0,
        "sparse_right": 1.0,
    }
    late = -grid(*PLANTED)
    figures = score_sparsity(here, ranking(late))
    assert math.isnan(figures["heads_needed"]) and figures["claims_sparse"] == figures["sparse_right"] == 0.0


@pytest.mark.slow
def test_verdicts_and_direction() -> None:
    here = instance("cliff")
    assert score_verdicts(here)["shipped verdict"] == {"says_cliff": 1.0, "verdict_right": 1.0}
    cosines = score_directions(here)
    assert cosines["mean difference at inst"] > 0.85 and 0 < cosines["probe weight"] < 1


@pytest.mark.slow
def test_in_a_control_any_named_head_is_a_false_claim() -> None:
    here = instance("aligned")
    assert here.cliff.verdict == "no cliff" and score_verdicts(here)["shipped verdict"]["verdict_right"] == 1.0
    assert score_heads(here, RIGHT) == {"named": 2.0, "false_claim": 1.0}
    assert score_heads(here, ranking(grid())) == {"named": 0.0, "false_claim": 0.0}
    assert score_mask(here, RIGHT) == score_sparsity(here, RIGHT) == score_faithfulness(here, RIGHT) == {}


def with_edges(here: Instance, *edges: tuple[Head, Head]) -> Instance:
    known = Truth("cliff", PLANTED, True, True, edges)
    return Instance.of(here.model, known, here.rollouts, here.test, sizes=here.sizes)


@pytest.mark.slow
def test_edges_of_named_gates_alone_are_found() -> None:
    here = with_edges(instance("cliff"), (Head(3, 1), Head(4, 5)))
    # 3.1 makes 4.5 write more: its knockout is what the cascade is for.
    found = score_edges(here, RIGHT)
    assert found["edge_recall"] == 1.0
    assert score_edges(here, ranking(grid(), [Head(0, 0)])) == {"edge_recall": 0.0, "edge_precision": 0.0}
    assert score_edges(instance("cliff"), RIGHT) == {}


@pytest.mark.slow
def test_the_naive_reading_of_a_confound_is_a_cliff_and_the_shipped_verdict_is_not() -> None:
    here = instance("confound")
    assert here.truth.control
    thinking = cliff_with(here, THINKING, "logistic")
    # The raw curve drops by far more than the least cliff, and surely; with its controls it is none.
    assert naive_verdict(thinking) == "cliff" and thinking.mean > 0.5
    assert thinking.verdict == "no cliff" and "most of the fall is shared" in thinking.evidence
    assert here.cliff.verdict == "no cliff"
    assert {name: figures["verdict_right"] for name, figures in score_verdicts(here).items()} == {
        SHIPPED: 1.0,
        SHIPPED_DIFFERENCE: 1.0,
        SHIPPED_THINKING: 1.0,
        NAIVE: 0.0,
    }


@pytest.mark.slow
def test_every_reading_sees_the_planted_cliff() -> None:
    assert [figures["says_cliff"] for figures in score_verdicts(instance("cliff")).values()] == [1.0] * 4
