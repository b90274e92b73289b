"""Trajectories: scored as the probe says, aligned before they are averaged, whatever the batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.sites import FINAL_NORM, resid_post
from interp.transcripts import Transcript
from probes.linear import LinearProbe
from probes.trajectory import GRID, Trajectory, align, average, score_tokens, score_trajectories, sigmoid
from tests.architectures import random_model
from tests.probes.transcripts import transcript


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return HookedModel(random_model("qwen3"), name="qwen3")


def probe(site: str, seed: int) -> LinearProbe:
    generator = torch.Generator().manual_seed(seed)
    return LinearProbe(torch.randn(32, generator=generator), 0.3 * seed).at(site=site)


def bare(lengths: list[int]) -> list[Transcript]:
    generator = torch.Generator().manual_seed(9)
    return [
        Transcript.from_ids(str(n), torch.randint(3, 96, (length,), generator=generator).tolist())
        for n, length in enumerate(lengths)
    ]


def test_scores_are_the_probes_on_hugging_faces_hidden_states(model: HookedModel) -> None:
    probes = [probe(resid_post(0), 1), probe(resid_post(1), 2), probe(FINAL_NORM, 3), probe(resid_post(1), 4)]
    transcripts = bare([7, 31, 12, 12])
    found = dict(score_tokens(model, probes, transcripts, batch_tokens=40))
    assert sorted(found) == [0, 1, 2, 3]
    for row, text in enumerate(transcripts):
        with torch.no_grad():
            hidden = model.hf(torch.tensor([text.input_ids]), output_hidden_states=True).hidden_states
        states = [hidden[1][0], hidden[2][0], hidden[3][0], hidden[2][0]]
        expected = torch.stack([state @ p.weight + p.bias for state, p in zip(states, probes, strict=True)])
        np.testing.assert_allclose(found[row], expected.numpy(), atol=2e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), budget=st.integers(1, 90))
def test_batches_change_nothing(lengths: list[int], budget: int) -> None:
    model = HookedModel(random_model("llama"))
    transcripts = bare(lengths)
    alone = [next(score_trajectories(model, probe(resid_post(2), 1), [text]))[1].logits for text in transcripts]
    for row, trajectory in score_trajectories(model, probe(resid_post(2), 1), transcripts, batch_tokens=budget):
        np.testing.assert_allclose(trajectory.logits, alone[row], atol=1e-5)


def test_bfloat16_models_are_scored_in_float32() -> None:
    model = HookedModel(random_model("qwen2").bfloat16())
    one = probe(resid_post(1), 1)
    _, trajectory = next(score_trajectories(model, one, bare([9])))
    exact = one.logit(model.capture(bare([9]), [resid_post(1)], range(9))[resid_post(1)])[0]
    # In bfloat16 the product would be off by about 1 in 256.
    np.testing.assert_allclose(trajectory.logits, exact.numpy(), rtol=1e-5, atol=1e-5)


def test_memory_does_not_grow_with_layers_and_tokens(model: HookedModel) -> None:
    """What outlives a batch is its scores: no tensor of the width of the residual stream."""
    import gc

    for _ in score_tokens(model, [probe(resid_post(layer), 1) for layer in range(3)], bare([40] * 4), batch_tokens=40):
        gc.collect()
        # By type: isinstance would ask deprecated objects of torch for their class.
        tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        assert not [tensor.shape for tensor in tensors if tensor.ndim == 3 and tensor.shape[1:] == (40, 32)]


def test_a_probe_of_another_model_and_one_without_a_site_are_refused(model: HookedModel) -> None:
    other = probe(resid_post(0), 1).at(fingerprint={"d_model": "64"}, model="other")
    with pytest.raises(CliffscopeError, match=r"made for other, not for qwen3 .*d_model 64 there, 32 here"):
        next(score_tokens(model, [other], bare([5])))
    with pytest.raises(CliffscopeError, match="does not say at which site"):
        next(score_tokens(model, [LinearProbe(torch.ones(32), 0.0)], bare([5])))


def test_nan_activations_are_named(model: HookedModel) -> None:
    broken = HookedModel(random_model("qwen3"))
    with torch.no_grad():
        broken.places.blocks[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(CliffscopeError, match="Rollout '0': the model's activations are NaN"):
        next(score_tokens(broken, [probe(resid_post(2), 1)], bare([5])))


def test_averaging_keeps_a_flat_line_flat_and_the_edge_where_it_is() -> None:
    """The published average of zero-padded sequences turns these constant scores into a slope."""
    trajectories = []
    for n_thinking in (4, 30, 200):
        text = transcript(str(n_thinking), n_thinking)
        logits = np.zeros(len(text), dtype=np.float32)
        logits[text.segments["thinking"][0] : text.segments["thinking"][1]] = 2.0
        logits[text.edge] = -3.0
        trajectories.append(Trajectory(text, logits))
    mean = average(trajectories)
    assert mean.n == 3 and mean.close_tokens == ("\n", "</think>", "\n", "\n")
    np.testing.assert_allclose(mean.mean[:GRID], sigmoid(2.0), rtol=1e-6)
    np.testing.assert_allclose(mean.mean[GRID:], sigmoid(np.array([0.0, 0.0, 0.0, -3.0])), rtol=1e-6)
    np.testing.assert_allclose(mean.low, mean.mean, rtol=1e-6)


def test_every_rollout_weighs_the_same_however_long() -> None:
    short, long = (
        Trajectory(text, np.full(len(text), logit, dtype=np.float32))
        for text, logit in ((transcript("short", 3), 4.0), (transcript("long", 300), -4.0))
    )
    np.testing.assert_allclose(average([short, long]).mean, 0.5, atol=1e-6)


@given(n=st.integers(1, 300))
def test_the_grid_keeps_ends_and_straight_lines(n: int) -> None:
    text = transcript("line", n)
    logits = np.zeros(len(text), dtype=np.float64)
    line = np.linspace(0.2, 0.8, n)
    start, stop = text.segments["thinking"]
    logits[start:stop] = np.log(line / (1 - line))
    aligned = align(Trajectory(text, logits), 4)
    expected = np.linspace(0.2, 0.8, GRID) if n > 1 else np.full(GRID, 0.2)
    np.testing.assert_allclose(aligned[:GRID], expected, atol=1e-9)


def test_close_tokens_are_aligned_from_the_edge_where_their_number_differs() -> None:
    merged, apart = transcript("merged", 5, n_close=3), transcript("apart", 5, n_close=4)
    for text in (merged, apart):
        assert text.tokens[text.edge] == "\n"
    logits = [np.arange(len(text), dtype=np.float32) for text in (merged, apart)]
    mean = average([Trajectory(text, values) for text, values in zip((merged, apart), logits, strict=True)])
    assert mean.close_tokens == ("</think>", "\n", "\n")
    expected = (sigmoid(logits[0][merged.edge]) + sigmoid(logits[1][apart.edge])) / 2
    np.testing.assert_allclose(mean.mean[-1], expected, rtol=1e-6)


def test_what_has_no_thinking_has_no_trajectory() -> None:
    unclosed = transcript("u", 5, n_close=0, n_response=0)
    with pytest.raises(CliffscopeError, match="Rollout 'u' has no close tokens"):
        average([Trajectory(unclosed, np.zeros(len(unclosed), dtype=np.float32))])
    with pytest.raises(CliffscopeError, match="no trajectories"):
        average([])


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(all="raise"):
        np.testing.assert_allclose(sigmoid(np.array([-1000.0, 0.0, 1000.0])), [0.0, 0.5, 1.0])
