"""The table of doses and its file, and the picture of it."""

from pathlib import Path

import pandas as pd
import pytest

from interp.display.palette import CONTROL
from interp.errors import CliffscopeError
from interventions.dose import DoseResponse, dose_figures, dose_page
from tests.interventions.dose.material import random, response, vector


def made(layers: int = 2, **options: object) -> DoseResponse:
    """Two doses at each layer, of the vector and of one control."""
    rows = [vector(layer, alpha, 0.3) for layer in range(layers) for alpha in (-1.0, 1.0)]
    rows += [random(0, layer, alpha, 0.7) for layer in range(layers) for alpha in (-1.0, 1.0)]
    return response(*rows, layers=list(range(layers)), alphas=[-1.0, 1.0], controls=1, **options)


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    doses = made()
    doses.save(tmp_path / "a.parquet")
    read = DoseResponse.load(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read.table, doses.table)
    assert (read.model, read.facts, read.rows) == (doses.model, doses.facts, doses.rows)
    assert read.unsteered["layer"] is None and read.unsteered["alpha"] == 0
    read.save(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_another_file_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(CliffscopeError, match="not a table of doses"):
        DoseResponse.load(tmp_path / "a.parquet")


def test_every_panel_has_the_vector_and_its_control() -> None:
    (figure,) = dose_figures(made()).values()
    drawn = {(trace.xaxis, trace.line.color == CONTROL) for trace in figure.data if trace.hoverinfo != "skip"}
    panels = {trace.xaxis for trace in figure.data}
    assert len(panels) == 2 * 4
    assert drawn >= {(panel, True) for panel in panels}
    # With the unsteered model at 0 between the two doses.
    assert all(list(trace.x) == [-1.0, 0.0, 1.0] for trace in figure.data if trace.hoverinfo != "skip")


def test_what_is_drawn_is_what_was_measured() -> None:
    (figure,) = dose_figures(made()).values()
    asr = [trace for trace in figure.data if trace.name == "harmful prompts answered (ASR)"]
    assert [list(trace.y) for trace in asr] == [[0.3, 0.7, 0.3]] * 2
    control = [trace for trace in figure.data if trace.name == "random directions: harmful prompts answered (ASR)"]
    assert [list(trace.y) for trace in control] == [[0.7, 0.7, 0.7]] * 2


def test_when_clamping_the_unsteered_model_is_a_line_of_its_own() -> None:
    (figure,) = dose_figures(made(mode="clamp")).values()
    assert all(0.0 not in trace.x for trace in figure.data)
    assert 0.7 in {shape.y0 for shape in figure.layout.shapes}


def test_many_layers_go_into_several_figures_with_the_same_axes() -> None:
    figures = dose_figures(made(8))
    assert list(figures) == ["doses-1", "doses-2"]
    titles = [note.text for figure in figures.values() for note in figure.layout.annotations]
    assert titles == [f"layer {layer}" for layer in range(8)]
    first, second = figures.values()
    assert first.layout.yaxis13.range == second.layout.yaxis5.range  # the drift's, of six and of two columns


def test_the_smallest_dose_is_marked() -> None:
    doses = response(vector(2, 1.0, 0.0), vector(3, 1.0, 0.7))
    (plain,), (marked,) = dose_figures(doses).values(), dose_figures(doses, doses.smallest()).values()
    assert not plain.layout.shapes and {shape.x0 for shape in marked.layout.shapes} == {1.0}


def test_the_page_says_what_was_found_and_equal_tables_give_equal_pages(tmp_path: Path) -> None:
    doses = made()
    doses.save(tmp_path / "a.parquet")
    page = dose_page(doses)
    assert "No dose meets the target" in page
    assert dose_page(DoseResponse.load(tmp_path / "a.parquet")) == page
