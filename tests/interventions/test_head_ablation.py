"""Head ablation against the same change made by hand: in the weights, or from values read beforehand."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp import HookedModel, Transcript
from interp.errors import CliffscopeError
from interp.models.sites import FINAL_NORM
from interventions.head_ablation import MeanHeads, ResampleHeads, ScaleHeads
from interventions.head_values import EDGE_KIND, HeadValues, kinds_of
from interventions.renormalize import keep_norm, written
from tests.architectures import CONFIGS, random_model

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
LAYOUT = ("template", "instruction", "instruction", "template", "thinking", "thinking", "thinking", "close", "close")


def texts(lengths: Sequence[int], seed: int = 1) -> list[Transcript]:
    """Random tokens with segments: so many tokens of response each."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number, length in enumerate(lengths):
        labels = LAYOUT + ("response",) * length
        ids = tuple(torch.randint(3, 96, (len(labels),), generator=generator).tolist())
        made.append(Transcript(f"t{seed}-{number}", ids, ("x",) * len(ids), labels, 4, "closed"))
    return made


def model_of(name: str) -> HookedModel:
    return HookedModel(random_model(name), name=name)


def z_of(model: HookedModel, transcripts: Sequence[Transcript], layer: int) -> Tensor:
    """`[rollout, pos, head, d_head]` of transcripts of one length."""
    site = f"blocks.{layer}.attn.hook_z"
    return model.capture(transcripts, [site], range(len(transcripts[0])))[site]


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_scaled_heads_are_scaled_rows_of_the_output_projection(name: str, gamma: float) -> None:
    model, transcripts = model_of(name), texts([3, 1])
    with model.intervene(ScaleHeads([(0, 3), (1, 2)], gamma=gamma)):
        found = model.capture(transcripts, [FINAL_NORM], range(9))[FINAL_NORM]
    with torch.no_grad():
        model.places.output_weight(0)[3] *= gamma
        model.places.output_weight(1)[2] *= gamma
    torch.testing.assert_close(found, model.capture(transcripts, [FINAL_NORM], range(9))[FINAL_NORM], **TOLERANCE)


def test_the_mean_is_that_of_the_references_kind_by_kind() -> None:
    model, references, transcripts = model_of("qwen3"), texts([2, 2, 2], seed=7), texts([2, 2])
    values = HeadValues.of(model, references, [1])
    z = z_of(model, references, 1)
    expected = {
        "template": z[:, [0, 3]],
        "instruction": z[:, 1:3],
        "thinking": z[:, 4:7],
        "close": z[:, 7:8],
        "edge": z[:, 8:9],
        "response": z[:, 9:],
    }
    before = z_of(model, transcripts, 1)
    with model.intervene(MeanHeads([(1, 2)], values=values)):
        after = z_of(model, transcripts, 1)
    kinds = [
        "template",
        "instruction",
        "instruction",
        "template",
        *["thinking"] * 3,
        "close",
        "edge",
        *["response"] * 2,
    ]
    for column, kind in enumerate(kinds):
        mean = expected[kind].flatten(0, 1).mean(0)[2]
        torch.testing.assert_close(after[:, column, 2], mean.expand(2, -1), **TOLERANCE)
    assert torch.equal(after[:, :, [0, 1, 3]], before[:, :, [0, 1, 3]])


def test_resampled_values_are_some_references_of_the_same_kind_and_do_not_depend_on_the_batch() -> None:
    model, references, transcripts = model_of("llama"), texts([2, 2, 2], seed=7), texts([2, 2])
    values = HeadValues.of(model, references, [1])
    ablation = ResampleHeads([(1, 0), (1, 2)], "from-edge", values=values, seed=3)
    bank, before = z_of(model, references, 1), z_of(model, transcripts, 1)
    with model.intervene(ablation):
        after = z_of(model, transcripts, 1)
        alone = torch.cat([z_of(model, [transcript], 1) for transcript in transcripts[::-1]]).flip(0)
    torch.testing.assert_close(after, alone, **TOLERANCE)
    assert torch.equal(after[:, :8], before[:, :8])
    for row in range(2):
        for column in range(8, 11):
            pool = bank[:, 8] if column == 8 else bank[:, 9:].flatten(0, 1)
            distance = (pool[:, [0, 2]] - after[row, column, [0, 2]]).abs().amax((1, 2))
            assert distance.min() < 1e-6  # both heads from one reference token
    with model.intervene(ResampleHeads([(1, 0)], "from-edge", values=values, seed=4)):
        assert not torch.equal(z_of(model, transcripts, 1), after)


def test_the_bank_holds_what_was_asked_for() -> None:
    model, references = model_of("llama"), texts([5, 3, 4], seed=7)
    values = HeadValues.of(model, references, [0, 2], n_samples=4)
    assert set(values.samples) == {0, 2}
    assert {kind: len(rows) for kind, rows in values.samples[0].items()} == {1: 4, 2: 4, 3: 4, 4: 3, 5: 4, EDGE_KIND: 3}
    whole = HeadValues.of(model, references, [0], n_samples=100, batch_tokens=1)
    torch.testing.assert_close(whole.means[0][5], values.means[0][5], **TOLERANCE)
    torch.testing.assert_close(whole.samples[0][5].mean(0), whole.means[0][5], **TOLERANCE)
    with pytest.raises(CliffscopeError, match="references: none is given"):
        HeadValues.of(model, [], [0])


def test_a_kind_without_references_is_named() -> None:
    model = model_of("llama")
    values = HeadValues.of(model, texts([0], seed=7), [1])
    for kind in (MeanHeads, ResampleHeads):
        with pytest.raises(CliffscopeError, match="no token of kind 'response' in the reference rollouts"):
            with model.intervene(kind([(1, 1)], values=values)):
                z_of(model, texts([2]), 2)


def test_kinds_of_padding_and_of_the_edge() -> None:
    model, seen = model_of("llama"), []

    class Watch:
        def changes(self, model: HookedModel) -> dict:
            return {FINAL_NORM: lambda value, tokens: (seen.append(kinds_of(tokens)), value + 1)[1]}

    with model.intervene(Watch()):
        model.capture(texts([2, 0]), [FINAL_NORM], [-1])
    assert seen[0].tolist() == [[2, 1, 1, 2, 3, 3, 3, 4, EDGE_KIND, 5, 5], [2, 1, 1, 2, 3, 3, 3, 4, EDGE_KIND, -1, -1]]


@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("name", ["qwen3", "gpt2", "phi3"])
@given(gamma=st.floats(-1.0, 2.0), head=st.integers(0, 3), lengths=st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_renormalized_layers_write_as_much_as_before_at_every_token(
    name: str, gamma: float, head: int, lengths: list[int]
) -> None:
    model, transcripts = model_of(name), texts(lengths)
    ablation = ScaleHeads([(1, head)], gamma=gamma, renormalize=True)
    for transcript in transcripts:
        before = z_of(model, [transcript], 1)
        with model.intervene(ablation):
            after = z_of(model, [transcript], 1)
        weight = model.places.output_weight(1).detach()
        norms = [torch.einsum("bphd,hdm->bpm", z, weight).norm(dim=-1) for z in (before, after)]
        torch.testing.assert_close(norms[0], norms[1], atol=1e-4, rtol=1e-4)
        by_hand = before.clone()
        by_hand[:, :, head] *= gamma
        cosine = torch.cosine_similarity(by_hand.flatten(2), after.flatten(2), dim=-1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-5, rtol=0)


def test_renormalization_leaves_out_the_bias_and_survives_nothing_written() -> None:
    projection = torch.nn.Linear(6, 5)
    z = torch.randn(1, 2, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(written(projection, z), z.flatten(-2) @ projection.weight.T, **TOLERANCE)
    assert torch.equal(keep_norm(projection, z, torch.zeros_like(z)), torch.zeros_like(z))


def test_ablations_compose_in_order() -> None:
    model, transcripts = model_of("qwen2"), texts([2])
    before = z_of(model, transcripts, 1)
    with model.intervene(ScaleHeads([(1, 0)], gamma=0.5), ScaleHeads([(1, 0), (1, 1)], "edge", gamma=3.0)):
        after = z_of(model, transcripts, 1)
    factor = torch.ones(11, 4)
    factor[:, 0] = 0.5
    factor[8] *= torch.tensor([3.0, 3.0, 1.0, 1.0])
    torch.testing.assert_close(after[0], before[0] * factor[..., None], **TOLERANCE)


def test_heads_that_are_not_there_are_refused_before_anything_runs() -> None:
    with pytest.raises(CliffscopeError, match="query heads 0 to 3; the 2 key-value heads"):
        with model_of("llama").intervene(ScaleHeads([(0, 4)])):
            pass
