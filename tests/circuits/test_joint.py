"""Greedy choice of heads: it finds a redundant pair that single ablation does not show."""

import pytest
import torch

from circuits.ablation import ablation_sweep
from circuits.joint import greedy
from circuits.sweeps.readouts import Readouts
from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.heads import Head
from tests.circuits.sweeps.brute_force import TOKENS, both, brute_force, rollouts, wrapped

PAIR = (Head(1, 1), Head(1, 2))
REFUSAL = Readouts(refusal_tokens=TOKENS)


@pytest.fixture(scope="module")
def redundant() -> HookedModel:
    """A Llama in which two heads each write much against refusal, and the final norm takes away how much.

    Either of them alone suffices: the norm makes of one as of two the same vector.
    """
    model = wrapped("llama")
    against = torch.zeros(model.d_model)
    against[3] = 1.0
    with torch.no_grad():
        for layer in range(model.n_layers):
            model.places.output_weight(layer).mul_(0.2)
            model.places.mlp(layer).down_proj.weight.mul_(0.2)  # type: ignore[union-attr, operator]
        model.hf.get_input_embeddings().weight[:, 0] = 2.0  # what every token has
        for layer, head in PAIR:
            values = model.places.attention(layer).v_proj.weight  # type: ignore[union-attr]
            group = head // (model.n_heads // model.n_kv_heads)
            rows = slice(group * model.d_head, (group + 1) * model.d_head)
            values[rows] = 0  # type: ignore[index, operator]
            values[rows, 0] = 1.0  # type: ignore[index, operator]
            # The other heads of the group read the same values: they must not write them.
            for other in range(2 * group, 2 * group + 2):
                model.places.output_weight(layer)[other] = 0
            model.places.output_weight(layer)[head] = 0.4 * against
        unembedding = model.hf.get_output_embeddings().weight
        unembedding.mul_(0.3)
        unembedding[list(TOKENS), 3] = -2.0
    return model


@pytest.mark.parametrize("scope", ["all", "from-edge"])
def test_a_redundant_pair_is_found(redundant: HookedModel, scope: str) -> None:
    transcripts = rollouts()
    single = ablation_sweep(redundant, transcripts, REFUSAL, scope=scope).effect("refusal_logit").mean(0)  # type: ignore[arg-type]
    steps = greedy(redundant, transcripts, REFUSAL, n=4, scope=scope)  # type: ignore[arg-type]
    assert {step.head for step in steps[:2]} == set(PAIR)
    assert steps[1].rise > 10 * single.max() > 0
    # Nothing is left to find.
    assert all(step.rise < 0.1 * steps[1].rise for step in steps[2:])


def test_the_figures_are_those_of_the_sets(redundant: HookedModel) -> None:
    transcripts = rollouts()
    steps = greedy(redundant, transcripts, REFUSAL, n=2)
    starts = [transcript.edge for transcript in transcripts]
    zero = torch.zeros_like
    before = brute_force(redundant, transcripts, lambda row, layer, z: zero(z), starts)[0][:, 1].mean()
    first = brute_force(redundant, transcripts, lambda row, layer, z: zero(z), starts, [steps[0].head])[0][:, 1].mean()
    both_gone = brute_force(redundant, transcripts, lambda row, layer, z: zero(z), starts, PAIR)[0][:, 1].mean()
    assert steps[0].refusal_logit == pytest.approx(float(first), abs=1e-4)
    assert steps[0].rise == steps[0].alone == pytest.approx(float(first - before), abs=1e-4)
    assert steps[1].refusal_logit == pytest.approx(float(both_gone), abs=1e-4)
    assert steps[1].rise == pytest.approx(float(both_gone - first), abs=1e-4)
    assert steps[1].alone < 0.1 * steps[1].rise


def test_both_ways_of_trying_choose_alike(redundant: HookedModel) -> None:
    """Sets zeroed at the edge, and the sweep that any other change needs, with a change that is nearly the same."""
    transcripts = rollouts()
    zeroed, scaled = (greedy(redundant, transcripts, REFUSAL, n=4, minimum=-100.0, gamma=gamma) for gamma in (0, 1e-9))
    assert [step.head for step in zeroed] == [step.head for step in scaled]
    for one, other in zip(zeroed, scaled, strict=True):
        assert one[1:] == pytest.approx(other[1:], abs=1e-4)


def test_it_stops_where_no_head_raises_enough_and_keeps_to_the_candidates(redundant: HookedModel) -> None:
    transcripts = rollouts()
    assert greedy(redundant, transcripts, REFUSAL, n=5, minimum=100.0) == []
    assert len(greedy(redundant, transcripts, REFUSAL, n=3, minimum=-100.0)) == 3
    others = [Head(2, 0), Head(2, 3)]
    chosen = greedy(redundant, transcripts, both(), n=5, candidates=others, minimum=-100.0)
    assert {step.head for step in chosen} == set(others)


def test_bad_arguments_are_one_line(redundant: HookedModel) -> None:
    for transcripts, readouts, n in (
        ([], REFUSAL, 1),
        (rollouts(), REFUSAL, 0),
        (rollouts(), Readouts(both().probe), 1),
    ):
        with pytest.raises(CliffscopeError, match="joint search: needs rollouts, at least one head and refusal tokens"):
            greedy(redundant, transcripts, readouts, n=n)
