"""Where a head looks from the edge: its attention over all tokens of a transcript, also of a long one.

Fused attention (SDPA, FlashAttention) never forms the weights, and eager attention forms a square of them for every
head of every layer. Here the pass keeps the model's own attention. Only in the layers asked for, and only for the
edge's query, the model's own eager attention runs beside it: one row a head, with whatever mask, window, soft cap or
sink the model has. What the pass computes is not changed.
"""

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.display.layout import MONO, lay_out
from interp.display.palette import INK, SEGMENT_COLORS
from interp.display.text import caption, label
from interp.errors import CliffscopeError
from interp.transcripts import Transcript
from interventions.heads import Head, check_heads

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.models.hooked_model import HookedModel

Weights = dict[int, Float[Tensor, "head pos"]]
"""By layer, the edge's attention."""


@torch.no_grad()
def edge_attention(
    model: "HookedModel", transcript: Transcript, heads: Sequence[tuple[int, int]]
) -> Float[Tensor, "head pos"]:
    """The attention weights with which heads read from the edge.

    Args:
        model: The model; interventions that are active on it act.
        transcript: Any length; what follows the edge is left out.
        heads: Query heads, as `(layer, head)`, in the order of the result.

    Returns:
        float32 on the CPU, over the tokens up to the edge. A row sums to 1, less what an attention sink takes.

    Raises:
        CliffscopeError: If the model has no such head, its attention cannot be read, or the transcript has no edge.
    """
    model.require_eval()
    layers = sorted({head.layer for head in check_heads(heads, model)})
    cut = transcript.until_edge()
    rows: Weights = {}
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_seen(model, layer, rows))
        index = torch.arange(len(cut), device=model.device)[None]
        stack.enter_context(model.reading([cut], index))
        model.places.decoder(input_ids=torch.tensor([cut.input_ids], device=model.device), use_cache=False)
    missing = [layer for layer in layers if layer not in rows]
    if missing:
        raise CliffscopeError(
            f"{model.places.architecture}: the attention of layer {missing[0]} does not go through transformers' "
            "attention interface and cannot be read."
        )
    return torch.stack([rows[layer][head] for layer, head in heads])


@contextlib.contextmanager
def _seen(model: "HookedModel", layer: int, rows: Weights) -> Iterator[None]:
    """Puts the edge's attention of a layer into `rows` in the passes inside.

    The layer's attention module gets a configuration of its own that names another attention function. The model's
    configuration, by which the decoder makes its masks, stays as it is.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    module = model.places.attention(layer)
    config = getattr(module, "config", None)
    eager: Callable[..., Any] | None = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if config is None or eager is None:
        raise CliffscopeError(
            f"{model.places.architecture}: its attention has no eager form in transformers and cannot be read."
        )
    own = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)

    def see(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *args: Any, **kwargs: Any
    ) -> Any:
        mask = _last_row(attention_mask, kwargs.get("sliding_window"), key)
        _, weights = eager(module, query[:, :, -1:].float(), key.float(), value.float(), mask, *args, **kwargs)
        rows[layer] = weights[0, :, -1].float().cpu()
        return own(module, query, key, value, attention_mask, *args, **kwargs)

    name = f"edge-attention-{id(module)}"
    changed = copy.copy(config)
    # Not by the setter, which changes the configurations inside this one, and those are shared.
    changed._attn_implementation_internal = name
    ALL_ATTENTION_FUNCTIONS[name] = see
    module.config = changed
    try:
        yield
    finally:
        module.config = config
        del ALL_ATTENTION_FUNCTIONS[name]


def _last_row(mask: Any, window: int | None, key: Tensor) -> Float[Tensor, "1 1 1 pos"]:
    """What the last query may see, to be added to its scores: 0, or the least number where it may not."""
    n = key.shape[2]
    if isinstance(mask, Tensor) and mask.ndim == 4:
        seen = mask[:1, :1, -1:, :n]
        if seen.dtype != torch.bool:
            return seen.float()
    else:
        # No mask, or one in a form of its own: causal, so the last query sees all that its window holds.
        first = 0 if window is None else max(0, n - window)
        seen = (torch.arange(n, device=key.device) >= first)[None, None, None]
    least = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape, device=key.device).masked_fill(~seen, least)


N_NAMED = 5
"""Tokens whose text stands above a head's row."""
N_LABELLED = 48
"""Most tokens that all have their text below the axis."""


def attention_figure(
    transcript: Transcript, pattern: Float[Tensor, "head pos"], heads: Sequence[tuple[int, int]]
) -> "go.Figure":
    """One row a head: a line for each token, as high as the edge's attention to it, in the colour of its segment.

    Above each row are the texts of the tokens that get most. A long transcript has its tokens' texts under the pointer.

    Args:
        transcript: The rollout.
        pattern: As `edge_attention` gives it.
        heads: The same heads.
    """
    from plotly.subplots import make_subplots

    n = pattern.shape[1]
    labels = [label(text) for text in transcript.tokens[:n]]
    titles = [_title(Head(*head), row, labels) for head, row in zip(heads, pattern, strict=True)]
    figure = make_subplots(
        rows=len(heads), cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.3 / len(heads)
    )
    for number, row in enumerate(pattern.tolist(), start=1):
        for segment in dict.fromkeys(transcript.labels[:n]):
            places = [place for place in range(n) if transcript.labels[place] == segment]
            _add_stems(figure, number, segment, places, [row[place] for place in places], labels)
    figure.update_xaxes(range=[-0.5, n - 0.5], showgrid=False)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="weight", row=(len(heads) + 1) // 2)
    figure.update_xaxes(title_text="token (the last is the edge)", row=len(heads))
    if n <= N_LABELLED:
        shown = {"tickvals": list(range(n)), "ticktext": labels, "tickangle": -60}
        figure.update_xaxes(tickfont={"family": MONO}, **shown)
    figure.update_annotations(x=0, xanchor="left", font={"family": MONO, "size": 13, "color": INK})
    title = f"attention from the edge of {caption(transcript.id)}"
    # Below a labelled axis the texts of tokens, slanted.
    return lay_out(figure, title, height=180 + 190 * len(heads), top=80, drop=124 if n <= N_LABELLED else 62)


def attention_page(transcript: Transcript, pattern: Float[Tensor, "head pos"], heads: Sequence[tuple[int, int]]) -> str:
    """The figure as one self-contained HTML page; equal patterns give equal pages."""
    from interp.display.page import page

    text = f"How much each head reads from each of {pattern.shape[1]} tokens when the first answer token is predicted."
    figure = attention_figure(transcript, pattern, heads)
    return page(f"Attention from the edge of {transcript.id}", text, {"attention": figure})


def _title(head: Head, row: Float[Tensor, " pos"], labels: Sequence[str]) -> str:
    weights, places = row.topk(min(N_NAMED, len(row)))
    pairs = zip(weights.tolist(), places.tolist(), strict=True)
    tokens = "   ".join(f"{labels[place]} {weight:.2f}" for weight, place in pairs)
    return f"<b>{head}</b>   {tokens}"


def _add_stems(
    figure: "go.Figure", row: int, segment: str, places: list[int], weights: list[float], labels: Sequence[str]
) -> None:
    """Lines from zero with a dot on top: a bar of one token among thousands would be too thin to be drawn."""
    import plotly.graph_objects as go

    color = SEGMENT_COLORS[segment]
    x = [value for place in places for value in (place, place, None)]
    y = [value for weight in weights for value in (0, weight, None)]
    common = {"legendgroup": segment, "name": segment}
    lines = go.Scatter(x=x, y=y, mode="lines", line={"color": color, "width": 2}, hoverinfo="skip", showlegend=False)
    dots = go.Scatter(
        x=places,
        y=weights,
        text=[labels[place] for place in places],
        mode="markers",
        marker={"color": color, "size": 5},
        hovertemplate=f"%{{text}} (token %{{x}}, {segment})<br>%{{y:.3f}}<extra></extra>",
        showlegend=row == 1,
        **common,
    )
    figure.add_trace(lines.update(**common), row=row, col=1)
    figure.add_trace(dots, row=row, col=1)
