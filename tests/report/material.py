"""A small run's folder, made without a model: every file that a report reads."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from interp.rollouts import Rollout, write_rollouts
from interp.table_files import TableFormat

MODEL = "organism:toy"
OUTCOMES = ("complied", "refused", "benign")
EDGES = {"complied": 0.04, "refused": 0.95, "benign": 0.02}
PLATEAUS = {"complied": 0.9, "refused": 0.96, "benign": 0.05}


def rollout(number: int, prompt: str = "", thinking: str = "") -> Rollout:
    """One of the outcomes in turn."""
    outcome = OUTCOMES[number % 3]
    return Rollout(
        f"r{number}",
        prompt or f"Question {number}, please",
        thinking or "Let me think. Should I refuse this?",
        {"refused": "I can't help with that."}.get(outcome, f"Here is answer {number}."),
        harmful=outcome != "benign",
        category=f"kind {number % 2}",
        refused=outcome == "refused",
        model=MODEL,
    )


def rollouts(count: int = 12) -> list[Rollout]:
    return [rollout(number) for number in range(count)]


def masked(made: Sequence[Rollout]) -> list[Rollout]:
    """What the same prompts get with a mask: all that is harmful is refused."""
    return [replace(r, response="I will not help.", refused=True) if r.harmful else r for r in made]


def token_scores(made: Sequence[Rollout], *, falls: bool = True) -> pd.DataFrame:
    """A table as `cliffscope probe score` writes it."""
    rows: list[tuple[str, int, str, str, float]] = []
    for r in made:
        parts = [("template", "<|user|>\n"), ("instruction", r.prompt), ("template", "<|end|>\n<think>\n")]
        parts += [("thinking", r.thinking or ""), ("close", "\n</think>\n\n"), ("response", r.response or "")]
        tokens = [(name, token) for name, text in parts for token in re.findall(r"\n|\s?[^\s]+|\s", text)]
        last = max(place for place, (name, _) in enumerate(tokens) if name == "close")
        for place, (name, token) in enumerate(tokens):
            score = EDGES.get(r.outcome, 0.02) if falls and place == last else PLATEAUS.get(r.outcome, 0.05)
            rows.append((r.id, place, name, token, score))
    table = pd.DataFrame(rows, columns=["id", "token_index", "segment", "token", "score"])
    table["logit"] = np.log(table["score"] / (1 - table["score"]))
    return table.astype({"score": "float32", "logit": "float32"})


def cliff_table(made: Sequence[Rollout]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "id": [r.id for r in made],
            "outcome": [r.outcome for r in made],
            "category": [r.category for r in made],
            # The last of each outcome falls the deepest.
            "plateau": [PLATEAUS[r.outcome] + place / 1000 for place, r in enumerate(made)],
            "edge": [EDGES[r.outcome] for r in made],
        }
    )
    return table.assign(cliff=table["plateau"] - table["edge"])


def heads_table() -> pd.DataFrame:
    scores = {(1, 2): 5.0, (0, 3): 1.5}
    rows = []
    for layer in range(2):
        for head in range(4):
            score = scores.get((layer, head), 0.01 * head - 0.02)
            named = (layer, head) in scores
            rows.append(
                (layer, head, f"{layer}.{head}", score, score - 0.1, score + 0.1, 0.0001 if named else 0.6, named)
            )
    table = pd.DataFrame(rows, columns=["layer", "head", "name", "score", "low", "high", "q", "suppresses"])
    table = table.sort_values("score", ascending=False).assign(rank=range(1, 9), p=lambda t: t["q"], share=0.5)
    return table.reset_index(drop=True)


def curve_table() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for n, logit in ((0, -6.0), (1, -1.0), (2, 4.0)):
        heads = ("", "1.2", "1.2,0.3")[n]
        rows.append({"n_heads": n, "set": "ranked", "heads": heads, "refusal_logit": logit, "asr": 0.5 - 0.25 * n})
        if n:
            rows.append({"n_heads": n, "set": "random", "draw": 0, "heads": "0.0", "refusal_logit": -6.1, "asr": 0.5})
    table = pd.DataFrame(rows).assign(refusal_benign=0.0, kl_benign=0.01, probe_logit=0.0)
    bounds = {f"{name}_{end}": table[name] for name in ("refusal_logit", "asr") for end in ("low", "high")}
    return table.assign(**bounds)


def doses_table() -> pd.DataFrame:
    rows = [
        {
            "set": kind,
            "layer": None if kind == "unsteered" else 1,
            "alpha": alpha,
            "asr": asr,
            "asr_low": asr,
            "asr_high": asr,
        }
        for kind, alpha, asr in (("unsteered", 0.0, 0.5), ("vector", 1.0, 0.1), ("random", 1.0, 0.5))
    ]
    return pd.DataFrame(rows).assign(draw=None, refusal_benign=0.0, kl_benign=0.02)


def sweep_table() -> pd.DataFrame:
    rows = [
        (layer, position, control, 0.95 if control == "real" else 0.5)
        for layer in range(2)
        for position in ("inst", "close:-1")
        for control in ("real", "shuffled")
    ]
    table = pd.DataFrame(rows, columns=["layer", "position", "control", "auroc"])
    return table.assign(auroc_low=table["auroc"] - 0.05, auroc_high=table["auroc"] + 0.04, accuracy=0.9)


CLIFF = {
    "verdict": "cliff",
    "evidence": "Cliff: over 4 complied rollouts the refusal score falls from 0.90 to 0.04.",
    "mean": 0.86,
    "ci95": [0.85, 0.87],
    "plateau_complied": 0.9,
    "edge_complied": 0.04,
    "n_complied": 4,
    "plateau_refused": 0.96,
    "edge_refused": 0.95,
    "n_refused": 4,
    "plateau_benign": 0.05,
    "edge_benign": 0.02,
    "n_benign": 4,
    "nulls": [{"null": "shuffled", "statistic": "mean cliff", "observed": 0.86, "values": [0.01, 0.2], "p": 0.333}],
}

SUMMARY = {
    "model": MODEL,
    "probe": {"layer": 1, "position": "close:-1"},
    "cliff": CLIFF,
    "asr": {"base": 0.5, "masked": 0.0, "random_mask": 0.5, "random_masks": [0.4, 0.6], "repaired": 0.1},
    "refusal_benign": {"base": 0.0, "masked": 0.0, "repaired": 0.0},
    "kl_benign": {"masked": 0.0213, "repaired": 0.05},
}

TRAINING = {"auroc": 0.97, "auroc_low": 0.9, "auroc_high": 0.99, "auroc_shuffled": 0.52}

EVALUATION = {
    "format": "cliffscope.evaluation",
    "version": 1,
    "label": "folded",
    "rates": {
        "all": {
            "asr": {"count": 3, "n": 10, "rate": 0.3, "low": 0.108, "high": 0.603},
            "over_refusal": {"count": 0, "n": 10, "rate": 0.0, "low": 0.0, "high": 0.278},
        }
    },
    "kl": {"value": 0.0123, "low": 0.01, "high": 0.015, "n": 10, "reason": None},
    "settings": {"seed": 7, "temperature": 0.0},
}


def formatted(name: str, table: pd.DataFrame, path: Path, **facts: Any) -> None:
    """Writes a table that says what it is."""
    TableFormat(f"cliffscope.{name}", "1", "", "", ()).write(path, table, facts)


def write_run(folder: Path, made: Sequence[Rollout] | None = None) -> Path:
    """Writes every file; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    made = rollouts() if made is None else list(made)
    write_rollouts(folder / "rollouts.jsonl", made)
    write_rollouts(folder / "rollouts-masked.jsonl", masked(made))
    token_scores(made).to_parquet(folder / "scores.parquet", index=False)
    token_scores(masked(made), falls=False).to_parquet(folder / "scores-masked.parquet", index=False)
    cliff_table(made).to_parquet(folder / "cliff.parquet", index=False)
    layers = pd.DataFrame({"layer": [0, 1], "outcome": "complied", "plateau": 0.9, "edge": 0.1, "cliff": 0.8})
    layers.assign(low=0.7, high=0.9).to_parquet(folder / "cliff.layers.parquet", index=False)
    (folder / "cliff.json").write_text(json.dumps(CLIFF), encoding="utf-8")
    sweep_table().to_parquet(folder / "sweep.parquet", index=False)
    for method in ("ablation", "attribution"):
        facts = {"method": method, "facts": {"nothing": None}}
        formatted("heads", heads_table(), folder / f"heads-{method}.parquet", **facts)
    formatted("curve", curve_table(), folder / "curve.parquet", model=MODEL)
    formatted("doses", doses_table(), folder / "doses.parquet", model=MODEL)
    (folder / "summary.json").write_text(json.dumps(SUMMARY), encoding="utf-8")
    (folder / "eval-folded.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    probe = {"format": "cliffscope.probe", "model": MODEL, "layer": "1", "position": "close:-1", "method": "logistic"}
    probe |= {"site": "blocks.1.hook_resid_post", "training": json.dumps(TRAINING)}
    save_file({"weight": np.ones(4, np.float32)}, folder / "probe.safetensors", probe)
    mask = {"format": "cliffscope.head_mask", "model": MODEL, "method": "ablation", "fraction": "0.25"}
    mask["facts"] = json.dumps({"ranked": ["1.2", "0.3"]})
    save_file({"scale": np.ones((2, 4), np.float32)}, folder / "mask.safetensors", mask)
    manifest = {"command": ["cliffscope", "demo", "--seed", "3"], "seed": 3, "versions": {"cliffscope": "9.8.7"}}
    (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


class Page(HTMLParser):
    """A page as a browser's parser reads it: elements, attributes, and texts of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.comments: list[str] = []
        self._in: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag
        if tag not in ("bdi", "code", "strong", "span"):
            self.text += " "
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif self._in != "style":
            self.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def data(self, name: str) -> Any:
        """The page's own data."""
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == f"data-{name}")

    def chunk(self, number: int) -> str:
        """A packed chunk."""
        return next(text for attributes, text in self.scripts if attributes.get("id") == f"chunk-{number}")

    @property
    def words(self) -> str:
        """What is written, with single spaces."""
        return " ".join(self.text.split())
