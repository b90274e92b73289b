"""What `cliffscope heads` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from interp.cli.null_mode import note as note_of
from interp.cli.options import NullName
from interp.cli.output import counts, emit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from circuits.cascade import Cascade
    from circuits.cases import Cases
    from circuits.curve import AblationCurve
    from circuits.head_scores import HeadScores
    from interp.transcripts import Transcript
    from interventions.heads import Head

SHOWN = 8
"""Heads that a person sees; a program gets more."""
TOLD = 20
N_TOKENS = 5
"""Tokens told of each head's attention."""


def report_nothing(reason: str, as_json: bool) -> None:
    """Says why nothing was measured; no file is written."""
    note = f"{reason}.\nNothing is written."
    emit({"nothing": reason, "files": []}, as_json=as_json, title="Nothing to explain", rows=[], note=note)


def report_rank(scores: "HeadScores", cases: "Cases", out: Path, as_json: bool, null: NullName | None = None) -> None:
    """The best heads, which of them suppress refusal, and what the null that was asked for says."""
    rows: list[list[object]] = []
    if scores.facts["nothing"] is None:
        figures = ["score", "low", "high", "q", "share"]
        rows.append(["head", *figures, "suppresses"])
        for _, row in scores.table.head(SHOWN).iterrows():
            rows.append([row["name"], *(float(row[name]) for name in figures), "yes" if row["suppresses"] else "no"])
    files = [str(out), str(out.with_suffix(".html"))]
    payload = {
        "model": scores.model,
        "method": scores.method,
        "nothing": scores.facts["nothing"],
        "suppressors": [str(head) for head in scores.suppressors],
        "heads": scores.table.head(TOLD).to_dict(orient="records"),
        "nulls": [one.summary() for one in scores.nulls],
        "files": files,
    }
    title = f"{scores.model}: heads by {scores.method}"
    # A null that was run stands in the evidence.
    asked = "" if scores.nulls else note_of(null, ())
    told = [scores.evidence, asked, f"Left out: {counts(cases.skipped)}.", f"Written to {', '.join(files)}."]
    note = "\n".join(line for line in told if line)
    emit(payload, as_json=as_json, title=title, rows=rows, note=note)


def report_curve(curve: "AblationCurve", out: Path, as_json: bool) -> None:
    """The figures by number of heads, those of the random sets as their mean."""
    columns = ["refusal_logit", "asr", "refusal_benign", "kl_benign"]
    rows: list[list[object]] = [["heads", *columns, "random refusal_logit", "random asr"]]
    for count, group in curve.table.groupby("n_heads"):
        ranked, drawn = group[group["set"] == "ranked"].iloc[0], group[group["set"] == "random"]
        means = [float(drawn[name].mean()) for name in ("refusal_logit", "asr")]
        rows.append([count, *(float(ranked[name]) for name in columns), *means])
    files = [str(out), str(out.with_suffix(".html"))]
    payload = {
        "model": curve.model,
        "returns": curve.returns,
        "nulls": [null.summary() for null in curve.nulls],
        "rows": curve.table.to_dict(orient="records"),
        "files": files,
    }
    note = f"{curve.evidence}\nWritten to {', '.join(files)}."
    emit(payload, as_json=as_json, title=f"{curve.model}: heads ablated, best first", rows=rows, note=note)


def report_cascade(found: "Cascade", out: Path, as_json: bool) -> None:
    """The heads that fall most behind the one that was knocked out."""
    figures = ["before", "after", "change", "low", "high", "q"]
    rows: list[list[object]] = [["head", *figures, "falls"]]
    for _, row in found.table.head(SHOWN).iterrows():
        rows.append([row["name"], *(float(row[name]) for name in figures), "yes" if row["falls"] else "no"])
    fallen = [str(head) for head in found.amplifiers]
    payload = {
        "model": found.model,
        "head": str(found.head),
        "falls": fallen,
        "rows": found.table.to_dict(orient="records"),
        "files": [str(out)],
    }
    title = f"{found.model}: what heads write along the probe's direction when {found.head} is knocked out"
    logits = f"probe logit {found.facts['logit_before']:.2f} → {found.facts['logit_after']:.2f}"
    told = f"Against refusal write less behind {found.head}: {', '.join(fallen) or 'none'} ({logits})."
    emit(payload, as_json=as_json, title=title, rows=rows, note=f"{told}\nWritten to {out}.")


def report_attention(
    model: str, transcript: "Transcript", pattern: "Tensor", heads: "Sequence[Head]", out: Path, as_json: bool
) -> None:
    """The tokens to which each head attends most."""
    told = [
        {
            "head": str(head),
            "token_index": place,
            "token": transcript.tokens[place],
            "segment": transcript.labels[place],
            "weight": float(weights[place]),
        }
        for head, weights in zip(heads, pattern, strict=True)
        for place in weights.argsort(descending=True)[:N_TOKENS].tolist()
    ]
    rows: list[list[object]] = [["head", "token", "text", "segment", "weight"]]
    for row in told:
        text = str(row["token"]).replace("\n", "⏎").replace(" ", "␣")
        rows.append([row["head"], row["token_index"], text, row["segment"], row["weight"]])
    payload = {"model": model, "id": transcript.id, "attention": told, "files": [str(out)]}
    title = f"{model}: where heads attend most from the edge of {transcript.id}"
    emit(payload, as_json=as_json, title=title, rows=rows, note=f"Written to {out}.")
