"""A part that is missing or broken is named with what makes it, and everything else is shown."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from report.page import BUILDERS, write_report
from report.problems import COMMANDS
from tests.report.material import Page, formatted, heads_table, write_run

FILES = {
    "rollouts.jsonl": "rollouts",
    "scores.parquet": "scores",
    "cliff.parquet": "cliff",
    "cliff.layers.parquet": "layers",
    "sweep.parquet": "sweep",
    "curve.parquet": "curve",
    "probe.safetensors": "probe",
    "mask.safetensors": "mask",
    "run.json": "manifest",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "whole")


def report(folder: Path) -> tuple[dict[str, list[dict[str, str]]], Page]:
    told = write_report(folder, folder / "report.html")
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    # Whatever is wrong, every section is there.
    for _, title, _ in BUILDERS:
        assert title in page.words
    assert "Every rollout" in page.words and "What was run" in page.words
    return told, page


def test_nothing_is_missing_from_a_whole_run(whole: Path) -> None:
    told, page = report(whole)
    assert told["missing"] == told["broken"] == []
    assert not [attributes for _, attributes in page.elements if "problem" in (attributes.get("class") or "").split()][
        1:
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(whole: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / name).unlink()
    if name == "rollouts.jsonl":  # else the masked ones would be taken for the model's own
        (folder / "rollouts-masked.jsonl").unlink()
    told, page = report(folder)
    part = FILES[name]
    assert part in {entry["part"] for entry in told["missing"]}
    assert COMMANDS[part] in page.words


def test_missing_heads_evaluations_and_summary(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    for path in [*folder.glob("heads-*"), folder / "cliff.json", folder / "summary.json", folder / "eval-folded.json"]:
        path.unlink()
    told, page = report(folder)
    assert {entry["part"] for entry in told["missing"]} == {"heads", "cliff_figures"}
    assert COMMANDS["heads"] in page.words and COMMANDS["cliff"] in page.words


@pytest.mark.parametrize("name", [*FILES, "heads-ablation.parquet", "cliff.json", "summary.json", "eval-folded.json"])
def test_a_file_that_is_cut_off(whole: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    told, page = report(folder)
    broken = {entry["file"]: entry for entry in told["broken"]}
    assert name in broken and broken[name]["why"].endswith(".") and str(folder) not in broken[name]["why"]
    assert broken[name]["why"] in page.words and name in page.words
    assert broken[name]["command"] is not None and broken[name]["command"] in page.words


@pytest.mark.parametrize("name", ["scores", "cliff", "cliff.layers", "sweep", "heads-ablation", "curve"])
def test_a_table_without_a_column_that_is_needed(whole: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    path = folder / f"{name}.parquet"
    lost = {"scores": "score", "cliff": "edge", "cliff.layers": "cliff", "sweep": "auroc", "curve": "asr"}.get(
        name, "q"
    )
    if name == "heads-ablation":
        formatted("heads", heads_table().drop(columns=lost), path, method="ablation")
    else:
        pd.read_parquet(path).drop(columns=lost).to_parquet(path, index=False)
    told, page = report(folder)
    (entry,) = told["broken"]
    assert entry["file"] == path.name and entry["why"] == f"It has no column {lost}." and entry["why"] in page.words


def _words_for_numbers(folder: Path) -> str:
    pd.read_parquet(folder / "cliff.parquet").assign(cliff="much").to_parquet(folder / "cliff.parquet", index=False)
    return "The column cliff holds no numbers."


def _one_head_for_many(folder: Path) -> str:
    path = folder / "heads-ablation.parquet"
    formatted("heads", heads_table().assign(layer=-7), path, method="ablation", facts={"nothing": None})
    return "does not fit together"


def _a_list_for_an_object(folder: Path) -> str:
    (folder / "summary.json").write_text("[]", encoding="utf-8")
    return "Expected a JSON object, found list."


def _nested(folder: Path) -> str:
    (folder / "summary.json").write_text("[" * 100_000, encoding="utf-8")
    return "summary.json"


def _summary_of_words(folder: Path) -> str:
    summary = {"model": 3, "probe": [], "cliff": "steep", "asr": "high", "refusal_benign": None}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return "Before and after"


def _not_text(folder: Path) -> str:
    (folder / "cliff.json").write_bytes(b"\xff\xfe{}")
    return "Not UTF-8 text (byte 0)."


def _no_format(folder: Path) -> str:
    from safetensors.numpy import load_file, save_file

    save_file(load_file(folder / "probe.safetensors"), folder / "probe.safetensors")
    return "Its metadata names no format of Cliffscope."


def _empty(folder: Path) -> str:
    (folder / "rollouts-masked.jsonl").write_text("\n", encoding="utf-8")
    return "It is empty."


@pytest.mark.parametrize(
    "spoil",
    [
        _words_for_numbers,
        _one_head_for_many,
        _a_list_for_an_object,
        _nested,
        _summary_of_words,
        _not_text,
        _no_format,
        _empty,
    ],
    ids=lambda spoil: spoil.__name__.strip("_"),
)
def test_other_damage(whole: Path, tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    said = spoil(folder)
    assert said in report(folder)[1].words


def test_where_there_is_nothing_to_explain_nothing_is_missing(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    for name in ("mask.safetensors", "curve.parquet", "rollouts-masked.jsonl", "scores-masked.parquet"):
        (folder / name).unlink()
    (folder / "summary.json").unlink()
    (folder / "eval-folded.json").unlink()
    none = heads_table().assign(score=np.nan, low=np.nan, high=np.nan, q=np.nan, share=np.nan, suppresses=False)
    facts = {"nothing": "the model answered none of the 8 harmful prompts"}
    for method in ("ablation", "attribution"):
        formatted("heads", none, folder / f"heads-{method}.parquet", method=method, facts=facts)
    told, page = report(folder)
    assert told["missing"] == told["broken"] == []
    assert "Nothing to explain, and no head is named: the model answered none of the 8 harmful prompts." in page.words
    assert not [name for name in page.data("figures") if name.startswith("heads")]


def test_a_folder_with_rollouts_only(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "rollouts.jsonl", tmp_path)
    told, page = report(tmp_path)
    parts = {entry["part"] for entry in told["missing"]}
    assert parts == {
        "cliff_figures",
        "scores",
        "cliff",
        "layers",
        "probe",
        "sweep",
        "heads",
        "mask",
        "curve",
        "masked",
        "manifest",
    }
    assert len(page.data("explorer")["rollouts"]) == 12 and page.data("explorer")["texts"] == {"base": 0}
