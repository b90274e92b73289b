"""Static pictures: what a figure says is drawn, with its colours and at its place; what is not known is refused."""

import io
import warnings

import matplotlib
import matplotlib.image
import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.subplots import make_subplots

from interp.display.layout import lay_out
from interp.display.palette import COLORS, INK, SCORES
from interp.display.static import png, size_of
from interp.display.static.png_file import encode
from interp.display.static.reading import color, formatted, plain
from interp.errors import CliffscopeError

ORANGE, BLUE, GREEN = COLORS["complied"], COLORS["refused"], COLORS["benign"]


def pixels(figure: go.Figure, **options: float) -> np.ndarray:
    """`[row, column, rgba]`, 0 to 255."""
    return (matplotlib.image.imread(io.BytesIO(png(figure, **options))) * 255).round().astype(int)


def places(picture: np.ndarray, wanted: str) -> np.ndarray:
    """`[n, 2]`: rows and columns that have a colour, opaque."""
    rgb = [int(wanted[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere((np.abs(picture[..., :3] - rgb).max(-1) <= 3) & (picture[..., 3] > 250))


def small(figure: go.Figure) -> go.Figure:
    return lay_out(figure, height=220, legend=False).update_layout(width=320)


def test_lines_markers_bars_and_cells_have_their_colours() -> None:
    figure = go.Figure()
    figure.add_scatter(x=[0, 1, 2], y=[0, 2, 1], mode="lines", line={"color": ORANGE, "width": 4})
    figure.add_scatter(x=[0, 1], y=[2, 0], mode="markers", marker={"color": BLUE, "size": 12, "symbol": "square"})
    figure.add_bar(x=[0, 1, 2], y=[1, 1, 1], marker={"color": GREEN})
    picture = pixels(small(figure))
    assert all(len(places(picture, hue)) > 60 for hue in (ORANGE, BLUE, GREEN))
    # No background, and the size of the page's pixels times the scale.
    assert (picture[..., 3] == 0).mean() > 0.3 and picture.shape[:2] == (352, 512)
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 20


def test_a_heatmap_puts_each_value_at_its_place() -> None:
    scale = [list(stop) for stop in SCORES]
    figure = go.Figure(go.Heatmap(z=[[0, 1], [None, 0]], zmin=0, zmax=1, colorscale=scale, showscale=False))
    picture = pixels(small(figure))
    orange, blue = places(picture, ORANGE).mean(0), places(picture, BLUE).mean(0)
    rows, columns = picture.shape[:2]
    # The first row of z is the lowest. Blue is at its right; of the two orange cells one is on each side.
    assert blue[0] > rows / 2 and blue[1] > columns / 2 and orange[0] < blue[0]
    upper_left = picture[: rows // 3, 60 : columns // 2]
    assert len(places(upper_left, ORANGE)) == len(places(upper_left, BLUE)) == 0  # NaN stays empty


def test_bars_of_several_traces_stand_beside_one_another() -> None:
    def centres(mode: str) -> list[float]:
        figure = go.Figure(layout={"barmode": mode})
        for hue in (ORANGE, BLUE):
            figure.add_bar(x=["a"], y=[1], marker={"color": hue})
        picture = pixels(small(figure))
        return [float(found.mean(0)[1]) if len(found := places(picture, hue)) else 0 for hue in (ORANGE, BLUE)]

    orange, blue = centres("group")
    assert 0 < orange < blue - 50
    # The later one covers the other.
    assert centres("overlay")[0] == 0 and centres("overlay")[1] == pytest.approx((orange + blue) / 2, abs=4)


def test_fills_errors_shapes_and_notes_are_drawn() -> None:
    def with_parts(*parts: str) -> int:
        figure = go.Figure(go.Scatter(x=[0, 4], y=[0, 4], mode="markers", marker={"color": INK}))
        if "fill" in parts:
            figure.add_scatter(x=[1, 3, 3, 1], y=[1, 1, 3, 3], fill="toself", fillcolor=ORANGE, line={"width": 0})
        if "error" in parts:
            bars = {"type": "data", "array": [1.5], "color": ORANGE, "thickness": 4}
            figure.add_scatter(x=[2], y=[2], mode="markers", marker={"color": BLUE}, error_x=bars, error_y=bars)
        if "rectangle" in parts:
            figure.add_shape(type="rect", x0=1, x1=3, y0=1, y1=3, fillcolor=ORANGE, line={"width": 0})
        if "line" in parts:
            figure.add_hline(y=2, line={"color": ORANGE, "width": 4})
        if "note" in parts:
            figure.add_annotation(x=2, y=2, text="<b>note</b>", font={"color": ORANGE, "size": 30}, showarrow=False)
        return len(places(pixels(small(figure)), ORANGE))

    assert with_parts() == 0
    for part in ("fill", "error", "rectangle", "line", "note"):
        assert with_parts(part) > 60, part


def test_panels_stand_in_their_domains() -> None:
    figure = make_subplots(rows=2, cols=2)
    for (row, col), hue in {(1, 1): ORANGE, (1, 2): BLUE, (2, 1): GREEN}.items():
        figure.add_scatter(x=[0, 1], y=[0, 1], line={"color": hue, "width": 4}, row=row, col=col)
    picture = pixels(small(figure))
    middle = np.array(picture.shape[:2]) / 2
    sides = {hue: tuple(places(picture, hue).mean(0) > middle) for hue in (ORANGE, BLUE, GREEN)}
    assert sides == {ORANGE: (False, False), BLUE: (False, True), GREEN: (True, False)}


def test_axes_are_those_of_the_figure() -> None:
    """A point at the middle of a given range is at the middle; a range turned round, and logarithms, are kept."""

    def middle(x: float, **axis: object) -> float:
        figure = go.Figure(go.Scatter(x=[x], y=[0], mode="markers", marker={"color": ORANGE, "size": 20}))
        figure.update_xaxes(**axis)
        picture = pixels(small(figure).update_layout(margin={"l": 20, "r": 20}))
        return float(places(picture, ORANGE).mean(0)[1] / picture.shape[1])

    assert middle(50, range=[0, 100]) == pytest.approx(0.5, abs=0.08)
    assert middle(20, range=[0, 100]) < 0.4 < 0.6 < middle(20, range=[100, 0])
    assert middle(10, type="log", range=[0, 2]) == pytest.approx(0.5, abs=0.08)


def test_what_is_translucent_stays_so_and_an_empty_panel_has_its_axes() -> None:
    figure = make_subplots(rows=1, cols=2)
    line = {"color": "rgba(213,94,0,0.5)", "width": 6}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=line, row=1, col=1)
    figure.add_scatter(x=[0, 1], y=[1, 0], mode="lines", line={"color": BLUE, "width": 6}, opacity=0.5, row=1, col=1)
    picture = pixels(small(figure))
    assert not len(places(picture, ORANGE)) and not len(places(picture, BLUE))
    for hue in (ORANGE, BLUE):
        rgb = [int(hue[i : i + 2], 16) for i in (1, 3, 5)]
        near = (np.abs(picture[..., :3] - rgb).max(-1) <= 8) & (np.abs(picture[..., 3] - 128) <= 8)
        assert near.sum() > 60
    right = picture[:, picture.shape[1] // 2 + 20 :]
    assert (right[..., 3] > 0).sum() > 500


def test_traces_that_are_not_shown_are_not_drawn() -> None:
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1], line={"color": BLUE}))
    figure.add_scatter(x=[0, 1], y=[1, 0], line={"color": ORANGE, "width": 4}, visible=False)
    figure.add_scatter(x=[0, 1], y=[1, 0], line={"color": GREEN, "width": 4}, visible="legendonly")
    picture = pixels(small(figure))
    assert len(places(picture, BLUE)) and not len(places(picture, ORANGE)) and not len(places(picture, GREEN))


@pytest.mark.parametrize(
    ("figure", "what"),
    [
        (go.Figure(go.Pie(values=[1, 2])), "pie"),
        (go.Figure(go.Box(y=[1, 2, 3])), "box"),
        (go.Figure(go.Scatter(x=[1], y=[1], fill="tonext")), "tonext"),
        (go.Figure(go.Scatter(x=[1], y=[1], marker={"symbol": "hash"})), "hash"),
        (go.Figure(go.Scatter(x=[1, 2], y=[1, 2], line={"shape": "spline"})), "spline"),
        (go.Figure(go.Scatter(x=[1], y=[1])).add_shape(type="circle", x0=0, x1=1, y0=0, y1=1), "circle"),
        (go.Figure(go.Scatter(x=[1], y=[1])).update_xaxes(tickformat="%Y"), "%Y"),
        (go.Figure(go.Scatter(x=[1], y=[1])).add_layout_image(source="data:,"), "image"),
        (go.Figure(go.Scatter(x=[1], y=[1])).update_xaxes(type="date"), "date"),
    ],
)
def test_what_is_not_known_is_an_error_and_no_gap(figure: go.Figure, what: str) -> None:
    with pytest.raises(CliffscopeError, match=what) as raised:
        png(figure)
    assert "\n" not in str(raised.value)


def test_equal_figures_give_equal_bytes_whatever_the_settings_of_matplotlib_are() -> None:
    def made(y: float) -> go.Figure:
        return small(go.Figure(go.Scatter(x=[0, 1], y=[0, y], name="a $b$ <i>c</i>")))

    first = png(made(1))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "savefig.bbox": "tight"}):
        assert png(made(1)) == first
    assert png(made(2)) != first
    assert b"Software" not in first and b"tEXt" not in first


def test_the_users_figure_and_pyplot_are_left_alone() -> None:
    import sys

    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1]))
    before, known = figure.to_json(), "matplotlib.pyplot" in sys.modules
    png(figure)
    assert figure.to_json() == before and ("matplotlib.pyplot" in sys.modules) == known


def test_a_character_without_a_glyph_and_dollar_signs_are_text() -> None:
    figure = small(go.Figure(go.Scatter(x=["$\\frac{1}{0}$ 漢字 \u202e"], y=[1])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(png(figure.update_layout(title={"text": "$x_"}))) > 1000


def test_small_html_becomes_plain_text() -> None:
    assert plain("<b>a</b><br><sub>b &lt;c&gt;</sub> &amp;amp;") == "a\nb <c> &amp;"
    assert plain("1 < 2 and 3 > 2") == "1 < 2 and 3 > 2"
    assert plain(None) == ""


def test_numbers_are_written_as_axes_ask() -> None:
    shown = [formatted(v, f) for v, f in [(0.25, ".0%"), (0.125, ".2f"), (1234, ","), (-0.5, None), (1e-10 * 0, None)]]
    assert shown == ["25%", "0.12", "1,234", "−0.5", "0"]


def test_colours_in_every_form() -> None:
    assert color("rgba(255, 0, 0, 0.5)") == (1, 0, 0, 0.5)
    assert color("#FF0000", 0.5) == color("red", 0.5) == (1, 0, 0, 0.5)
    assert color(None) == color("transparent") == "none"
    with pytest.raises(CliffscopeError, match="nocolour"):
        color("nocolour")


def test_a_file_keeps_what_is_common_and_comes_near_to_the_rest() -> None:
    few = np.zeros((8, 8, 4), dtype=np.uint8)
    few[2:5, 3:7] = (213, 94, 0, 255)
    few[0, 0] = (0, 0, 255, 128)
    np.testing.assert_array_equal((matplotlib.image.imread(io.BytesIO(encode(few))) * 255).round(), few)
    # 1,024 greys do not fit, and the commonest colour stays as it is.
    many = np.full((64, 64, 4), 255, dtype=np.uint8)
    many[:32, :, :3] = np.random.default_rng(0).integers(0, 256, (32, 64, 1))
    many[:32, :, 3] = 100 + np.arange(64) % 4
    many[32:] = (1, 2, 3, 255)
    found = (matplotlib.image.imread(io.BytesIO(encode(many))) * 255).round()
    np.testing.assert_array_equal(found[32:], many[32:])
    assert np.abs(found[:32].astype(float) - many[:32]).max() <= 8


def test_the_size_is_the_figures_or_the_common_one() -> None:
    assert size_of(go.Figure()) == (860, 450)
    assert size_of(go.Figure().update_layout(width=300, height=200)) == (300, 200)
    assert pixels(go.Figure(go.Scatter(x=[0], y=[0])), width=200, scale=1).shape[:2] == (450, 200)
