"""Colours: legible on light and on dark, told apart without red or green, and the same for the same thing."""

from itertools import combinations

import numpy as np
import pytest

from interp.display import palette
from interp.display.palette import COLORS, DIVERGING, INK, NEUTRAL, SCORES, SEGMENT_COLORS, at, contrast, legible

WHITE, DARK = "#FFFFFF", "#1E1E1E"

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color: str) -> np.ndarray:
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB under D65."""
    x, y, z = (TO_XYZ @ rgb) / (TO_XYZ @ np.ones(3))
    root = [v ** (1 / 3) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in (x, y, z)]
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == contrast("#FFFFFF", "#777777") == pytest.approx(4.48, abs=0.01)
    assert contrast("#0072B2", "#0072B2") == 1


@pytest.mark.parametrize("color", [INK, *COLORS.values()])
def test_lines_show_on_light_and_on_dark(color: str) -> None:
    assert contrast(color, WHITE) >= 3 and contrast(color, DARK) >= 3


def test_no_grey_is_a_better_ink() -> None:
    """4.5 to 1 on both pages is out of reach; the ink is as near as a grey can be, and above 4 on both."""

    def worse(grey: str) -> float:
        return min(contrast(grey, WHITE), contrast(grey, DARK))

    greys = {f"#{v:02X}{v:02X}{v:02X}": worse(f"#{v:02X}{v:02X}{v:02X}") for v in range(256)}
    assert max(greys.values()) < 4.5
    assert worse(INK) == pytest.approx(max(greys.values())) and worse(INK) >= 4


@pytest.mark.parametrize("kind", BLINDNESS)
def test_outcomes_are_told_apart_without_a_kind_of_cone(kind: str) -> None:
    seen = {name: lab(np.clip(np.array(BLINDNESS[kind]) @ linear(color), 0, 1)) for name, color in COLORS.items()}
    for first, second in combinations(seen, 2):
        # 2.3 is just noticeable.
        assert np.linalg.norm(seen[first] - seen[second]) > 15, (first, second)


def test_outcomes_differ_in_lightness_too() -> None:
    lightness = {name: lab(linear(color))[0] for name, color in COLORS.items()}
    assert lightness["refused"] < lightness["complied"] < lightness["benign"]
    assert min(abs(a - b) for a, b in combinations(lightness.values(), 2)) > 3


def test_scores_run_from_answering_to_refusing() -> None:
    assert at(SCORES, 0) == COLORS["complied"] and at(SCORES, 1) == COLORS["refused"] and at(SCORES, 0.5) == NEUTRAL
    assert at(SCORES, -3) == at(SCORES, 0) and at(SCORES, 7) == at(SCORES, 1)
    assert [at(DIVERGING, v / 8) for v in range(9)] == [at(SCORES, 1 - v / 8) for v in range(9)]
    # Halfway between two stops, each channel is.
    assert at(((0.0, "#000000"), (1.0, "#FF8000")), 0.5) == "#804000"


@pytest.mark.parametrize("score", np.linspace(0, 1, 21))
def test_text_is_legible_on_every_score(score: float) -> None:
    background = at(SCORES, float(score))
    assert contrast(legible(background), background) >= 4.5


def test_segments_have_other_hues_than_outcomes() -> None:
    assert not set(SEGMENT_COLORS.values()) & set(COLORS.values())
    assert palette.band("#D55E00", 0.25) == "rgba(213,94,0,0.25)"
