"""`cliffscope bench`: one organism with tiny settings, its files, and bad input before any work."""

from pathlib import Path

import pytest

from cliffbench.page import BEGIN, END
from cliffbench.run import FORMAT
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal


@pytest.mark.slow
def test_one_organism_and_a_method_from_a_file(tmp_path: Path, forks: Forks) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import numpy as np\n"
        "from circuits.head_scores import HeadScores\n"
        "from cliffbench.methods import method\n\n"
        "@method('last-layer')\n"
        "def last_layer(instance):\n"
        "    values = np.zeros((8, instance.model.n_layers, instance.model.n_heads))\n"
        "    values[:, -1] = 1.0\n"
        "    return HeadScores.of('last-layer', instance.model, values, to_explain=1.0)\n"
    )
    page = tmp_path / "bench.md"
    page.write_text(f"# Bench\n\n{BEGIN}\n{END}\n")
    command = "bench --quick --organisms cliff --methods ablation,last-layer --seeds 1 --prompts 64 --jobs 1 --json"
    files = ("--with", mine, "--out", tmp_path / "run", "--docs", page)
    found = payload(forks.run(*command.split(), *files))
    scores = {
        method: figures["precision"]["all"]["mean"]
        for method, figures in found["scores"].items()
        if "precision" in figures
    }
    assert scores == {"ablation": 1.0, "last-layer": 0.0}
    table, metadata = FORMAT.read(tmp_path / "run" / "scores.parquet")
    assert set(table["method"]) >= {"ablation", "last-layer", "shipped verdict", "raw drop"}
    assert metadata["summary"] == {"seeds": [0], "fresh": False}
    for text in (page.read_text(), (tmp_path / "run" / "tables.md").read_text()):
        assert (
            "`cliffscope bench --quick --organisms cliff --methods ablation,last-layer --seeds 1 --prompts 64`" in text
        )
        assert "| last-layer |" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--organisms", "cliff,cliffs"], "organism 'cliffs': expected some of aligned"),
        (["--methods", "luck"], "method 'luck': expected some of attribution"),
        (["--docs", "none.md"], "none.md: no such file"),
        (["--with", "none.py"], "none.py: no such file"),
        (["--with", "broken.py"], "broken.py: ZeroDivisionError"),
    ],
)
def test_bad_input(words: list[str], told: str, tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert told in refusal(forks.run("bench", "--quick", "--out", "run", *words, cwd=tmp_path))
    assert not (tmp_path / "run").exists()
