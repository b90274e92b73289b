"""`cliffscope heads` on the organisms: what it writes and prints, against the Python interface and what was planted."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from circuits.attention import edge_attention
from circuits.cascade import Cascade
from circuits.cascade import cascade as knock_out
from circuits.cases import Cases
from circuits.curve import AblationCurve
from circuits.head_scores import HeadScores
from circuits.joint import greedy
from circuits.rank import RankOptions, rank_heads
from circuits.sweeps.readouts import Readouts
from interp.judges.edge_logit import refusal_logit, refusal_token_ids
from interp.transcripts.positions import EDGE
from interventions.head_ablation import ScaleHeads
from interventions.heads import Head
from interventions.masks import HeadMask
from tests.circuits.material import organism, organism_probe, organism_rollouts
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table

PLANTED = ["3.1", "4.5"]
METHODS = ("attribution", "ablation", "gradient", "interchange")
MODEL = ("--model", "organism:cliff")


@dataclass(frozen=True)
class Command:
    """Words of a command, and what they are in Python."""

    words: tuple[object, ...]
    options: dict[str, Any]


RANKS = [
    Command(("--method", "attribution"), {"method": "attribution"}),
    Command(("--method", "ablation", "--scope", "all", "--gamma", 0.25), {"scope": "all", "gamma": 0.25}),
    Command(("--method", "gradient", "--steps", 2, "--seed", 3), {"method": "gradient", "steps": 2, "seed": 3}),
    Command(
        ("--method", "interchange", "--pairs", 24, "--positions", "close:-2, close:-1", "--batch-tokens", 2000),
        {"method": "interchange", "pairs": 24, "positions": ("close:-2", EDGE), "batch_tokens": 2000},
    ),
]


LIMIT = 16
"""Of the rollouts of each outcome: few, so that the tests are quick."""


def on(folder: Path, rollouts: str = "rollouts.jsonl") -> tuple[object, ...]:
    files = ("--probe", folder / "probe.safetensors", "--rollouts", folder / rollouts)
    return (*MODEL, *files, "--limit", LIMIT)


@cache
def cases(seed: int = 0, limit: int = LIMIT) -> Cases:
    model, probe = organism("cliff"), organism_probe("cliff")
    return Cases.of(model, probe, organism_rollouts("cliff"), seed=seed, limit=limit)


def refusal_logits(*changes: ScaleHeads, limit: int = LIMIT) -> np.ndarray:
    """Of the complied rollouts at the edge, in whole passes."""
    model = organism("cliff")
    tokens = refusal_token_ids(model.tokenizer, model.chat.thinking.close)

    def reduce(logits: torch.Tensor) -> torch.Tensor:
        return refusal_logit(logits[:, 0], tokens)[:, None]

    with model.intervene(*changes):
        logits = model.logits(cases(limit=limit).complied, [EDGE], reduce=reduce)
    return logits[:, 0].numpy()


@pytest.mark.parametrize("command", RANKS, ids=lambda command: " ".join(map(str, command.words)) or "default")
def test_rank(command: Command, forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "heads.parquet"
    found = payload(forks.run("heads", "rank", *on(cliff), *command.words, "--out", out, "--json"))
    assert sorted(row["name"] for row in found["heads"][:2]) == PLANTED
    assert set(PLANTED) <= set(found["suppressors"]) and found["nothing"] is None
    written, options = HeadScores.load(out), RankOptions(**command.options)
    assert (found["method"], found["model"]) == (written.method, written.model) == (options.method, "organism:cliff")
    expected = rank_heads(organism("cliff"), organism_probe("cliff"), cases(options.seed), options)
    pd.testing.assert_frame_equal(written.table, expected.table, rtol=1e-3, atol=1e-3)
    assert [row["score"] for row in found["heads"]] == pytest.approx(written.table["score"].head(20).tolist())
    assert {Path(file) for file in found["files"]} == set(out.parent.iterdir()) == {out, out.with_suffix(".html")}
    assert "suppression heads of 48" in out.with_suffix(".html").read_text(encoding="utf-8")


def test_by_default_every_head_is_ablated_from_the_edge_on(heads: Path) -> None:
    found = HeadScores.load(heads)
    assert found.method == "ablation" and [str(head) for head in found.suppressors] == PLANTED[::-1]
    assert (found.facts["scope"], found.facts["gamma"], found.facts["n"]) == ("from-edge", 0.0, 41)
    scores = found.table.set_index("name")["score"]
    base = refusal_logits(limit=200)
    for name in ("4.5", "0.0"):
        layer, head = map(int, name.split("."))
        rise = refusal_logits(ScaleHeads([Head(layer, head)], "from-edge"), limit=200) - base
        assert scores[name] == pytest.approx(rise.mean(), abs=1e-3)


def test_rank_for_people(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    text = table(forks.run("heads", "rank", *on(cliff), "--method", "attribution", "--out", tmp_path / "h.parquet"))
    title, head, *rows = text.splitlines()
    assert title == "organism:cliff: heads by attribution"
    assert head.split() == ["head", "score", "low", "high", "q", "share", "suppresses"]
    best = HeadScores.load(tmp_path / "h.parquet")
    assert best.facts["n"] == LIMIT
    for line, (_, row) in zip(rows, best.table.head(8).iterrows(), strict=False):
        assert line.split()[:2] == [row["name"], f"{row['score']:.3f}"]
        assert line.endswith("yes" if row["suppresses"] else "no")
    assert "25 more than 16 complied" in text and "16 more than 16 benign" in text
    assert best.evidence in text


@pytest.mark.parametrize("rollouts", ["rollouts.jsonl", "feigned.jsonl"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_explain(method: str, rollouts: str, forks: Forks, aligned: Path, tmp_path: Path) -> None:
    """Neither where no harmful prompt was answered nor where benign rollouts are passed off as that."""
    out = tmp_path / "h.parquet"
    words = ("heads", "rank", "--model", "organism:aligned", *on(aligned, rollouts)[2:], "--method", method)
    found = payload(forks.run(*words, "--out", out, "--json"))
    assert found["suppressors"] == [] and found["nothing"]
    assert not any(row["suppresses"] for row in found["heads"])
    written = HeadScores.load(out)
    assert written.suppressors == () and written.facts["nothing"] == found["nothing"]
    assert "Nothing to explain" in out.with_suffix(".html").read_text(encoding="utf-8")


@pytest.mark.parametrize("rollouts", ["rollouts.jsonl", "feigned.jsonl"])
def test_nothing_to_explain_for_curve_and_cascade(
    rollouts: str, forks: Forks, aligned: Path, heads: Path, tmp_path: Path
) -> None:
    words = ("--model", "organism:aligned", *on(aligned, rollouts)[2:])
    text = table(forks.run("heads", "rank", *words, "--out", tmp_path / "none.parquet"))
    assert "Nothing to explain: " in text and "No head is called a suppression head." in text
    (tmp_path / "none.html").unlink()
    for command in (
        ("curve", "--heads", heads),
        ("curve", "--heads", tmp_path / "none.parquet"),
        ("cascade", "--head", "3.1"),
    ):
        told = ("heads", command[0], *words, *command[1:], "--out", tmp_path / "out.parquet")
        found = payload(forks.run(*told, "--json"))
        assert found["files"] == []
        expected = "answered none" if rollouts == "rollouts.jsonl" else "mean cliff"
        assert expected in found["nothing"]
        assert table(forks.run(*told)) == f"Nothing to explain\n{found['nothing']}.\nNothing is written.\n"
    assert [file.name for file in tmp_path.iterdir()] == ["none.parquet"]


def test_curve(forks: Forks, cliff: Path, heads: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve.parquet"
    words = ("heads", "curve", *on(cliff), "--heads", heads, "--out", out, "--counts", "2,1,2", "--random-sets", 3)
    words += ("--random-answered", 1, "--prompts", 12, "--max-new-tokens", 200)
    found = payload(forks.run(*words, "--json"))
    curve = AblationCurve.load(out)
    assert curve.model == found["model"] == "organism:cliff"
    told = {"counts": [1, 2], "n_random": 3, "n_prompts": 12, "gamma": 0.0, "scope": "all", "max_new_tokens": 200}
    assert told.items() <= curve.facts.items() and (curve.facts["rollouts"], curve.facts["benign"]) == (LIMIT, 12)
    assert [(row["n_heads"], row["set"]) for row in found["rows"]] == [
        (0, "ranked"),
        *((count, kind) for count in (1, 2) for kind in ("ranked", *["random"] * 3)),
    ]
    for row, (_, held) in zip(found["rows"], curve.table.iterrows(), strict=True):
        assert row["refusal_logit"] == pytest.approx(held["refusal_logit"])
    ranked = curve.table[curve.table["set"] == "ranked"].set_index("n_heads")
    random = curve.table[curve.table["set"] == "random"]
    assert ranked["heads"].tolist() == ["", "4.5", "4.5,3.1"]
    assert found["returns"] == curve.returns == 1
    assert ranked.loc[0, "refusal_logit"] < -4 < 0 < ranked.loc[2, "refusal_logit"]
    assert random["refusal_logit"].max() < -4
    assert ranked.loc[0, "asr"] >= 0.4 and ranked.loc[2, "asr"] == 0
    assert random["asr"].notna().sum() == 2
    assert {Path(file) for file in found["files"]} == set(tmp_path.iterdir())
    assert curve.evidence in out.with_suffix(".html").read_text(encoding="utf-8").replace("&#x27;", "'")


def test_curve_in_a_greedy_order(forks: Forks, cliff: Path, heads: Path, tmp_path: Path) -> None:
    words = ("heads", "curve", *on(cliff), "--heads", heads, "--out", tmp_path / "c.parquet", "--counts", "1,2,8")
    payload(forks.run(*words, "--greedy", "--scope", "from-edge", "--random-sets", 1, "--prompts", 0, "--json"))
    curve = AblationCurve.load(tmp_path / "c.parquet")
    steps = greedy(organism("cliff"), cases().complied, Readouts.of(organism("cliff")), n=8)
    order = [str(step.head) for step in steps]
    assert order[:2] == ["4.5", "3.1"] and len(order) <= 8
    ranked = curve.table[curve.table["set"] == "ranked"]
    assert ranked["heads"].tolist() == ["", *(",".join(order[:n]) for n in sorted({1, 2, len(order)}))]


def test_curve_of_logits_alone_for_people(forks: Forks, cliff: Path, heads: Path, tmp_path: Path) -> None:
    words = ("heads", "curve", *on(cliff), "--heads", heads, "--out", tmp_path / "c.parquet", "--counts", "1")
    words += ("--random-sets", 1, "--prompts", 0, "--gamma", 0.5, "--scope", "from-edge")
    title, head, *rows = table(forks.run(*words)).splitlines()
    curve = AblationCurve.load(tmp_path / "c.parquet")
    assert (curve.facts["gamma"], curve.facts["scope"]) == (0.5, "from-edge")
    assert title == "organism:cliff: heads ablated, best first" and head.split()[:3] == [
        "heads",
        "refusal_logit",
        "asr",
    ]
    for line, (_, row) in zip(rows, curve.table[curve.table["set"] == "ranked"].iterrows(), strict=False):
        assert line.split()[:3] == [str(row["n_heads"]), f"{row['refusal_logit']:.3f}", "–"]
    assert rows[2] == curve.evidence


def test_cascade(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out = tmp_path / "cascade.parquet"
    words = ("heads", "cascade", *on(cliff), "--head", "3.1", "--out", out)
    found = payload(forks.run(*words, "--scope", "from-edge", "--json"))
    written = Cascade.load(out)
    expected = knock_out(organism("cliff"), organism_probe("cliff"), cases(), (3, 1), scope="from-edge")
    pd.testing.assert_frame_equal(written.table, expected.table, rtol=1e-3, atol=1e-3)
    assert found["head"] == "3.1" and found["falls"] == ["4.5"] and found["files"] == [str(out)]
    assert [row["change"] for row in found["rows"]] == pytest.approx(written.table["change"].tolist())
    assert list(tmp_path.iterdir()) == [out]

    title, head, first, *_, told, _ = table(forks.run(*words)).splitlines()
    everywhere = Cascade.load(out)
    assert everywhere.facts["scope"] == "all" and "when 3.1 is knocked out" in title
    assert head.split() == ["head", "before", "after", "change", "low", "high", "q", "falls"]
    assert first.split()[:2] == ["4.5", f"{everywhere.table['before'][0]:.3f}"] and first.endswith("yes")
    assert told.startswith("Against refusal write less behind 3.1: 4.5 (probe logit ")


def test_behind_a_head_of_the_last_layer_is_none(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    words = ("heads", "cascade", *on(cliff), "--head", "5.0", "--out", tmp_path / "c.parquet", "--json")
    found = payload(forks.run(*words))
    assert found["rows"] == [] and found["falls"] == []


def test_attention(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "attention.html", organism("cliff")
    words = ("heads", "attention", *MODEL, "--rollouts", cliff / "rollouts.jsonl", "--head", "4.5,3.1", "--out", out)
    found = payload(forks.run(*words, "--json"))
    first = next(rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "complied")
    assert found["id"] == first.id and found["files"] == [str(out)]
    transcript = model.transcripts().build(first)
    pattern = edge_attention(model, transcript, [(4, 5), (3, 1)])
    for row, name in zip(pattern, ("4.5", "3.1"), strict=True):
        told = [cell for cell in found["attention"] if cell["head"] == name]
        assert [cell["weight"] for cell in told] == pytest.approx(row.topk(5).values.tolist(), abs=1e-4)
        for cell in told:
            assert cell["token"] == transcript.tokens[cell["token_index"]]
            assert cell["segment"] == transcript.labels[cell["token_index"]]
            assert cell["weight"] == pytest.approx(float(row[cell["token_index"]]), abs=1e-4)
    page = out.read_text(encoding="utf-8")
    assert "4.5" in page and first.id in page
    other = organism_rollouts("cliff")[-1]
    text = table(forks.run(*words, "--id", other.id))
    assert text.startswith(f"organism:cliff: where heads attend most from the edge of {other.id}\n")
    assert text.splitlines()[1].split() == ["head", "token", "text", "segment", "weight"]


def test_rank_under_a_mask(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    """Every pass has the mask: the scores are those of whole passes with it, and nothing else."""
    out = tmp_path / "h.parquet"
    found = payload(
        forks.run("heads", "rank", *on(cliff), "--mask", cliff / "half.safetensors", "--out", out, "--json")
    )
    assert found["model"].startswith("organism:cliff + mask ")
    scores = HeadScores.load(out).table.set_index("name")["score"]
    half = ScaleHeads([Head(3, 1)], gamma=0.5)
    base = refusal_logits(half)
    for name in ("4.5", "3.1", "2.7"):
        layer, head = map(int, name.split("."))
        rise = refusal_logits(half, ScaleHeads([Head(layer, head)], "from-edge")) - base
        assert scores[name] == pytest.approx(rise.mean(), abs=1e-3)
    assert abs(base - refusal_logits()).max() > 0.1
    # A mask for the model with the mask: which model that is must be said.
    words = ("mask", "build", "--heads", out, "--out", tmp_path / "m.safetensors")
    assert "say with --model" in refusal(forks.run(*words))
    assert payload(forks.run(*words, *MODEL, "--json"))["model"] == "organism:cliff"


@pytest.mark.parametrize("method", METHODS)
def test_with_the_planted_heads_masked_nothing_is_left(method: str, forks: Forks, cliff: Path, tmp_path: Path) -> None:
    words = ("heads", "rank", *on(cliff), "--method", method, "--mask", cliff / "mask.safetensors")
    found = payload(forks.run(*words, "--out", tmp_path / "h.parquet", "--json"))
    assert found["suppressors"] == [] and "mean cliff" in found["nothing"]


def test_curve_cascade_and_attention_under_a_mask(forks: Forks, cliff: Path, heads: Path, tmp_path: Path) -> None:
    model, half = organism("cliff"), HeadMask.load(cliff / "half.safetensors")
    mask = ("--mask", cliff / "half.safetensors", "--json")
    words = ("--heads", heads, "--counts", "1", "--random-sets", 1, "--prompts", 0, "--out", tmp_path / "c.parquet")
    curve = payload(forks.run("heads", "curve", *on(cliff), *words, *mask))
    halved = ScaleHeads([Head(3, 1)], gamma=0.5)
    by_hand = [refusal_logits(halved), refusal_logits(halved, ScaleHeads([Head(4, 5)]))]
    assert [row["refusal_logit"] for row in curve["rows"][:2]] == pytest.approx([b.mean() for b in by_hand], abs=1e-3)
    words = ("--head", "3.1", "--out", tmp_path / "cascade.parquet")
    found = payload(forks.run("heads", "cascade", *on(cliff), *words, *mask))
    with half.attached(model):
        masked = Cases.of(model, organism_probe("cliff"), organism_rollouts("cliff"), limit=LIMIT)
        expected = knock_out(model, organism_probe("cliff"), masked, (3, 1))
        first = next(rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "complied")
        pattern = edge_attention(model, transcript := model.transcripts().build(first), [(4, 5)])
    assert [row["change"] for row in found["rows"]] == pytest.approx(expected.table["change"].tolist(), abs=1e-3)
    words = ("--rollouts", cliff / "rollouts.jsonl", "--head", "4.5", "--out", tmp_path / "a.html")
    seen = payload(forks.run("heads", "attention", *MODEL, *words, *mask))
    assert [cell["weight"] for cell in seen["attention"]] == pytest.approx(pattern[0].topk(5).values.tolist(), abs=1e-4)
    assert not torch.allclose(pattern, edge_attention(model, transcript, [(4, 5)]), atol=1e-3)
    for told in (curve, found, seen):
        assert told["model"].startswith("organism:cliff + mask ")
