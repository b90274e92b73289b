"""A model whose hidden states were asked for keeps hooks of transformers' own; they are no reason to refuse it."""

import torch

from interp.models.hooked_model import HookedModel
from tests.architectures import random_model


def test_hooks_that_transformers_leaves_behind_do_not_matter() -> None:
    model = HookedModel(random_model("llama"))
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        states = model.hf(ids, output_hidden_states=True).hidden_states
    assert any(module._forward_hooks for module in model.hf.modules())
    lm = model.as_nnsight()
    with torch.no_grad():
        again = lm._module(ids, output_hidden_states=True).hidden_states
    assert len(again) == len(states) and all(torch.equal(a, b) for a, b in zip(again, states, strict=True))
    bridge = model.as_transformer_lens()
    assert torch.allclose(bridge(ids), model.hf(ids).logits, atol=1e-5)
