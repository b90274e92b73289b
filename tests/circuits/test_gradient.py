"""Attribution patching: the same as finite differences, exact where it must be, and near the exact sweep."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from circuits.ablation import Scope, ablation_sweep
from circuits.cases import Cases
from circuits.gradient import gradient_effects, rank_correlation, score_gradient
from circuits.sweeps.readouts import Readouts
from interp import HookedModel, ModelGenerator
from interp.errors import CliffscopeError
from interp.judges import KeywordJudge, judged
from interp.models.hooks import hook
from interp.models.sites import Site, resid_post
from interp.organisms.prompt_set import heldout_prompts
from interp.transcripts import Transcript
from interventions.heads import Head
from probes import Examples, LinearProbe, fit_probe
from tests.architectures import CONFIGS, random_model

REFUSAL = (5, 6, 7)
SCOPES: tuple[Scope, ...] = ("all", "from-edge")


def transcript(length: int, seed: int = 0) -> Transcript:
    """`length` tokens up to the edge, and two after it."""
    labels = ["template"] * 2 + ["thinking"] * (length - 5) + ["close"] * 3 + ["response"] * 2
    ids = torch.randint(3, 96, (len(labels),), generator=torch.Generator().manual_seed(seed)).tolist()
    return Transcript(f"r{seed}", tuple(ids), ("",) * len(ids), tuple(labels), 2, "closed")


TEXTS = [transcript(length, seed) for seed, length in enumerate([12, 24, 17])]


def readouts(model: HookedModel) -> Readouts:
    weight = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    return Readouts(LinearProbe(weight, 0.3).at(site=resid_post(1), layer=1), REFUSAL)


def effects_of(model: HookedModel, texts: list[Transcript] = TEXTS, **options: object) -> Tensor:
    """`[rollout, layer, head, readout]`."""
    found = gradient_effects(model, texts, readouts(model), **options)  # type: ignore[arg-type]
    return found.changed - found.base[:, None, None]


def read_with(model: HookedModel, text: Transcript, layer: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Both readouts in the model's own precision when z `[pos, head, d_head]` of a layer is changed, by a full pass."""
    probe = readouts(model).probe
    residual: list[Tensor] = []
    assert probe is not None
    handles = [
        hook(model.places.find(Site(layer, "attn.hook_z")), lambda z: change(z[0])[None]),
        hook(model.places.find(Site(1, "hook_resid_post")), residual.append),
    ]
    with torch.no_grad():
        logits = model.hf(torch.tensor([text.input_ids[: text.edge + 1]])).logits[0, -1]
    for handle in handles:
        handle.remove()
    rest = torch.ones(len(logits), dtype=torch.bool).index_fill(0, torch.tensor(REFUSAL), False)
    refusal = logits[list(REFUSAL)].logsumexp(0) - logits[rest].logsumexp(0)
    return torch.stack([residual[0][0, -1] @ probe.weight.to(logits) + probe.bias, refusal])


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_finite_differences(name: str, scope: Scope) -> None:
    """Ablating a little, by central differences in float64, gives the same to first order."""
    model = HookedModel(random_model(name).double(), name=name)
    if name in ("mixtral", "qwen3_moe"):
        model.hf.set_experts_implementation("eager")  # the fused ones know no float64
    found = effects_of(model, scope=scope)
    small = 2e-3  # norms are taken in float32, so that smaller differences drown in rounding
    for row, text in list(enumerate(TEXTS))[:2]:
        for layer, head in [(0, 1), (1, 3), (2, 0)]:

            def scaled(by: float, text: Transcript = text, layer: int = layer, head: int = head) -> Tensor:
                def change(z: Tensor) -> Tensor:
                    z = z.clone()
                    z[0 if scope == "all" else -1 :, head] *= by
                    return z

                return read_with(model, text, layer, change)

            expected = (scaled(1 - small) - scaled(1 + small)) / (2 * small)
            torch.testing.assert_close(found[row, layer, head].double(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["qwen3", "gemma3", "gpt2"])
def test_integrated_gradients_are_complete(name: str, scope: Scope) -> None:
    """Over the heads of a layer they add up to the exact effect of ablating the whole layer."""
    model = HookedModel(random_model(name), name=name)
    means = torch.randn(3, 4, model.d_head, generator=torch.Generator().manual_seed(2))
    text, exact = TEXTS[0], torch.empty(3, 2)
    for layer in range(3):

        def ablated(z: Tensor, layer: int = layer) -> Tensor:
            changes = torch.ones(len(z), 1, 1) if scope == "all" else torch.eye(len(z))[-1][:, None, None]
            return torch.lerp(z, 0.3 * z + 0.7 * means[layer], changes)

        exact[layer] = read_with(model, text, layer, ablated) - read_with(model, text, layer, lambda z: z)
    coarse, fine = (
        effects_of(model, [text], scope=scope, gamma=0.3, means=means, steps=steps)[0].sum(1) for steps in (2, 12)
    )
    assert float((fine - exact).abs().max()) < 0.02 * float(exact.abs().max())
    assert float((fine - exact).abs().max()) < float((coarse - exact).abs().max()) / 4


def test_is_exact_where_the_readout_is_linear_in_z() -> None:
    """A probe on a block's own output without norms in between: from the last block before it all is linear in z."""
    model = HookedModel(random_model("gpt_neox"))  # attention and MLP in parallel
    probe = readouts(model).probe
    found = gradient_effects(model, TEXTS, Readouts(probe))
    exact = ablation_sweep(model, TEXTS, Readouts(probe), scope="all")
    linear = (slice(None), 1)
    torch.testing.assert_close(found.effect("probe_logit")[linear], exact.effect("probe_logit")[linear])
    assert float((found.effect("probe_logit")[:, 0] - exact.effect("probe_logit")[:, 0]).abs().max()) > 1e-3
    assert torch.equal(found.effect("probe_logit")[:, 2], torch.zeros(3, 4)), "above the probe there is no effect"


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", CONFIGS)
def test_batches_and_what_follows_the_edge_change_nothing(name: str, scope: Scope) -> None:
    model = HookedModel(random_model(name), name=name)
    together = effects_of(model, scope=scope)
    alone = torch.cat([effects_of(model, [text], scope=scope, batch_tokens=1) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    base = gradient_effects(model, TEXTS, readouts(model), scope=scope).base
    torch.testing.assert_close(base[0], read_with(model, TEXTS[0], 0, lambda z: z), atol=1e-5, rtol=1e-5)


def test_leaves_the_model_as_it_was() -> None:
    model = HookedModel(random_model("qwen3"))
    parameters = list(model.hf.parameters())
    parameters[0].requires_grad_(False)
    before = [parameter.requires_grad for parameter in parameters]
    seen = []
    handle = model.places.blocks[1].register_forward_hook(lambda *args: seen.append(1))
    with torch.no_grad():
        effects_of(model)
    assert len(seen) == 1, "others' hooks act, one forward pass for all"
    seen.clear()
    broken = model.places.blocks[2].register_forward_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        effects_of(model)
    broken.remove()
    handle.remove()
    assert [parameter.requires_grad for parameter in parameters] == before
    assert all(parameter.grad is None for parameter in parameters)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.hf.modules())


def test_interventions_act() -> None:
    """With a head scaled to nothing, ablating it changes nothing."""

    class Silence:
        def changes(self, model: HookedModel) -> dict[str, Callable[[Tensor, object], Tensor]]:
            keep = torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None]
            return {"blocks.1.attn.hook_z": lambda value, tokens: value * keep}

    model = HookedModel(random_model("llama"))
    with model.intervene(Silence()):
        for scope in SCOPES:
            found = effects_of(model, scope=scope)
            assert torch.equal(found[:, 1, 1], torch.zeros(3, 2))
            assert bool((found[:, 1, 2] != 0).all())


def test_half_precision_is_near() -> None:
    model = HookedModel(random_model("qwen3"))
    exact = effects_of(model)
    rounded = effects_of(HookedModel(random_model("qwen3").bfloat16()))
    assert rounded.dtype == torch.float32
    assert rank_correlation(exact.numpy(), rounded.numpy()) > 0.97


def test_bad_requests_raise() -> None:
    model = HookedModel(random_model("llama"))
    with pytest.raises(CliffscopeError, match="no position 'close:-1'"):
        effects_of(model, [Transcript.from_ids("bare", range(9))])
    with pytest.raises(CliffscopeError, match="means: expected finite values"):
        effects_of(model, means=torch.zeros(3, 4, 5))
    with torch.no_grad():
        model.places.output_weight(2)[0, 0, 0] = torch.nan
    with pytest.raises(CliffscopeError, match="NaN"):
        effects_of(model)


def test_rank_correlation_is_spearmans() -> None:
    one = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, np.array([[1.0, 3.0], [2.0, 4.0]])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert np.isnan(rank_correlation(one, np.zeros((2, 2))))


@pytest.mark.slow
def test_finds_the_planted_heads() -> None:
    model = HookedModel.load("organism:cliff")
    rollouts = judged(ModelGenerator(model).generate(heldout_prompts(30, 20)), KeywordJudge())
    probe, _ = fit_probe(model, Examples.of(model, rollouts, ["close:-1"]))
    cases = Cases.of(model, probe, rollouts)
    planted = {Head(3, 1), Head(4, 5)}
    for scope in SCOPES:
        scores = score_gradient(model, probe, cases, scope=scope)
        assert set(scores.top(2)) == set(scores.suppressors) == planted
        assert scores.facts["rank_correlation"] > 0.85 and scores.facts["rank_correlation_n"] == 8
    exact = ablation_sweep(model, cases.complied, Readouts.of(model)).effect("refusal_logit").mean(0)
    np.testing.assert_allclose(scores.grid("exact_refusal"), exact, atol=1e-4)
    assert {*score_gradient(model, probe, cases, steps=4).suppressors} == planted
