"""The look of every figure: no background, ink everywhere, axes with titles, and a legend that covers nothing."""

import plotly.graph_objects as go
import pytest

from interp.display.layout import CLEAR, lay_out, template
from interp.display.palette import INK
from interp.display.static import png
from interp.display.traces import interval_band, name_once
from tests.interp.display.material import DRAWN


@pytest.mark.parametrize("name", DRAWN)
def test_every_figure_has_it(name: str) -> None:
    figure = DRAWN[name]().figure()
    assert figure.layout.template == template()
    assert figure.layout.template.layout.paper_bgcolor == figure.layout.template.layout.plot_bgcolor == CLEAR
    assert figure.layout.template.layout.font.color == INK
    # As wide as its page, and with a title that says what of.
    assert figure.layout.width is None and figure.layout.height and figure.layout.title.text
    for axes in (list(figure.select_xaxes()), list(figure.select_yaxes())):
        named = [axis for axis in axes if axis.title.text or axis.type == "category"]
        shared = ({axis.matches for axis in axes} | {axis.range for axis in named}) - {None}
        # Where panels share an axis, one of them names it.
        for axis in axes:
            assert (
                axis in named or axis.matches or axis.plotly_name.replace("axis", "") in shared or axis.range in shared
            )


def test_the_legend_is_below_and_the_title_above_the_panels() -> None:
    figure = go.Figure([go.Scatter(x=[0, 1], y=[0, 1], name=name) for name in "ab"])
    assert lay_out(figure, "one<br><sub>two</sub>", height=400) is figure
    margin, panel = figure.layout.margin, 400 - figure.layout.margin.t - figure.layout.margin.b
    # From the panel's lower side, in parts of its height, to within the margin.
    assert 50 <= -figure.layout.legend.y * panel < margin.b and margin.t >= 60
    assert figure.layout.template.layout.legend.yanchor == "top"
    assert lay_out(go.Figure(), legend=False).layout.showlegend is False
    assert len(png(figure)) > 1000


def test_an_interval_is_an_outline_of_what_is_known() -> None:
    made = interval_band([0, 1, 2, 3], [0, 1, float("nan"), 3], [1, 2, 3, 4], "red")
    assert list(made.x) == [0, 1, 3, 3, 1, 0] and list(made.y) == [1, 2, 4, 3, 1, 0]
    assert made.fill == "toself" and made.line.width == 0 and made.showlegend is False


def test_a_legend_names_everything_once() -> None:
    figure = go.Figure([go.Scatter(name="a"), go.Scatter(), go.Scatter(name="b"), go.Scatter(name="a")])
    name_once(figure)
    assert [trace.showlegend for trace in figure.data] == [True, False, True, False]
