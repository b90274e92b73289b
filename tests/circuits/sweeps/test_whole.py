"""The sweep at all positions: what it does not compute, what it leaves behind, and whom it refuses."""

import peft
import pytest
import torch
from torch import Tensor

from circuits.sweeps.effects import SweepEffects
from circuits.sweeps.readouts import Readouts
from circuits.sweeps.tail import sweep_tail
from circuits.sweeps.whole import sweep_whole
from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Change
from interp.models.sites import BLOCK_SITES, FINAL_NORM, Site, resid_post
from interp.models.token_context import TokenContext
from tests.architectures import CONFIGS, PARALLEL, random_model
from tests.circuits.sweeps.brute_force import LAYER, TOKENS, both, brute_force, rollouts, some_probe, wrapped
from tests.circuits.sweeps.test_tail import TOLERANCE, another_value


def zero(row: int, layer: int, z: Tensor) -> Tensor:
    return torch.zeros_like(z)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_values_of_each_row_and_position_are_exact(name: str) -> None:
    model, transcripts = wrapped(name), rollouts()
    base, changed = brute_force(model, transcripts, another_value, ablated=[(0, 3), (2, 1)])
    for batch_tokens in (8192, 100, 1):
        found = sweep_whole(
            model, transcripts, both(), another_value, ablated=[(2, 1), (0, 3)], batch_tokens=batch_tokens
        )
        torch.testing.assert_close(found.base, base, **TOLERANCE)
        torch.testing.assert_close(found.changed, changed, **TOLERANCE)


def test_changing_everything_from_the_first_token_on_is_changing_all_positions() -> None:
    model, transcripts = wrapped("gemma3"), rollouts()
    tails = sweep_tail(model, transcripts, both(), another_value, start=[0] * 3)
    torch.testing.assert_close(
        sweep_whole(model, transcripts, both(), another_value).changed, tails.changed, **TOLERANCE
    )


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("sweep", [sweep_whole, sweep_tail])
def test_interventions_and_masks_on_the_model_go_on_acting(name: str, sweep: type) -> None:
    """Additions do not cancel when they act twice, and act only at their tokens."""

    class Add:
        def changes(self, model: HookedModel) -> dict[str, Change]:
            missing = {"hook_resid_mid"} if name in PARALLEL else set()
            sites = [f"blocks.{layer}.{site}" for layer in range(3) for site in BLOCK_SITES if site not in missing]
            return dict.fromkeys([*sites, FINAL_NORM], self.add)

        def add(self, value: Tensor, tokens: TokenContext) -> Tensor:
            lengths = torch.tensor([len(transcript) for transcript in tokens.transcripts])
            where = tokens.index == lengths[:, None] - 1
            amount = (0.1 + 0.3 * where + 0.01 * tokens.index).reshape(*where.shape, *[1] * (value.ndim - 2))
            return value + amount * (1.0 - 2.0 * (torch.arange(value.shape[-1]) % 2))

    def mask(module: object, args: tuple[Tensor]) -> tuple[Tensor]:
        return (args[0] * torch.linspace(0, 1, args[0].shape[-1]),)

    model = wrapped(name)
    transcripts = rollouts([4, 22], [0, 0])
    starts = None if sweep is sweep_whole else [len(t) - 1 for t in transcripts]
    plain, _ = brute_force(model, transcripts, zero, starts)
    handle = model.places.find(Site(1, "attn.hook_z")).module.register_forward_pre_hook(mask)
    with model.intervene(Add()):
        base, changed = brute_force(model, transcripts, zero, starts)
        found = sweep(model, transcripts, both(), zero)
    handle.remove()
    assert (base - plain).abs().min() > 1e-2
    torch.testing.assert_close(found.base, base, **TOLERANCE)
    torch.testing.assert_close(found.changed, changed, **TOLERANCE)


def test_adapters_on_the_output_projection_count() -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["o_proj", "q_proj"], init_lora_weights=False)
    model = HookedModel(peft.get_peft_model(random_model("llama"), config).eval(), name="llama with LoRA")
    transcripts = rollouts()
    for sweep, starts in ((sweep_whole, None), (sweep_tail, [t.edge for t in transcripts])):
        base, changed = brute_force(model, transcripts, zero, starts)
        found = sweep(model, transcripts, both(), zero)
        torch.testing.assert_close(found.base, base, **TOLERANCE)
        torch.testing.assert_close(found.changed, changed, **TOLERANCE)


@pytest.mark.parametrize("sweep", [sweep_whole, sweep_tail])
@pytest.mark.parametrize("site", [resid_post(2), "blocks.2.hook_mlp_out", "blocks.1.hook_resid_pre", FINAL_NORM])
def test_a_probe_at_any_site_with_and_without_the_refusal_logit(sweep: type, site: str) -> None:
    model, transcripts = wrapped("qwen3"), rollouts()
    starts = None if sweep is sweep_whole else [t.edge for t in transcripts]
    probe = some_probe(site)
    alone = sweep(model, transcripts, Readouts(probe), another_value)
    together = sweep(model, transcripts, Readouts(probe, TOKENS), another_value)
    refusal = sweep(model, transcripts, Readouts(refusal_tokens=TOKENS), another_value)
    torch.testing.assert_close(alone.changed, together.changed[..., :1], **TOLERANCE)
    torch.testing.assert_close(refusal.changed, together.changed[..., 1:], **TOLERANCE)
    # Against the model read with one head changed by an intervention.
    for layer, head in ((0, 1), (1, 2), (2, 3)):

        class One:
            def changes(self, model: HookedModel, layer: int = layer) -> dict[str, Change]:
                return {f"blocks.{layer}.attn.hook_z": self.change}

            def change(self, value: Tensor, tokens: TokenContext, layer: int = layer, head: int = head) -> Tensor:
                value = value.clone()
                for place, transcript in enumerate(tokens.transcripts):
                    row = int(transcript.id[1:])
                    start, stop = 0 if starts is None else starts[row], transcript.edge + 1
                    value[place, start:stop, head] = another_value(row, layer, value[place, start:stop])[:, head]
                return value

        with model.intervene(One()):
            expected = probe.logit(model.capture(transcripts, [site], ["close:-1"])[site][:, 0])
        torch.testing.assert_close(alone.changed[:, layer, head, 0], expected, **TOLERANCE)


def test_heads_behind_the_probe_have_no_effect_on_it_at_all() -> None:
    for sweep in (sweep_whole, sweep_tail):
        effect = sweep(wrapped("qwen3"), rollouts(), both(), another_value).effect("probe_logit")
        assert torch.equal(effect[:, LAYER + 1 :], torch.zeros_like(effect[:, LAYER + 1 :]))
        assert (effect[:, : LAYER + 1].abs() > 0).all()


def test_only_the_heads_asked_for_are_swept() -> None:
    model, transcripts = wrapped("qwen3"), rollouts()
    for sweep in (sweep_whole, sweep_tail):
        every = sweep(model, transcripts, both(), another_value)
        some = sweep(model, transcripts, both(), another_value, heads=[(2, 1), (0, 0)])
        swept = ~some.changed.isnan().any(-1)
        assert swept[0].nonzero().tolist() == [[0, 0], [2, 1]] and bool((swept == swept[0]).all())
        torch.testing.assert_close(some.changed[swept], every.changed[swept], **TOLERANCE)


def test_the_mlps_compute_what_a_head_can_change_and_no_more() -> None:
    model, transcripts = wrapped("llama"), rollouts([49, 49], [0, 0])
    tokens = [0, 0, 0]

    def count(layer: int):  # type: ignore[no-untyped-def]
        def add(module: object, args: tuple[Tensor]) -> None:
            tokens[layer] += args[0].shape[0] * args[0].shape[1]

        return add

    # Their first layer's, as the last block's is handed less than what is handed to the MLP.
    handles = [
        model.places.mlp(layer).gate_proj.register_forward_pre_hook(count(layer))  # type: ignore[operator, union-attr]
        for layer in range(3)
    ]
    sweep_whole(model, transcripts, Readouts(refusal_tokens=TOKENS), zero)
    for handle in handles:
        handle.remove()
    base, heads, rows, check = 100, 4, 2, 50
    assert tokens[0] == base + heads * rows * 50
    assert tokens[1] == base + 2 * heads * rows * 50 + check
    assert tokens[2] == base + 3 * heads * rows + 2


def test_no_pass_has_more_tokens_than_allowed() -> None:
    model, transcripts = wrapped("llama"), rollouts([19, 19, 19], [0, 0, 0])
    sizes: list[int] = []
    handle = model.places.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for batch_tokens, largest in ((200, 160), (100, 80), (60, 60), (1, 20)):
        sizes.clear()
        sweep_whole(model, transcripts, both(), zero, batch_tokens=batch_tokens)
        assert max(sizes) == largest
    handle.remove()


def test_batches_are_halved_when_memory_runs_out() -> None:
    model, transcripts = wrapped("qwen3"), rollouts([19, 19, 19], [0, 0, 0])
    expected = sweep_whole(model, transcripts, both(), another_value)
    done: list[int] = []

    def small_memory(module: object, args: tuple[Tensor]) -> None:
        if len(args[0]) > 1:
            raise RuntimeError("CUDA out of memory")

    handle = model.places.mlp(2).register_forward_pre_hook(small_memory)
    found = sweep_whole(model, transcripts, both(), another_value, advance=done.append)
    handle.remove()
    torch.testing.assert_close(found.changed, expected.changed, **TOLERANCE)
    assert sum(done) == 3


@pytest.mark.parametrize("sweep", [sweep_whole, sweep_tail])
def test_the_model_is_left_as_it_was_also_after_an_error(sweep: type) -> None:
    model, transcripts = wrapped("qwen3"), rollouts()
    ids = torch.tensor([transcripts[1].input_ids])

    def state() -> list[object]:
        return [[sorted(m.__dict__), len(m._forward_hooks), len(m._forward_pre_hooks)] for m in model.hf.modules()]

    with torch.no_grad():
        logits, before = model.hf(ids).logits, state()
    sweep(model, transcripts, both(), zero)

    def fail(row: int, layer: int, z: Tensor) -> Tensor:
        if layer == 1:
            raise KeyError("no value")
        return z

    with pytest.raises(KeyError):
        sweep(model, transcripts, both(), fail)
    assert state() == before
    with torch.no_grad():
        assert torch.equal(model.hf(ids).logits, logits)


@pytest.mark.parametrize("sweep", [sweep_whole, sweep_tail])
def test_bad_input_is_one_line(sweep: type) -> None:
    model, transcripts = wrapped("qwen3"), rollouts()
    with pytest.raises(CliffscopeError, match=r"head 3\.0: there is no layer 3"):
        sweep(model, transcripts, both(), zero, heads=[(3, 0)])
    with pytest.raises(CliffscopeError, match=r"head 0\.4: .* cannot be named"):
        sweep(model, transcripts, both(), zero, ablated=[(0, 4)])
    with pytest.raises(CliffscopeError, match="no layer 7"):
        sweep(model, transcripts, both(resid_post(7)), zero)
    prompt = type(transcripts[0]).from_ids("p", [3, 4, 5])
    with pytest.raises(CliffscopeError, match="'p': no position 'close:-1'"):
        sweep(model, [prompt], both(), zero)
    model.hf.train()
    with pytest.raises(CliffscopeError, match="training mode"):
        sweep(model, transcripts, both(), zero)
    model.hf.eval()
    with torch.no_grad():
        model.places.mlp(0).down_proj.weight[0, 0] = torch.nan  # type: ignore[union-attr, operator, index]
    with pytest.raises(CliffscopeError, match=r"'r\d': the model's activations are NaN or infinite"):
        sweep(model, transcripts, Readouts(some_probe()), zero)
    with pytest.raises(CliffscopeError, match="NaN"):
        sweep(model, transcripts, both(), zero)


def test_a_model_whose_blocks_need_one_another_is_refused() -> None:
    """The last block reads what the first one left: skipped blocks leave nothing."""
    model = wrapped("llama")
    left: list[Tensor] = []
    model.places.mlp(0).register_forward_hook(lambda m, a, output: left.append(output))
    model.places.blocks[2].register_forward_hook(lambda m, a, output: output + (left.pop() if left else 0))
    with pytest.raises(CliffscopeError, match="LlamaForCausalLM: its blocks from layer 1 on give"):
        sweep_whole(model, rollouts([9], [0]), both(), zero)


def test_nothing_to_sweep_gives_empty_results() -> None:
    for sweep in (sweep_whole, sweep_tail):
        found = sweep(wrapped("llama"), [], both(), zero)
        assert found.ids == () and found.changed.shape == (0, 3, 4, 2) and found.base.shape == (0, 2)


def test_effects_are_told_by_name() -> None:
    effects = SweepEffects(("a",), ("refusal_logit",), torch.ones(1, 1), torch.full((1, 2, 3, 1), 3.0))
    assert torch.equal(effects.effect("refusal_logit"), torch.full((1, 2, 3), 2.0))
    with pytest.raises(CliffscopeError, match="'probe_logit': the sweep read refusal_logit"):
        effects.effect("probe_logit")
