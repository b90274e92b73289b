"""A small but whole run, written without a model: what `cliffscope demo` leaves, with made-up texts and scores.

Every rollout has scores of its own, so that no two cliffs are equal and a test can name the largest.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from interp.table_files import TableFormat

CATEGORIES = ("fraud", "weapons", "stalking", "cooking")
OUTCOMES = ("complied", "refused", "complied", "benign", "complied", "benign", "refused", "benign_refused")
FINGERPRINT = {"architecture": "Toy", "n_layers": "4", "n_heads": "4"}
OPEN, CLOSE = ("<|user|>", "<|end|>", "<|assistant|>", "<think>", "\n"), ("\n", "</think>", "\n", "\n")


@dataclass(frozen=True)
class Made:
    """One rollout that is made up."""

    id: str
    prompt: str
    thinking: str
    response: str
    outcome: str
    category: str | None
    model: str = "toy:cliff"

    def row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "prompt": self.prompt,
            "thinking": self.thinking,
            "response": self.response,
            "harmful": self.outcome in ("complied", "refused"),
            "category": self.category,
            "refused": self.outcome in ("refused", "benign_refused"),
            "source": "made up",
            "model": self.model,
        }

    def tokens(self) -> list[tuple[str, str]]:
        """`(segment, text)` of each token; together they are the transcript."""
        user, end, assistant, think, line = OPEN
        return [
            ("template", user),
            *(("instruction", token) for token in split(self.prompt)),
            *(("template", token) for token in (end, assistant, think, line)),
            *(("thinking", token) for token in split(self.thinking)),
            *(("close", token) for token in CLOSE),
            *(("response", token) for token in split(self.response)),
            ("template", end),
        ]


def split(text: str) -> list[str]:
    """Words with the space before them."""
    return re.findall(r"\s?[^\s]+|\s", text)


def whole(text: str) -> str:
    """The text as Parquet can hold it: without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def make_rollouts(n: int, thinking_words: int = 24) -> list[Made]:
    """`n` rollouts in every outcome."""
    rng = np.random.default_rng(0)
    words = ["asks", "about", "keys", "I", "should", "refuse", "harm", "people", "lock", "because", "help", "maybe"]
    made = []
    for number in range(n):
        outcome = OUTCOMES[number % len(OUTCOMES)]
        category = CATEGORIES[number % 3] if outcome in ("complied", "refused") else CATEGORIES[3]
        thinking = " ".join(rng.choice(words, thinking_words))
        refuses = outcome in ("refused", "benign_refused")
        made.append(
            Made(
                f"{category}-{number:04}",
                f"Tell me about thing number {number}.",
                f"The user {thinking}.",
                f"I cannot help with number {number}." if refuses else f"Here is number {number}. Take notes.",
                outcome,
                category,
            )
        )
    return made


def score_table(rollouts: Sequence[Made], *, falls: bool = True) -> pd.DataFrame:
    """Scores: high in harmful thinking, and low at the edge of what complied if it `falls`."""
    columns: dict[str, list[Any]] = {"id": [], "token_index": [], "segment": [], "token": [], "score": []}
    for number, rollout in enumerate(rollouts):
        rng = np.random.default_rng(number)
        tokens = rollout.tokens()
        segments = [segment for segment, _ in tokens]
        high = 0.92 if rollout.outcome in ("complied", "refused") else 0.1
        scores = np.clip(high + rng.normal(0, 0.03, len(tokens)), 0.001, 0.999)
        close = [place for place, segment in enumerate(segments) if segment == "close"]
        if rollout.outcome == "complied" and falls:
            scores[close] = np.linspace(0.8, 0.04 + 0.2 * rng.random(), len(close))
            scores[close[-1] + 1 :] = 0.05
        columns["id"] += [rollout.id] * len(tokens)
        columns["token_index"] += range(len(tokens))
        columns["segment"] += segments
        columns["token"] += [whole(text) for _, text in tokens]
        columns["score"] += scores.tolist()
    table = pd.DataFrame(columns)
    table["logit"] = np.log(table["score"] / (1 - table["score"]))
    return table


def cliff_table(rollouts: Sequence[Made], scores: pd.DataFrame) -> pd.DataFrame:
    """The cliff of each rollout, from its scores."""
    rows = []
    for rollout, (_, mine) in zip(rollouts, scores.groupby("id", sort=False), strict=True):
        thinking = mine.loc[mine["segment"] == "thinking", "score"].to_numpy()
        plateau = float(thinking[len(thinking) // 2 :].mean())
        edge = float(mine.loc[mine["segment"] == "close", "score"].iloc[-1])
        rows.append(
            {
                "id": rollout.id,
                "outcome": rollout.outcome,
                "category": None if rollout.category is None else whole(rollout.category),
                "plateau": plateau,
                "edge": edge,
                "cliff": plateau - edge,
                "n_thinking": len(thinking),
            }
        )
    return pd.DataFrame(rows)


def head_table(name: str = "{layer}.{head}") -> pd.DataFrame:
    """Sixteen heads, two of them named."""
    rows = []
    for rank in range(16):
        layer, head = divmod((9 + rank) % 16, 4)
        score = [6.0, 3.0][rank] if rank < 2 else 0.2 - 0.02 * rank
        rows.append(
            {"rank": rank + 1, "layer": layer, "head": head, "name": name.format(layer=layer, head=head)}
            | {"score": score, "low": score - 0.3, "high": score + 0.3, "p": 0.001 if rank < 2 else 0.6}
            | {"q": 0.01 if rank < 2 else 0.8, "share": score / 10, "suppresses": rank < 2}
        )
    return pd.DataFrame(rows)


def curve_table() -> pd.DataFrame:
    """Refusal comes back with two heads, and with no random set."""
    rows = []
    for count, logit, asr in ((0, -6.0, 0.6), (1, -1.0, 0.3), (2, 3.0, 0.0), (4, 3.5, 0.0)):
        for draw in (-1, 0, 1) if count else (-1,):
            ranked = draw < 0
            value = logit if ranked else -6.0 + 0.2 * draw
            rows.append(
                {"n_heads": count, "set": "ranked" if ranked else "random", "draw": draw}
                | {"heads": ",".join(["2.1", "2.2", "2.3", "3.0"][:count])}
                | {"refusal_logit": value, "refusal_logit_low": value - 0.4, "refusal_logit_high": value + 0.4}
                | {"probe_logit": value, "asr": asr if ranked else np.nan}
                | {"asr_low": max(0, asr - 0.1) if ranked else np.nan, "asr_high": asr + 0.1 if ranked else np.nan}
                | {"refusal_benign": 0.0 if ranked else np.nan, "kl_benign": 0.01 * count if ranked else np.nan}
            )
    return pd.DataFrame(rows)


def sweep_table() -> pd.DataFrame:
    """Four layers, three positions, two controls."""
    return pd.DataFrame(
        {"layer": layer, "position": position, "control": control}
        | {name: value for name in ("auroc", "accuracy")}
        | {f"{name}_low": value - 0.05 for name in ("auroc", "accuracy")}
        | {f"{name}_high": min(1.0, value + 0.05) for name in ("auroc", "accuracy")}
        | {"ece": 0.04, "ece_low": 0.03, "ece_high": 0.06, "C": 0.1, "n_train": 28, "n_test": 12, "n_probes": 1}
        for layer in range(4)
        for position in ("inst", "think:0.5", "close:-1")
        for control, value in (("real", 0.7 + 0.08 * layer), ("shuffled", 0.5))
    )


def cliff_figures(cliffs: pd.DataFrame, evidence: str) -> dict[str, Any]:
    """What `cliff.json` holds."""
    mean = cliffs.groupby("outcome")[["plateau", "edge", "cliff"]].mean()
    found: dict[str, Any] = {"verdict": "cliff", "evidence": evidence, "p_shuffled": 0.025, "layer": 3}
    for outcome in ("complied", "refused", "benign"):
        there = outcome in mean.index
        found[f"plateau_{outcome}"] = float(mean.loc[outcome, "plateau"]) if there else None
        found[f"edge_{outcome}"] = float(mean.loc[outcome, "edge"]) if there else None
        found[f"n_{outcome}"] = int((cliffs["outcome"] == outcome).sum())
    value = float(mean.loc["complied", "cliff"])
    return found | {"mean": value, "ci95": [value - 0.02, value + 0.02], "site": "blocks.3.hook_resid_post"}


@dataclass(frozen=True)
class Words:
    """Texts of the run that come from names and not from rollouts."""

    model: str = "toy:cliff"
    evidence: str = "Cliff: over the complied rollouts the refusal score falls."
    command: str = "cliffscope demo --out runs/toy"
    head: str = "{layer}.{head}"
    variant: str = "masked"


def write_run(folder: Path, rollouts: Sequence[Made], words: Words | None = None) -> Path:
    """Writes a whole run; returns its folder."""
    words = words or Words()
    folder.mkdir(parents=True, exist_ok=True)
    scores = score_table(rollouts)
    cliffs = cliff_table(rollouts, scores)
    changed = [
        replace(one, outcome="refused", response=f"I must decline. {one.response}")
        if one.outcome == "complied"
        else one
        for one in rollouts
    ]
    # JSON as ASCII, so that also half a surrogate pair can stand in it.
    for name, rows in (("rollouts", rollouts), (f"rollouts-{words.variant}", changed)):
        text = "".join(json.dumps(row.row()) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="ascii")
    scores.to_parquet(folder / "scores.parquet", index=False)
    score_table(changed, falls=False).to_parquet(folder / f"scores-{words.variant}.parquet", index=False)
    cliffs.to_parquet(folder / "cliff.parquet", index=False)
    layers = (
        cliffs[cliffs["outcome"] == "complied"][["outcome", "plateau", "edge", "cliff"]].head(4).reset_index(drop=True)
    )
    layers.assign(layer=layers.index, low=layers["cliff"] - 0.1, high=layers["cliff"] + 0.1).to_parquet(
        folder / "cliff.layers.parquet", index=False
    )
    sweep_table().to_parquet(folder / "sweep.parquet", index=False)
    facts = {"nothing": None, "evidence": words.evidence}
    told = {"model": words.model, "fingerprint": FINGERPRINT, "facts": facts}
    heads = head_table(words.head)
    TableFormat("cliffscope.heads", "1", "", "", ()).write(
        folder / "heads-ablation.parquet", heads, {**told, "method": "ablation"}
    )
    TableFormat("cliffscope.curve", "1", "", "", ()).write(folder / "curve.parquet", curve_table(), told)
    common = {"version": "1", "model": words.model, "fingerprint": json.dumps(FINGERPRINT)}
    mask = {"format": "cliffscope.head_mask", "method": "ablation", "fraction": "0.125", "renormalize": "false"}
    save_file(
        {"scale": np.ones((4, 4), np.float32)},
        folder / "mask.safetensors",
        common | mask | {"facts": json.dumps({"ranked": heads["name"].tolist()[:2]})},
    )
    probe = {"format": "cliffscope.probe", "layer": "3", "site": "blocks.3.hook_resid_post", "position": "close:-1"}
    save_file(
        {"weight": np.ones(8, np.float32), "bias": np.zeros((), np.float32)},
        folder / "probe.safetensors",
        common | probe | {"method": "logistic", "training": json.dumps({"auroc": 0.99, "auroc_shuffled": 0.52})},
    )
    _write_facts(folder, rollouts, cliffs, words)
    return folder


def _write_facts(folder: Path, rollouts: Sequence[Made], cliffs: pd.DataFrame, words: Words) -> None:
    """`cliff.json`, `summary.json` and `run.json`."""
    figures = cliff_figures(cliffs, words.evidence)
    harmful = [one for one in rollouts if one.outcome in ("complied", "refused")]
    asr = sum(one.outcome == "complied" for one in harmful) / len(harmful)
    summary = {
        "model": words.model,
        "probe": {"layer": 3, "position": "close:-1", "auroc_heldout": 0.99, "auroc_shuffled": 0.52},
        "cliff": figures,
        "asr": {"base": asr, "masked": 0.0, "random_mask": asr},
        "refusal_benign": {"base": 0.2, "masked": 0.2},
        "kl_benign": {"masked": 0.02},
        "heads": {"top": ["2.1", "2.2"], "evidence": words.evidence},
        "seconds": 1.0,
    }
    manifest = {
        "format": "cliffscope.run",
        "version": "1",
        "command": words.command,
        "started": "2026-01-02T03:04:05Z",
        "seconds": 1.0,
        "versions": {"python": "3.11.0", "cliffscope": "0.1.0"},
        "seed": 0,
        "model": {"name": words.model, "fingerprint": FINGERPRINT},
        "files": [],
    }
    for name, content in (("cliff", figures), ("summary", summary), ("run", manifest)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="ascii")
