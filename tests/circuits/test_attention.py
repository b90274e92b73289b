"""The edge's attention: the same as eager attention's own weights, at no change to the model."""

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from circuits.attention import attention_figure, attention_page, edge_attention
from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.transcripts import Transcript
from tests.architectures import CONFIGS, random_model

HEADS = [(2, 3), (0, 0), (1, 1), (0, 2)]
EDGE = 36
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 8,
}


def transcript(seed: int = 0) -> Transcript:
    """Longer than the sliding windows of the models, with a response after the edge."""
    labels = ["template"] * 4 + ["thinking"] * 30 + ["close"] * 3 + ["response"] * 4
    ids = torch.randint(3, 96, (len(labels),), generator=torch.Generator().manual_seed(seed)).tolist()
    return Transcript("r", tuple(ids), tuple(f"<t{i}>\n" for i in ids), tuple(labels), 4, "closed")


def eager_weights(hf: Any) -> Tensor:
    """`[head, pos]` as transformers gives them for the whole model and the whole text."""
    eager = copy.deepcopy(hf)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        output = eager(torch.tensor([transcript().input_ids]), output_attentions=True)
    return torch.stack([output.attentions[layer][0, head, EDGE, : EDGE + 1] for layer, head in HEADS])


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_eager_attention(name: str) -> None:
    hf = random_model(name)
    pattern = edge_attention(HookedModel(hf), transcript(), HEADS)
    torch.testing.assert_close(pattern, eager_weights(hf), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(len(HEADS)))


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss"])
def test_soft_caps_and_sinks(name: str) -> None:
    config = {
        "gemma2": lambda: transformers.Gemma2Config(**SIZES, query_pre_attn_scalar=16, attn_logit_softcapping=1.5),
        "gpt_oss": lambda: transformers.GptOssConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1),
    }[name]()
    torch.manual_seed(0)
    hf = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.normal_(std=0.3)
    pattern = edge_attention(HookedModel(hf), transcript(), HEADS)
    torch.testing.assert_close(pattern, eager_weights(hf), atol=1e-6, rtol=1e-5)
    assert bool((pattern.sum(-1) < 0.99).all()) == (name == "gpt_oss"), "a sink takes its part"


def test_an_attention_that_masks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As FlashAttention does: it is given no mask but the window's size."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    windows = []

    def windowed(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: None, **options: Any) -> tuple[Tensor, None]:
        windows.append(options["sliding_window"])
        return q.transpose(1, 2).contiguous(), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "windowed", windowed)
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS, "windowed", lambda *args, **options: None)
    hf = random_model("gemma3")
    hf.config._attn_implementation = "windowed"
    pattern = edge_attention(HookedModel(hf), transcript(), [(0, 0), (2, 0)])
    assert windows == [8, 8, None]
    assert (pattern > 0).sum(-1).tolist() == [8, EDGE + 1]
    # The first layer's queries and keys do not depend on what attention gives.
    torch.testing.assert_close(pattern[0], eager_weights(random_model("gemma3"))[1], atol=1e-6, rtol=1e-5)


def test_leaves_the_model_as_it_was() -> None:
    model = HookedModel(random_model("qwen3"))
    configs = {id(module.config) for module in model.hf.modules() if hasattr(module, "config")}
    before, known = model.logits([transcript()], [EDGE, -1]), set(ALL_ATTENTION_FUNCTIONS)
    edge_attention(model, transcript(), HEADS)
    handle = model.places.blocks[2].register_forward_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        edge_attention(model, transcript(), HEADS)
    handle.remove()
    assert {id(module.config) for module in model.hf.modules() if hasattr(module, "config")} == configs
    assert set(ALL_ATTENTION_FUNCTIONS) == known
    assert torch.equal(model.logits([transcript()], [EDGE, -1]), before)


def test_bf16_weights_are_read_in_float32() -> None:
    hf = random_model("qwen3").bfloat16()
    pattern = edge_attention(HookedModel(hf), transcript(), HEADS)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(len(HEADS)))
    torch.testing.assert_close(pattern, eager_weights(hf).float(), atol=0.01, rtol=0.05)


def test_refuses_heads_and_transcripts_that_are_not_there() -> None:
    model = HookedModel(random_model("qwen3"))
    with pytest.raises(CliffscopeError, match="there is no layer 3"):
        edge_attention(model, transcript(), [(3, 0)])
    with pytest.raises(CliffscopeError, match="no position 'close:-1'"):
        edge_attention(model, Transcript.from_ids("bare", range(9)), [(0, 0)])
    model.hf.train()
    with pytest.raises(CliffscopeError, match="training mode"):
        edge_attention(model, transcript(), [(0, 0)])


def test_the_figure_shows_every_token_with_its_weight() -> None:
    heads = [(0, 1), (2, 3)]
    pattern = torch.rand(2, EDGE + 1, generator=torch.Generator().manual_seed(1))
    figure = attention_figure(transcript(), pattern, heads)
    for row, axis in enumerate(["y", "y2"]):
        dots = [trace for trace in figure.data if trace.mode == "markers" and trace.yaxis == axis]
        shown = {x: y for trace in dots for x, y in zip(trace.x, trace.y, strict=True)}
        assert shown == pytest.approx(dict(enumerate(pattern[row].tolist())))
    titles = [annotation.text for annotation in figure.layout.annotations]
    best = transcript().tokens[int(pattern[0].argmax())].strip()[1:-1]
    assert titles[0].startswith("<b>0.1</b>") and f"&lt;{best}&gt;⏎ {pattern[0].max():.2f}" in titles[0]
    assert titles[1].startswith("<b>2.3</b>")
    page = attention_page(transcript(), pattern, heads)
    assert page == attention_page(transcript(), pattern, heads)
    assert "plotly.js" in page and 'src="http' not in page
