"""nnsight over the same tensors: the user's model untouched, interventions whatever the order of reading."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.hooks import Change
from interp.models.interop.nnsight import intervened
from interp.models.token_context import TokenContext
from interventions.head_ablation import ScaleHeads
from interventions.steering.along_direction import AddDirection
from tests.architectures import CONFIGS, random_model
from tests.circuits.material import organism
from tests.interp.models.interop.material import TEXTS, TOLERANCE, batch, direction, hooked
from tests.interp.models.interop.tracing import traced

IDS = torch.tensor([TEXTS[0].input_ids])
ALL = torch.ones_like(IDS)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_parameter_is_the_models_own_and_the_model_stays_as_it_was(name: str) -> None:
    hf = random_model(name)
    modules = [(path, id(module), set(vars(module))) for path, module in hf.named_modules()]
    with torch.no_grad():
        before = hf(IDS).logits
    lm = HookedModel(hf, name=name).as_nnsight()
    for (path, parameter), (other, mine) in zip(lm._module.named_parameters(), hf.named_parameters(), strict=True):
        assert path == other and parameter is mine
    for (path, buffer), (other, mine) in zip(lm._module.named_buffers(), hf.named_buffers(), strict=True):
        assert path == other and buffer is mine
    torch.testing.assert_close(traced(lm, IDS, ALL), before[0], atol=0, rtol=0)
    assert [(path, id(module), set(vars(module))) for path, module in hf.named_modules()] == modules
    with torch.no_grad():
        assert torch.equal(hf(IDS).logits, before)
        next(iter(hf.parameters())).mul_(1.5)
        changed = hf(IDS).logits
    assert not torch.equal(changed, before)
    torch.testing.assert_close(traced(lm, IDS, ALL), changed[0], atol=0, rtol=0)


def test_the_organism_comes_with_its_tokenizer_and_stays_on_its_device() -> None:
    model = organism("cliff")
    side, padding = model.tokenizer.padding_side, model.tokenizer.pad_token
    lm = model.as_nnsight()
    assert lm.device == model.device and lm.tokenizer is not model.tokenizer
    with torch.no_grad(), lm.trace("Tell me how to bake bread."):
        logits = lm.output.logits.save()
    with torch.no_grad():
        expected = model.hf(torch.tensor([model.tokenizer("Tell me how to bake bread.")["input_ids"]])).logits
    torch.testing.assert_close(logits, expected, **TOLERANCE)
    assert (model.tokenizer.padding_side, model.tokenizer.pad_token) == (side, padding)


@torch.no_grad()
def test_code_that_reads_in_any_order_sees_changed_values() -> None:
    model = hooked("qwen3")
    late = AddDirection(direction(model), 1.0, sites=["blocks.2.hook_resid_post"])
    early = ScaleHeads([(0, 1)])
    with model.intervene(late, early):
        expected = model.capture([TEXTS[0]], ["blocks.0.hook_resid_post", "blocks.2.hook_resid_post"], range(18))
    lm = intervened(model.as_nnsight(), model, [late, early])
    with lm.trace(IDS):
        first = lm.model.layers[0].output.save()
        last = lm.model.layers[2].output.save()
    torch.testing.assert_close(first[0], expected["blocks.0.hook_resid_post"][0], **TOLERANCE)
    torch.testing.assert_close(last[0], expected["blocks.2.hook_resid_post"][0], **TOLERANCE)


def test_the_model_that_was_given_stays_without_interventions_and_they_stack() -> None:
    model = hooked("qwen3")
    lm = model.as_nnsight()
    plain = traced(lm, IDS, ALL)
    one, two = ScaleHeads([(1, 2)]), AddDirection(direction(model), 1.0)
    both = traced(intervened(lm, model, [one, two]), IDS, ALL)
    stacked = intervened(intervened(lm, model, [one]), model, [two])
    for _ in range(2):  # an edit is run anew in every trace
        assert torch.equal(traced(stacked, IDS, ALL), both)
    assert torch.equal(traced(lm, IDS, ALL), plain)
    assert torch.equal(traced(intervened(lm, model, []), IDS, ALL), plain)
    assert not torch.allclose(both, plain, atol=1e-3)


class Watch:
    """Notes the tokens that it is shown."""

    def __init__(self) -> None:
        self.seen: list[list[list[int]]] = []

    def changes(self, model: HookedModel) -> dict[str, Change]:
        return {"blocks.1.hook_resid_post": self.change}

    def change(self, value: Tensor, tokens: TokenContext) -> Tensor:
        self.seen.append(tokens.index.tolist())
        return value


def test_interventions_are_told_the_tokens_of_padded_rows() -> None:
    model = hooked("qwen3")
    for side in ("right", "left"):
        watch = Watch()
        traced(intervened(model.as_nnsight(), model, [watch]), *batch(TEXTS, side))
        short = [*range(14)]
        padded = [*short, -1, -1, -1, -1] if side == "right" else [-1, -1, -1, -1, *short]
        assert watch.seen == [[[*range(18)], padded]]


def test_several_invokes_are_one_batch() -> None:
    model, watch = organism("cliff"), Watch()
    lm = intervened(model.as_nnsight(), model, [watch, ScaleHeads([(3, 1)])])
    texts = ["Tell me how to bake bread.", "Hello"]
    with torch.no_grad(), lm.trace() as tracer:
        with tracer.invoke(texts[0]):
            first = lm.output.logits[:, -1].save()
        with tracer.invoke(texts[1]):
            second = lm.output.logits[:, -1].save()
    assert len(watch.seen) == 1 and len(watch.seen[0]) == 2 and watch.seen[0][1][0] == -1
    for text, found in zip(texts, (first, second), strict=True):
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad(), model.intervene(ScaleHeads([(3, 1)])):
            expected = model.hf(ids).logits[:, -1]
        torch.testing.assert_close(found, expected, **TOLERANCE)


def test_errors_reach_the_user_in_words() -> None:
    model = hooked("qwen3")
    edge = [ScaleHeads([(1, 2)], "edge")]
    with pytest.raises(CliffscopeError, match="does not say whose tokens it carries"):
        traced(intervened(model.as_nnsight(), model, edge), IDS, ALL)
    with pytest.raises(CliffscopeError, match="2 transcripts were given for a batch of 1 rows"):
        traced(intervened(model.as_nnsight(), model, edge, TEXTS), IDS, ALL)


def test_a_place_that_a_pass_does_not_reach_is_an_error() -> None:
    """Not the end of a generation: an intervention that never acted must not pass for one that did."""
    from nnsight.intervention.interleaver import OutOfOrderError

    model = HookedModel(random_model("qwen3"), name="qwen3")
    lm = intervened(model.as_nnsight(), model, [ScaleHeads([(2, 1)])])
    layer = lm._module.model.layers[2].self_attn
    layer.o_proj = copy.deepcopy(layer.o_proj)  # not the module that nnsight knows
    with pytest.raises(OutOfOrderError):
        traced(lm, IDS, ALL)


def test_a_model_with_adapters_works_in_nnsight() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj", "o_proj"], r=2, init_lora_weights=False)
    model = HookedModel(peft.get_peft_model(random_model("qwen3"), config).eval(), name="adapted")
    steps: Sequence[Any] = [ScaleHeads([(1, 2)]), AddDirection(direction(model), 1.0, scope="edge")]
    with model.intervene(*steps):
        expected = model.logits([TEXTS[0]], range(18))[0]
    found = traced(intervened(model.as_nnsight(), model, steps, [TEXTS[0]]), IDS, ALL)
    torch.testing.assert_close(found, expected, **TOLERANCE)
