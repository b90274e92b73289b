"""Query rows and output columns of heads on eleven architectures, against the names in transformers' own source."""

from typing import Any

import pytest
import torch
from torch import nn

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.heads import Head
from selection.repair.head_parameters import head_entries
from tests.architectures import CONFIGS, random_model

LAYER = 1


def expected(name: str, model: Any, head: int) -> dict[str, torch.Tensor]:
    """By hand, from each architecture's modeling file."""
    d_head = HookedModel(model).d_head
    own = slice(head * d_head, (head + 1) * d_head)
    marks: dict[str, tuple[Any, ...]]
    if name == "gpt2":  # Conv1D keeps [in, out]; queries, keys, values side by side
        at = f"transformer.h.{LAYER}.attn"
        marks = {
            f"{at}.c_attn.weight": (slice(None), own),
            f"{at}.c_attn.bias": (own,),
            f"{at}.c_proj.weight": (own, slice(None)),
        }
    elif name == "gpt_neox":  # query, key and value of each head together
        at = f"gpt_neox.layers.{LAYER}.attention"
        rows = slice(3 * head * d_head, (3 * head + 1) * d_head)
        marks = {
            f"{at}.query_key_value.weight": (rows,),
            f"{at}.query_key_value.bias": (rows,),
            f"{at}.dense.weight": (slice(None), own),
        }
    else:
        at = f"model.layers.{LAYER}.self_attn"
        queries = "qkv_proj" if name == "phi3" else "q_proj"
        marks = {f"{at}.{queries}.weight": (own,), f"{at}.o_proj.weight": (slice(None), own)}
        if name == "qwen2":
            marks[f"{at}.q_proj.bias"] = (own,)
    parameters = dict(model.named_parameters())
    masks = {key: torch.zeros_like(parameters[key], dtype=torch.bool) for key in marks}
    for key, where in marks.items():
        masks[key][where] = True
    return masks


@pytest.mark.parametrize(("name", "head"), [*((name, 2) for name in CONFIGS), ("gpt_neox", 0), ("phi3", 3)])
def test_the_entries_are_those_of_the_head(name: str, head: int) -> None:
    model = random_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = head_entries(HookedModel(model), [Head(LAYER, head)])
    wanted = expected(name, model, head)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"olmo2"}))
def test_changing_the_query_rows_moves_this_head_alone(name: str) -> None:
    """In OLMo 2 a norm over all queries moves the others, too."""
    model = HookedModel(random_model(name))
    ids = torch.randint(3, 96, (1, 7), generator=torch.Generator().manual_seed(0))
    before = heads_output(model, ids)
    output = model.places.output_projection(LAYER).weight
    names = {id(parameter): key for key, parameter in model.hf.named_parameters()}
    with torch.no_grad():
        for key, own in head_entries(model, [Head(LAYER, 2)]).items():
            if key != names[id(output)]:
                dict(model.hf.named_parameters())[key][own] += 0.5
    moved = (heads_output(model, ids) - before).abs().amax(dim=(0, 2))
    assert moved[2] > 1e-3 and moved[[0, 1, 3]].max() < 1e-6


def heads_output(model: HookedModel, ids: torch.Tensor) -> torch.Tensor:
    found: list[torch.Tensor] = []
    projection = model.places.output_projection(LAYER)
    handle = projection.register_forward_pre_hook(lambda module, args: found.append(args[0].detach()))
    with torch.no_grad():
        model.hf(input_ids=ids, use_cache=False)
    handle.remove()
    return found[0][0].unflatten(-1, (model.n_heads, model.d_head))


def test_several_heads_in_several_layers_come_together() -> None:
    model = HookedModel(random_model("qwen3"))
    found = head_entries(model, [Head(2, 3), Head(0, 1), Head(2, 0)])
    assert sorted(found) == [f"model.layers.{n}.self_attn.{p}_proj.weight" for n in (0, 2) for p in "oq"]
    assert found["model.layers.2.self_attn.q_proj.weight"].any(1).nonzero().flatten().tolist() == [
        *range(16),
        *range(48, 64),
    ]


def test_queries_that_cannot_be_told_apart_are_refused() -> None:
    """Where no linear layer makes them."""

    class Own(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.weight = linear.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight.T

    model = random_model("llama")
    attention = model.model.layers[LAYER].self_attn
    attention.q_proj = Own(attention.q_proj)
    with pytest.raises(CliffscopeError, match="query rows of layer 1 cannot be told apart in LlamaForCausalLM"):
        head_entries(HookedModel(model), [Head(LAYER, 0)])


def test_a_head_that_is_not_there() -> None:
    with pytest.raises(CliffscopeError, match=r"head 1\.9: layer 1 has query heads 0 to 3"):
        head_entries(HookedModel(random_model("llama")), [Head(1, 9)])
