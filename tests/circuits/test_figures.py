"""Pictures of heads and curves: they hold the numbers of their tables, and nothing in them is taken for markup."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuits.curve import COLUMNS, AblationCurve
from circuits.curve_figure import curve_figure, curve_page
from circuits.head_files import write_curve, write_heads
from circuits.head_grid import UNITS, grid_page, head_grid
from circuits.head_scores import HeadScores
from circuits.rank import METHODS
from interventions.heads import Head
from tests.circuits.test_head_scores import Sizes, of, planted

HOSTILE = "<script>alert(1)</script><b>bold</b>&amp;"


def made_up(n_random: int = 20, answered: int = 2) -> AblationCurve:
    """0 to 3 heads; random sets for each number, the first of which answered prompts too."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for count in range(4):
        names = ",".join(f"1.{n}" for n in range(count))
        figures = {"refusal_logit": 3.0 * count - 5, "asr": 0.7 - 0.2 * count, "refusal_benign": 0.01 * count}
        figures |= {"refusal_logit_low": 3.0 * count - 6, "refusal_logit_high": 3.0 * count - 4}
        figures |= {"asr_low": 0.6 - 0.2 * count, "asr_high": 0.8 - 0.2 * count, "kl_benign": 0.1 * count}
        rows.append({"n_heads": count, "set": "ranked", "draw": -1, "heads": names, **figures})
        for draw in range(n_random if count else 0):
            drawn = {"refusal_logit": -5 + rng.normal(0, 0.1), **({"asr": 0.7} if draw < answered else {})}
            rows.append({"n_heads": count, "set": "random", "draw": draw, "heads": f"2.{draw % 4}", **drawn})
    return AblationCurve(pd.DataFrame(rows, columns=list(COLUMNS)), "tiny", {"nothing": None})


def shapes(scores: HeadScores, outlined: list[Head] | None = None) -> list[tuple[float, float]]:
    """The centres of the frames, as layer and head."""
    found = head_grid(scores, outlined).layout.shapes
    assert all(shape.x1 - shape.x0 == shape.y1 - shape.y0 == 1 for shape in found)
    return [((shape.y0 + shape.y1) / 2, (shape.x0 + shape.x1) / 2) for shape in found]


def test_the_grid_holds_the_scores() -> None:
    scores = of(planted())
    (heatmap,) = head_grid(scores).data
    np.testing.assert_allclose(np.asarray(heatmap.z), scores.grid())
    for place, name in enumerate(("low", "high", "q", "rank")):
        np.testing.assert_allclose(np.asarray(heatmap.customdata)[..., place], scores.grid(name))
    # White is no effect, whatever the scores are.
    assert heatmap.zmax == -heatmap.zmin == pytest.approx(np.abs(scores.grid()).max())


def test_chosen_heads_are_outlined() -> None:
    scores = of(planted())
    assert shapes(scores) == [(1, 2), (2, 0)] == list(scores.suppressors)
    assert shapes(scores, [Head(0, 3)]) == [(0, 3)]
    assert shapes(scores, []) == []
    assert shapes(of(planted(), facts={"nothing": "no cliff"})) == []


@pytest.mark.parametrize("method", METHODS)
def test_the_title_names_model_method_and_unit(method: str) -> None:
    scores = replace(of(planted()), method=method)
    title = head_grid(scores).layout.title.text
    assert title.startswith(f"tiny: heads by {method}") and UNITS[method] in title


def test_a_grid_without_scores_and_one_without_effects() -> None:
    nothing = HeadScores.nothing("ablation", Sizes(), "the model answered none")  # type: ignore[arg-type]
    (heatmap,) = head_grid(nothing).data
    assert np.isnan(np.asarray(heatmap.z, dtype=float)).all() and heatmap.zmax == 1
    assert "NaN" not in grid_page(nothing).split("<script")[-1]  # JSON has none, and a browser would stop there
    (heatmap,) = head_grid(of(np.zeros((5, 3, 4)))).data
    assert (heatmap.zmin, heatmap.zmax) == (-1, 1)


def panel(curve: AblationCurve, title: str) -> dict[str | None, list[Any]]:
    """The traces under an axis title, by name."""
    figure = curve_figure(curve)
    (axis,) = [axis for axis in figure.select_yaxes() if axis.title.text == title]
    reference = axis.plotly_name.replace("axis", "")
    found: dict[str | None, list[Any]] = {}
    for trace in figure.data:
        if (trace.yaxis or "y") == reference:
            found.setdefault(trace.name, []).append(trace)
    return found


def test_the_curve_holds_the_table() -> None:
    curve = made_up()
    ranked = curve.table[curve.table["set"] == "ranked"]
    for name, title in (
        ("refusal_logit", "refusal logit at the edge (nats)"),
        ("asr", "harmful prompts answered (ASR)"),
        ("refusal_benign", "benign prompts refused"),
        ("kl_benign", "drift on benign answers (nats a token)"),
    ):
        (line,) = panel(curve, title)["ranked heads"]
        np.testing.assert_allclose(line.x, [0, 1, 2, 3])
        np.testing.assert_allclose(line.y, ranked[name])
        assert list(line.text) == ["none", "1.0", "1.0,1.1", "1.0,1.1,1.2"]
        if name in ("refusal_logit", "asr"):
            (interval,) = panel(curve, title)[None]
            expected = [*ranked[f"{name}_high"], *ranked[f"{name}_low"][::-1]]
            np.testing.assert_allclose(interval.y, expected)


def test_random_sets_are_a_band_where_many_and_points_where_few() -> None:
    curve = made_up()
    random = curve.table[curve.table["set"] == "random"]
    (band,) = panel(curve, "refusal logit at the edge (nats)")["random sets, matched by layer (95 %)"]
    quantiles = [random.groupby("n_heads")["refusal_logit"].quantile(q) for q in (0.975, 0.025)]
    np.testing.assert_allclose(band.y, [-5, *quantiles[0], *quantiles[1][::-1], -5])
    np.testing.assert_allclose(band.x, [0, 1, 2, 3, 3, 2, 1, 0])
    (points,) = panel(curve, "harmful prompts answered (ASR)")["random sets, matched by layer"]
    assert list(points.x) == [1, 1, 2, 2, 3, 3] and set(points.y) == {0.7}
    few = panel(made_up(n_random=3), "refusal logit at the edge (nats)")
    assert len(few["random sets, matched by layer"][0].x) == 9


@pytest.mark.parametrize("n_random", [0, 3, 20])
def test_the_legend_names_everything_once(n_random: int) -> None:
    figure = curve_figure(made_up(n_random))
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert len(named) == len(set(named)) and set(named) == {trace.name for trace in figure.data} - {None}


def test_a_curve_of_logits_alone_has_one_panel() -> None:
    curve = made_up()
    unanswered = replace(curve, table=curve.table.assign(asr=np.nan, refusal_benign=np.nan, kl_benign=np.nan))
    assert [axis.title.text for axis in curve_figure(unanswered).select_yaxes()] == ["refusal logit at the edge (nats)"]


def with_name(name: str) -> list[str]:
    return [grid_page(replace(of(planted()), model=name)), curve_page(replace(made_up(), model=name))]


@pytest.mark.parametrize("number", [0, 1])
def test_a_page_says_the_evidence_and_is_the_same_each_time(number: int) -> None:
    page = with_name("tiny")[number]
    assert page == with_name("tiny")[number] != with_name("other")[number]
    assert (of(planted()).evidence, made_up().evidence)[number].replace("<", "&lt;") in page
    assert "<script src" not in page and page.count("<html") == 1


@pytest.mark.parametrize("number", [0, 1])
def test_a_hostile_name_stays_text(number: int) -> None:
    plain, hostile = with_name("tiny")[number], with_name(HOSTILE)[number]
    assert "alert(1)" in hostile and "<script>alert" not in hostile and "<b>bold" not in hostile
    assert hostile.count("<script") == plain.count("<script") and hostile.count("</script") == plain.count("</script")
    # Plotly itself renders some tags in titles, so these are escaped before it sees them.
    figure = (head_grid(replace(of(planted()), model=HOSTILE)), curve_figure(replace(made_up(), model=HOSTILE)))[number]
    assert figure.layout.title.text.startswith("&lt;script&gt;alert(1)&lt;/script&gt;&lt;b&gt;bold&lt;/b&gt;&amp;amp;")


@pytest.mark.parametrize(
    ("write", "thing", "load"),
    [(write_heads, of(planted()), HeadScores.load), (write_curve, made_up(), AblationCurve.load)],
)
def test_files(write: Callable[..., list[Path]], thing: Any, load: Callable[[Path], Any], tmp_path: Path) -> None:
    written = write(thing, tmp_path / "new" / "t.parquet")
    assert [path.name for path in written] == ["t.html", "t.parquet"]
    assert set((tmp_path / "new").iterdir()) == set(written)
    pd.testing.assert_frame_equal(load(written[1]).table, thing.table)
    assert "suppression heads of 12" in written[0].read_text() or "Refusal returns" in written[0].read_text()
