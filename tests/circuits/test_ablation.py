"""Single-head ablation: exact on every architecture, at both scopes, and it finds the heads that were planted."""

import pytest
import torch
import transformers
from torch import Tensor

from circuits.ablation import Scope, ablation, ablation_sweep
from circuits.sweeps.readouts import Readouts
from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.sites import resid_post
from interp.organisms import sample_prompts, truth
from interp.organisms.prompt_set import as_prompt_set
from interp.rollouts.model_generator import ModelGenerator
from interventions.heads import Head, parse_heads
from probes.linear import LinearProbe
from tests.architectures import CONFIGS
from tests.circuits.sweeps.brute_force import both, brute_force, rollouts, wrapped

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("scope", ["all", "from-edge"])
def test_the_same_as_a_full_run_for_each_head(name: str, scope: Scope) -> None:
    model, transcripts = wrapped(name), rollouts()
    means = torch.randn(3, 4, model.d_head, generator=torch.Generator().manual_seed(6))
    starts = None if scope == "all" else [t.edge for t in transcripts]
    kinds = {
        (0.0, None): lambda row, layer, z: torch.zeros_like(z),
        (0.4, None): lambda row, layer, z: 0.4 * z,
        (0.25, means): lambda row, layer, z: 0.25 * z + 0.75 * means[layer],
    }
    for (gamma, mean), change in kinds.items():
        base, changed = brute_force(model, transcripts, change, starts)
        found = ablation_sweep(model, transcripts, both(), scope=scope, gamma=gamma, means=mean)
        torch.testing.assert_close(found.base, base, **TOLERANCE)
        torch.testing.assert_close(found.changed, changed, **TOLERANCE)
        assert found.ids == ("r0", "r1", "r2") and found.readouts == ("probe_logit", "refusal_logit")


def unusual(config: transformers.PretrainedConfig) -> HookedModel:
    torch.manual_seed(0)
    hf = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.normal_(std=0.15) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    return HookedModel(hf)


def zeros(row: int, layer: int, z: Tensor) -> Tensor:
    return torch.zeros_like(z)


SIZES = {"vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def test_an_mlp_that_is_no_module_of_its_own() -> None:
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "max_position_embeddings": 128}
    model = unusual(transformers.OPTConfig(num_hidden_layers=3, num_attention_heads=4, **sizes, **SIZES))
    transcripts = rollouts()
    found = ablation_sweep(model, transcripts, both(), scope="all")
    torch.testing.assert_close(found.changed, brute_force(model, transcripts, zeros)[1], **TOLERANCE)


def test_positions_that_are_distances_and_a_residual_stream_that_the_mlp_adds() -> None:
    """MPT tells its attention distances by the order of keys, so that copies side by side are refused."""
    model = unusual(transformers.MptConfig(d_model=32, n_layers=3, n_heads=4, max_seq_len=128, **SIZES))
    transcripts = rollouts()
    found = ablation_sweep(model, transcripts, both(), scope="all")
    torch.testing.assert_close(found.changed, brute_force(model, transcripts, zeros)[1], **TOLERANCE)
    with pytest.raises(CliffscopeError, match=r"MptForCausalLM: its blocks .* it cannot be swept at this scope"):
        ablation_sweep(model, transcripts, both(), scope="from-edge")


def test_an_attention_that_adds_more_than_its_heads_is_refused() -> None:
    model = unusual(transformers.BloomConfig(hidden_size=32, n_layer=3, n_head=4, **SIZES))
    for scope in ("all", "from-edge"):
        with pytest.raises(CliffscopeError, match=r"BloomForCausalLM: its blocks .* it cannot be swept at this scope"):
            ablation_sweep(model, rollouts(), both(), scope=scope)  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["all", "from-edge"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_under_a_set_of_ablated_heads(scope: Scope, attention: str) -> None:
    model, transcripts = wrapped("gemma3", attention), rollouts()
    ablated = [Head(0, 1), Head(1, 0), Head(1, 3)]
    starts = None if scope == "all" else [t.edge for t in transcripts]
    base, changed = brute_force(model, transcripts, ablation(model, 0.3), starts, ablated)
    found = ablation_sweep(model, transcripts, both(), scope=scope, gamma=0.3, ablated=ablated, batch_tokens=70)
    torch.testing.assert_close(found.base, base, **TOLERANCE)
    torch.testing.assert_close(found.changed, changed, **TOLERANCE)
    # A head that is ablated anyway changes nothing.
    layers, heads = zip(*ablated, strict=True)
    assert found.effect("refusal_logit")[:, layers, heads].abs().max() < 1e-5


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("scope", ["all", "from-edge"])
def test_a_head_left_as_it_is_has_no_effect(name: str, scope: Scope) -> None:
    found = ablation_sweep(wrapped(name), rollouts(), both(), scope=scope, gamma=1.0)
    assert (found.changed - found.base[:, None, None]).abs().max() < 2e-5


def test_half_precision_gives_the_same_ranking_of_what_is_large() -> None:
    model, transcripts = wrapped("llama"), rollouts()
    full = {scope: ablation_sweep(model, transcripts, both(), scope=scope) for scope in ("all", "from-edge")}
    model.hf.to(torch.bfloat16)
    for scope, expected in full.items():
        found = ablation_sweep(model, transcripts, both(), scope=scope)  # type: ignore[arg-type]
        assert found.changed.dtype == torch.float32
        error = (found.effect("refusal_logit") - expected.effect("refusal_logit")).abs()
        assert error.max() < 0.1 < expected.effect("refusal_logit").abs().max()


def test_bad_arguments_are_one_line() -> None:
    model = wrapped("llama")
    with pytest.raises(CliffscopeError, match="gamma: expected a finite number"):
        ablation(model, float("nan"))
    with pytest.raises(CliffscopeError, match=r"means: expected .* \[3, 4, 8\], found \[3, 4, 9\]"):
        ablation(model, means=torch.zeros(3, 4, 9))
    with pytest.raises(CliffscopeError, match="with NaN or infinity"):
        ablation(model, means=torch.full((3, 4, 8), torch.nan))


# ---- on the organism ----


@pytest.fixture(scope="module")
def organism() -> HookedModel:
    return HookedModel.load("organism:cliff")


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["all", "from-edge"])
def test_the_planted_heads_come_first(organism: HookedModel, scope: Scope) -> None:
    prompts = as_prompt_set(sample_prompts("harmful", 40, seed=99))
    generator = ModelGenerator(organism, max_new_tokens=300)
    planted = truth("cliff")
    made = [rollout for rollout in generator.generate(prompts) if rollout.category in planted["categories"]]
    transcripts = organism.transcripts().build_all(made)
    direction = LinearProbe(torch.tensor(planted["direction"]), 0.0).at(site=resid_post(5))
    found = ablation_sweep(organism, transcripts, Readouts.of(organism, direction), scope=scope)
    effect = found.effect("refusal_logit").mean(0)
    best = [Head(*divmod(place, organism.n_heads)) for place in effect.flatten().argsort(descending=True).tolist()]
    assert set(best[:2]) == set(parse_heads(",".join(planted["heads"])))
    assert effect[best[1]] > 3 * effect[best[2]].clamp(min=0)
    probe = found.effect("probe_logit").mean(0).flatten()
    assert {Head(*divmod(place, 8)) for place in probe.topk(2).indices.tolist()} == set(best[:2])
