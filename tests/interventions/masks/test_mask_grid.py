"""The picture of a mask: every scale in its cell, and those that are not 1 written out."""

import numpy as np
import torch

from interp.display.palette import COLORS, NEUTRAL, at, contrast
from interventions.masks import HeadMask
from interventions.masks.mask_grid import N_WRITTEN, mask_grid


def made(*scales: tuple[int, int, float], size: tuple[int, int] = (3, 4)) -> HeadMask:
    scale = torch.ones(size)
    for layer, head, value in scales:
        scale[layer, head] = value
    return HeadMask(scale, model="tiny", renormalize=True)


def test_the_grid_holds_the_scales() -> None:
    mask = made((1, 2, 0.0), (2, 0, 0.25))
    figure = mask_grid(mask)
    (heatmap,) = figure.data
    np.testing.assert_allclose(np.asarray(heatmap.z), mask.scale.numpy())
    # 1 changes nothing and has no colour; 0 has the strongest.
    assert (heatmap.zmin, heatmap.zmax) == (0, 2)
    scale = tuple((place, color) for place, color in heatmap.colorscale)
    assert at(scale, 0.5) == NEUTRAL and at(scale, 0) == COLORS["complied"] and at(scale, 1) == COLORS["refused"]
    notes = {(note.y, note.x): note.text for note in figure.layout.annotations}
    assert notes == {(1, 2): "0", (2, 0): "0.25"}
    assert "2 of 12 heads masked (16.7%)" in figure.layout.title.text and "norm" in figure.layout.title.text


def test_a_scale_beyond_the_ends_widens_both() -> None:
    figure = mask_grid(made((0, 0, -2.0), (0, 1, 1.5)))
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-2, 4)
    for note, scale in zip(figure.layout.annotations, (-2.0, 1.5), strict=True):
        cell = at(tuple(map(tuple, figure.data[0].colorscale)), (scale + 2) / 6)
        assert contrast(note.font.color, cell) >= 4.5


def test_many_heads_have_no_writing() -> None:
    every = [(layer, head, 0.0) for layer in range(9) for head in range(8)]
    assert len(every) > N_WRITTEN and not mask_grid(made(*every, size=(9, 8))).layout.annotations
