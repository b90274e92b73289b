"""The page: what it says, that it is whole in itself, its size, and that equal folders give equal bytes."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.errors import CliffscopeError
from interp.rollouts import Rollout, write_rollouts
from interp.statistics import proportion_interval
from report.page import write_report
from tests.report.material import Page, cliff_table, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    write_report(folder, folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_verdict_is_three_sentences_with_their_controls(page: Page) -> None:
    words = page.words
    assert "Cliff: over 4 complied rollouts the refusal score falls from 0.90 to 0.04." in words
    assert "2 of 8 heads are suppression heads by ablation: 1.2 (score 5 [4.9, 5.1]" in words
    assert "attribution names them too." in words
    interval = proportion_interval(4, 8)
    assert f"answers 50.0 % [{100 * interval.low:.1f}, {100 * interval.high:.1f}] of harmful prompts" in words
    assert "with the head mask 0.0 %" in words and "(with random masks of the same size: 50.0 %)" in words
    assert "0.200 at most in 2 runs, p = 0.333" in words  # shuffled labels
    assert "refused rollouts, plateau → edge 0.900 → 0.040 0.960 → 0.950 (n = 4)" in words
    assert "AUROC with shuffled labels 0.970 [0.900, 0.990] 0.520" in words


def test_before_and_after(page: Page) -> None:
    assert "as it is 50.0 %" in page.words
    assert "with the head mask 0.0 % [0.0, 32.4] 0.0 % [0.0, 49.0] 0.021 8 / 4 rollouts-masked.jsonl" in page.words
    assert "with random masks of the same size 50.0 % (40.0–60.0 % over 2 masks)" in page.words
    assert "repaired on examples chosen by cliff 10.0 % 0.0 % 0.050 – summary.json" in page.words
    assert "folded 30.0 % [10.8, 60.3] 0.0 % [0.0, 27.8] 0.012 [0.010, 0.015] 10 / 10 eval-folded.json" in page.words


def test_the_rollout_to_open_is_the_answered_one_that_falls_deepest(page: Page) -> None:
    links = [a["href"] for tag, a in page.elements if tag == "a" and a.get("class") == "open"]
    assert links == ["#rollout=r9"]  # the last that complied; refused and benign ones do not count


def test_the_explorer_knows_every_rollout(page: Page) -> None:
    data = page.data("explorer")
    rows = {row["id"]: row for row in data["rollouts"]}
    assert list(rows) == [f"r{n}" for n in range(12)]
    assert rows["r3"]["outcome"] == "complied" and rows["r3"]["others"] == {"masked": "refused"}
    assert rows["r3"]["cliff"] == pytest.approx(0.863) and rows["r3"]["category"] == "kind 1"
    assert rows["r3"]["tokens"] == data["index"]["base"]["r3"][2] > 15
    assert data["names"] == {"base": "as it is", "masked": "with the head mask"}


def test_figures_are_what_plotly_takes(page: Page) -> None:
    specs = page.data("figures")
    asked = [a["data-panel"] for _, a in page.elements if "data-panel" in a]
    assert asked == list(specs) and len(asked) == len(set(asked))
    kinds: dict[str, Any] = {}
    for name, spec in specs.items():
        figure = go.Figure(spec)  # raises for what Plotly does not know
        kinds[name] = [trace.type for trace in figure.data]
    assert kinds["heads-ablation"] == ["heatmap"] and kinds["sweep-shuffled"] == ["heatmap"]
    complied = specs["trajectory-base-close"]["data"][1]
    assert complied["y"][-1] == pytest.approx(0.04, abs=1e-3) and complied["x"][-1] == -1
    assert specs["trajectory-masked-close"]["data"][1]["y"][-1] > 0.04
    assert specs["heads-ablation"]["data"][0]["z"][1][2] == 5.0
    assert len(specs["heads-ablation"]["layout"]["shapes"]) == 2
    labels = [a.get("aria-label") for _, a in page.elements if a.get("role") == "img"]
    assert len(labels) == len(specs) and all(labels)


def test_nothing_is_loaded_and_only_its_own_scripts_may_run(page: Page) -> None:
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    (program,) = (text for attributes, text in page.scripts if "type" not in attributes)
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy and "unsafe-eval" not in policy
    assert not [tag for tag, a in page.elements if "src" in a or tag in ("link", "iframe")]


def test_what_was_run(folder: Path, page: Page) -> None:
    assert "cliffscope demo --seed 3" in page.words and "cliffscope 9.8.7" in page.words
    digest = hashlib.sha256((folder / "rollouts.jsonl").read_bytes()).hexdigest()
    assert digest in page.words
    buttons = [a.get("data-copy") or a.get("data-copy-from") for tag, a in page.elements if a.get("class") == "copy"]
    assert "cliffscope demo --seed 3" in buttons and "provenance-text" in buttons


def test_a_manifest_is_compared_with_the_files(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder, tmp_path / "run")
    good = hashlib.sha256((run / "cliff.json").read_bytes()).hexdigest()
    files = {
        "cliff.json": {"sha256": good, "bytes": 1},
        "sweep.parquet": {"sha256": "0" * 64},
        "gone.bin": {"sha256": "1" * 64},
    }
    (run / "run.json").write_text(json.dumps({"command": "x", "versions": {}, "files": files}))
    write_report(run, tmp_path / "report.html")
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert f"as the run left it {good}" in words
    assert "changed since the run" in words and "gone since the run" in words and "not in the manifest" in words


def test_equal_folders_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "elsewhere")
    first = (folder / "report.html").read_bytes() if (folder / "report.html").exists() else b""
    # The report of an earlier run lies in the folder, and changes nothing.
    write_report(folder, folder / "report.html")
    write_report(other, tmp_path / "out.html")
    assert (folder / "report.html").read_bytes() == (tmp_path / "out.html").read_bytes()
    assert first in (b"", (folder / "report.html").read_bytes())
    assert str(tmp_path) not in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_a_report_never_replaces_a_file_of_the_run(folder: Path) -> None:
    before = (folder / "rollouts.jsonl").read_bytes()
    with pytest.raises(CliffscopeError, match="file of the run"):
        write_report(folder, folder / "rollouts.jsonl")
    with pytest.raises(CliffscopeError, match="is a folder"):
        write_report(folder, folder)
    assert (folder / "rollouts.jsonl").read_bytes() == before


def test_no_heavy_library_is_imported(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from report.page import write_report; write_report(sys.argv[1], sys.argv[2]); "
        "print(*{'torch', 'transformers', 'plotly', 'matplotlib'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_a_thousand_rollouts_of_a_thousand_tokens_are_small(tmp_path: Path) -> None:
    """Of the model as it is and with a mask: two million tokens, as many different ones as real models use."""
    count, length = 1000, 1000
    random = np.random.default_rng(0)
    words = np.array([f" word{n}" for n in range(20_000)], dtype=object)
    segments = np.repeat(["instruction", "thinking", "close", "response"], [30, 800, 4, 166])
    outcomes = [(True, False), (True, True), (False, False)]
    made: dict[str, list[Rollout]] = {"": [], "-masked": []}
    for name, rows in made.items():
        # As often as words are: few of them make most of a text.
        ranks = np.minimum(random.zipf(1.3, (count, length)) - 1, len(words) - 1)
        texts = words[ranks]
        for number in range(count):
            parts = ("".join(texts[number][segments == s]) for s in ("instruction", "thinking", "response"))
            harmful, refused = outcomes[number % 3]
            rows.append(Rollout(f"r{number}", *parts, harmful=harmful, category="c", refused=refused))
        scores = np.clip(random.normal(0.8, 0.1, (count, length)).cumsum(axis=1) / np.arange(1, length + 1), 0, 1)
        scores = np.clip(scores + random.normal(0, 0.1, scores.shape), 0, 1).astype(np.float32)
        table = pd.DataFrame(
            {"id": np.repeat([r.id for r in rows], length), "token_index": np.tile(np.arange(length), count)}
        )
        table = table.assign(
            segment=np.tile(segments, count), token=texts.ravel(), logit=np.float32(0), score=scores.ravel()
        )
        table.to_parquet(tmp_path / f"scores{name}.parquet", index=False)
        write_rollouts(tmp_path / f"rollouts{name}.jsonl", rows)
    cliff_table([r for r in made[""]]).to_parquet(tmp_path / "cliff.parquet", index=False)
    start = time.perf_counter()
    told = write_report(tmp_path, tmp_path / "report.html")
    seconds = time.perf_counter() - start
    assert told["broken"] == [] and told["rollouts"] == count
    assert told["bytes"] < 25e6 / 2, told["bytes"]
    assert seconds < 60, seconds
