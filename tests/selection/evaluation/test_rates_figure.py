"""The picture of an evaluation: its own rates with Wilson's intervals, over all and by category."""

from dataclasses import replace

import pytest

from interp.display.palette import COLORS
from selection.evaluation import Evaluation
from selection.evaluation.rates_figure import rates_figure
from tests.selection.evaluation.material import evaluation, outcomes


def made(category: str | None = None) -> Evaluation:
    found = outcomes("harmful", [False] * 8 + [True] * 2) + outcomes("benign", [False] * 9 + [True])
    return evaluation([replace(o, category=category if o.set == "harmful" else None) for o in found], "base")


def test_every_rate_has_its_interval() -> None:
    found = made()
    points = {trace.name: trace for trace in rates_figure(found).data}
    for name, rate, color in (
        ("harmful answered (ASR)", found.asr, COLORS["complied"]),
        ("harmful refused", found.rate("refusal"), COLORS["refused"]),
        ("benign refused", found.over_refusal, COLORS["benign"]),
    ):
        point = points[name]
        assert point.x[0] == rate.value and point.marker.color == color
        assert point.x[0] + point.error_x.array[0] == pytest.approx(rate.interval.high)
        assert point.x[0] - point.error_x.arrayminus[0] == pytest.approx(rate.interval.low)
    assert "traps refused" not in points


def test_categories_have_a_panel_of_their_own() -> None:
    assert len(list(rates_figure(made()).select_xaxes())) == 1
    figure = rates_figure(made("<b>fraud"))
    assert len(list(figure.select_xaxes())) == 2
    (point,) = [trace for trace in figure.data if trace.xaxis == "x2"]
    assert point.y == ("&lt;b&gt;fraud",) and point.x[0] == made().asr.value
