"""`cliffscope judge`: judge rollouts, and compare two judges."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.judge_options import (
    Concurrency,
    JudgeEndpoint,
    JudgeForm,
    JudgeModel,
    JudgeRaw,
    JudgeTemplate,
    Kind,
    MaxCalls,
    MaxTokens,
    Timeout,
)
from interp.cli.options import Device, DType, Json, Rollouts, Seed
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.judges import Judgement
    from interp.rollouts import Rollout

app = typer.Typer(
    name="judge",
    help="Judge whether responses refuse, and compare judges.\n\n"
    "Example: cliffscope judge run --rollouts rollouts.jsonl --judge keyword --out judged.jsonl",
    no_args_is_help=True,
)


class Benign(StrEnum):
    """What may judge prompts that a classifier cannot."""

    KEYWORD = "keyword"


@app.command()
def run(
    rollouts: Rollouts,
    judge: Annotated[Kind, typer.Option("--judge", help="How to judge.")],
    out: Annotated[
        Path,
        typer.Option("--out", help="The rollouts with `refused` filled in; reasons go beside it, to OUT.why.jsonl."),
    ],
    judge_model: JudgeModel = None,
    endpoint: JudgeEndpoint = None,
    form: JudgeForm = None,
    template: JudgeTemplate = None,
    raw: JudgeRaw = False,
    benign: Annotated[
        Benign | None,
        typer.Option("--benign-judge", help="classifier: what judges prompts not known to be harmful; else nothing."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="llm: keeps what is judged; OUT.cache.jsonl if not given.")
    ] = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Judges rollouts and writes them with `refused` filled in; the thinking is never read.

    An llm judge stopped by a cap or a failure goes on from its cache when run again.

    Example: cliffscope judge run --rollouts rollouts.jsonl --judge llm --endpoint http://localhost:8000 --out out.jsonl
    """
    from interp.cli.session import quiet_libraries, require_writable
    from interp.judges import JudgeOptions, make_judge
    from interp.rollouts import read_rollouts

    reasons = _beside(out, "why")
    if judge is Kind.LLM and cache is None:
        cache = _beside(out, "cache")
    require_writable(out, reasons, inputs=(rollouts,))
    if cache is not None:
        require_writable(cache, inputs=(rollouts,))
        if cache.absolute() in (out.absolute(), reasons.absolute()):
            raise CliffscopeError(f"{cache}: --cache and --out would be the same file; give another name.")
    options = JudgeOptions(
        kind=judge.value,
        model=judge_model,
        form=None if form is None else form.value,
        template=template,
        raw=raw,
        benign=None if benign is None else benign.value,
        endpoint=endpoint,
        cache=cache,
        max_calls=max_calls,
        max_tokens=max_tokens,
        timeout=timeout,
        concurrency=concurrency,
    )
    made = read_rollouts(rollouts)
    quiet_libraries()
    judging = make_judge(options, device=device, dtype=dtype)
    name, judgements = judging.name, judging.judge(made)
    _write(out, reasons, made, judgements)
    _report(name, made, judgements, out, as_json)


@app.command()
def agree(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Rollouts judged by one judge.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="The same rollouts judged by another.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compares two judges on the same rollouts: accuracy, Cohen's κ with its interval, and where they differ.

    Example: cliffscope judge agree by-keyword.jsonl by-classifier.jsonl
    """
    from interp.cli.output import emit, show
    from interp.judges import measure_agreement
    from interp.rollouts import read_rollouts

    found = measure_agreement(read_rollouts(first), read_rollouts(second), seed=seed)
    listed = ", ".join(found.disagreements[:20]) + (" …" if len(found.disagreements) > 20 else "")
    rows: list[tuple[str, object]] = [
        ("rollouts judged by both", found.n),
        ("agreement", f"{show(found.accuracy)} {found.accuracy_interval}"),
        ("Cohen's κ", f"{show(found.kappa)} {found.kappa_interval}"),
        ("both refused", found.both_refused),
        ("only the first says refused", found.only_first),
        ("only the second says refused", found.only_second),
        ("neither says refused", found.none_refused),
        ("unjudged by first, second, both", ", ".join(map(str, found.unjudged))),
        ("they differ on", listed or "none"),
    ]
    payload = {"first": str(first), "second": str(second), **found.payload}
    emit(payload, as_json=as_json, title=f"{first} and {second}", rows=rows)


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.name}.{what}.jsonl")


def _write(out: Path, reasons: Path, rollouts: "list[Rollout]", judgements: "list[Judgement]") -> None:
    """Both files, or neither."""
    import json
    from dataclasses import asdict, replace

    from interp.files import write_together
    from interp.rollouts import write_rollouts

    pairs = list(zip(rollouts, judgements, strict=True))
    why = "".join(json.dumps({"id": r.id, **asdict(j)}, ensure_ascii=False) + "\n" for r, j in pairs)
    write_together(
        {
            reasons: lambda partial: partial.write_text(why, encoding="utf-8"),
            out: lambda partial: write_rollouts(partial, [replace(r, refused=j.refused) for r, j in pairs]),
        }
    )


def _report(name: str, rollouts: "list[Rollout]", judgements: "list[Judgement]", out: Path, as_json: bool) -> None:
    from collections import Counter

    from interp.cli.output import emit

    refused = Counter({True: "refused", False: "not refused", None: "not judged"}[j.refused] for j in judgements)
    unjudged = Counter(" ".join(j.reason.split()) for j in judgements if j.refused is None)
    payload: dict[str, Any] = {
        "out": str(out),
        "judge": name,
        "rollouts": len(rollouts),
        "refused": refused["refused"],
        "not_refused": refused["not refused"],
        "not_judged": refused["not judged"],
        "why_not_judged": dict(unjudged.most_common()),
    }
    rows = [("judge", name), ("rollouts", len(rollouts)), *((key, refused[key]) for key in ("refused", "not refused"))]
    rows += [("not judged", refused["not judged"])]
    most = "".join(f"\n{count} × {reason}" for reason, count in unjudged.most_common(5))
    emit(payload, as_json=as_json, title="Judged", rows=rows, note=f"Written to {out}.{most}")
