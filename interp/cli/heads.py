"""`cliffscope heads`: which heads suppress refusal, how many it takes, and what they act through."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.options import BatchTokens, Device, DType, Json, Mask, Model, Probe, Rollouts, Seed
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from circuits.cases import Cases
    from circuits.curve import AblationCurve
    from circuits.head_scores import HeadScores
    from interp.models.hooked_model import HookedModel
    from probes.linear import LinearProbe

app = typer.Typer(name="heads", help="Find the heads that suppress refusal.", no_args_is_help=True)


class Method(StrEnum):
    """How heads are scored."""

    ATTRIBUTION = "attribution"
    ABLATION = "ablation"
    GRADIENT = "gradient"
    INTERCHANGE = "interchange"


class Scope(StrEnum):
    """Where heads are ablated."""

    ALL = "all"
    FROM_EDGE = "from-edge"


Heads = Annotated[Path, typer.Option("--heads", help="A table made by `cliffscope heads rank`.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Most rollouts of each outcome; which ones is drawn.")]
Where = Annotated[Scope, typer.Option("--scope", help="Ablate at all positions, or only from the edge on.")]


@app.command()
def rank(
    model: Model,
    probe: Probe,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a head.")],
    method: Annotated[Method, typer.Option("--method", help="How heads are scored.")] = Method.ABLATION,
    scope: Where = Scope.FROM_EDGE,
    gamma: Annotated[float, typer.Option("--gamma", help="Ablation: what is kept of a head's output.")] = 0.0,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Gradient: above 0, integrated gradients.")] = 0,
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interchange: pairs of rollouts.")] = 120,
    positions: Annotated[
        str, typer.Option("--positions", help="Interchange: named positions, separated by commas.")
    ] = "close:-1",
    limit: Limit = 200,
    batch_tokens: BatchTokens = 8192,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Ranks all heads by how much they suppress refusal, and names those for which there is evidence.

    A score above 0 suppresses. Beside OUT it writes the picture (.html).

    Example: cliffscope heads rank --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl
    --method ablation --out heads.parquet
    """
    from interp.cli.session import require_writable

    require_parquet(out)
    require_writable(out, out.with_suffix(".html"), inputs=(probe, rollouts))
    hooked, fitted, cases = _open(model, probe, rollouts, limit, seed, batch_tokens, mask, device, dtype)
    from circuits.head_files import write_heads
    from circuits.rank import RankOptions, rank_heads
    from interp.cli.session import about
    from interp.progress import progress

    options = RankOptions(
        method=method.value,
        scope=scope.value,
        gamma=gamma,
        steps=steps,
        pairs=pairs,
        positions=tuple(positions.split(",")),
        seed=seed,
        batch_tokens=batch_tokens,
    )
    with about(rollouts), progress("Scoring", len(cases.complied), "rollouts") as bar:
        scores = rank_heads(hooked, fitted, cases, options, bar.advance)
    write_heads(scores, out)
    _report_rank(scores, cases, out, as_json)


@app.command()
def curve(
    model: Model,
    probe: Probe,
    rollouts: Rollouts,
    heads: Heads,
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a set of heads.")],
    counts: Annotated[str, typer.Option("--counts", help="Numbers of heads, separated by commas.")] = "1,2,3,4,6,8",
    random_sets: Annotated[int, typer.Option("--random-sets", min=1, help="Random sets for each number.")] = 20,
    random_answered: Annotated[
        int, typer.Option("--random-answered", min=0, help="Of these, how many answer prompts too.")
    ] = 2,
    prompts: Annotated[
        int, typer.Option("--prompts", min=0, help="Most harmful and most benign prompts to answer; 0 for none.")
    ] = 64,
    gamma: Annotated[float, typer.Option("--gamma", help="What is kept of a head's output.")] = 0.0,
    scope: Where = Scope.ALL,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Thinking included.")] = 512,
    limit: Limit = 200,
    batch_tokens: BatchTokens = 8192,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Ablates more and more heads, best first, until refusal returns; random sets of heads are the control.

    Beside OUT it writes the picture (.html).

    Example: cliffscope heads curve --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl
    --heads heads.parquet --out curve.parquet
    """
    from interp.cli.session import require_writable

    require_parquet(out)
    numbers = _numbers(counts)
    require_writable(out, out.with_suffix(".html"), inputs=(probe, rollouts, heads))
    scores = _load_heads(heads)
    hooked, fitted, cases = _open(model, probe, rollouts, limit, seed, batch_tokens, mask, device, dtype)
    from circuits.curve import CurveOptions, ablation_curve, n_sets
    from circuits.head_files import write_curve
    from interp.cli.session import about
    from interp.progress import progress

    with about(heads):
        scores.check_model(hooked.fingerprint, hooked.name)
    options = CurveOptions(
        counts=numbers,
        n_random=random_sets,
        n_random_answered=random_answered,
        n_prompts=prompts,
        gamma=gamma,
        scope=scope.value,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_tokens=batch_tokens,
    )
    if not cases.complied:
        _report_nothing(cases, as_json)
        return
    with about(rollouts), progress("Ablating", n_sets(options), "sets of heads") as bar:
        found = ablation_curve(hooked, fitted, cases, scores.top(max(numbers)), options, bar.advance)
    write_curve(found, out)
    _report_curve(found, cases, out, as_json)


@app.command()
def cascade(
    model: Model,
    probe: Probe,
    rollouts: Rollouts,
    head: Annotated[str, typer.Option("--head", help="The head to knock out, as LAYER.HEAD.")],
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a head.")],
    scope: Where = Scope.FROM_EDGE,
    limit: Limit = 200,
    batch_tokens: BatchTokens = 8192,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Knocks out one head and reports whose contributions change behind it: gate → amplifier.

    Example: cliffscope heads cascade --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl
    --head 3.1 --out cascade.parquet
    """
    from interp.cli.session import require_writable
    from interventions.heads import check_heads, parse_heads

    require_parquet(out)
    require_writable(out, inputs=(probe, rollouts))
    (chosen, *more) = parse_heads(head)
    if more:
        raise CliffscopeError(f"--head {head!r}: knock out one head at a time.")
    hooked, fitted, cases = _open(model, probe, rollouts, limit, seed, batch_tokens, mask, device, dtype)
    check_heads([chosen], hooked)
    if not cases.complied:
        _report_nothing(cases, as_json)
        return
    from circuits.cascade import cascade as knock_out
    from interp.cli.session import about

    with about(rollouts):
        found = knock_out(hooked, fitted, cases, chosen, scope=scope.value, seed=seed, batch_tokens=batch_tokens)
    found.save(out)
    _report_cascade(found, out, as_json)


@app.command()
def attention(
    model: Model,
    rollouts: Rollouts,
    head: Annotated[str, typer.Option("--head", help="One head or several, as 3.1 or 3.1,4.5.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")],
    rollout: Annotated[
        str | None, typer.Option("--id", help="Which rollout; the first that answered a harmful prompt if not given.")
    ] = None,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Shows what heads attend to at the edge, over the tokens of one rollout.

    Example: cliffscope heads attention --model organism:cliff --rollouts rollouts.jsonl --head 3.1 --out attention.html
    """
    from interp.rollouts import read_rollouts
    from interventions.heads import check_heads, parse_heads

    chosen = parse_heads(head)
    loaded = read_rollouts(rollouts)
    found = next((r for r in loaded if (r.outcome == "complied" if rollout is None else r.id == rollout)), None)
    if found is None:
        missing = (
            "has no rollout that answered a harmful prompt; give --id" if rollout is None else f"no id {rollout!r}"
        )
        raise CliffscopeError(f"{rollouts}: {missing}.")
    from circuits.attention import attention_page, edge_attention
    from interp.cli.output import emit
    from interp.cli.session import about, open_model, require_writable
    from interp.files import write_text

    require_writable(out, inputs=(rollouts,))
    hooked = open_model(model, device, dtype, mask=mask)
    check_heads(chosen, hooked)
    with about(rollouts):
        transcript = hooked.transcripts().build(found)
        pattern = edge_attention(hooked, transcript, chosen)
    write_text(out, attention_page(transcript, pattern, chosen))
    rows: list[list[object]] = [["head", "token", "segment", "weight"]]
    for name, weights in zip(chosen, pattern, strict=True):
        for place in weights.argsort(descending=True)[:5].tolist():
            text = transcript.tokens[place].replace("\n", "⏎")
            rows.append([str(name), f"{place} {text}", transcript.labels[place], float(weights[place])])
    payload = {"id": found.id, "heads": [str(name) for name in chosen], "files": [str(out)]}
    title = f"{hooked.name}: from the edge of {found.id}, where most attention goes"
    emit(payload, as_json=as_json, title=title, rows=rows, note=f"Written to {out}.")


def require_parquet(out: Path) -> None:
    """Raises `CliffscopeError` if the name is that of the picture which is written beside the table."""
    if out.suffix == ".html":
        raise CliffscopeError(f"{out}: the table is Parquet; give a name that ends with .parquet.")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise CliffscopeError(f"--counts {text!r}: expected whole numbers separated by commas.") from error
    if numbers[0] < 0 or numbers[-1] < 1:
        raise CliffscopeError(f"--counts {text!r}: expected numbers of heads, at least one of them above 0.")
    return numbers


def _load_heads(path: Path) -> "HeadScores":
    from circuits.head_scores import HeadScores

    return HeadScores.load(path)


def _open(
    model: str,
    probe: Path,
    rollouts: Path,
    limit: int,
    seed: int,
    batch_tokens: int,
    mask: Path | None,
    device: str,
    dtype: str,
) -> "tuple[HookedModel, LinearProbe, Cases]":
    """What every search works on, checked in the order in which it is cheap to check."""
    from interp.rollouts import read_rollouts

    loaded = read_rollouts(rollouts)
    from circuits.cases import Cases
    from interp.cli.session import about, open_model
    from probes.linear import LinearProbe
    from probes.trajectory import check_probe

    fitted = LinearProbe.load(probe)
    hooked = open_model(model, device, dtype, mask=mask)
    with about(probe):
        check_probe(hooked, fitted)
    with about(rollouts):
        return hooked, fitted, Cases.of(hooked, fitted, loaded, limit=limit, seed=seed, batch_tokens=batch_tokens)


def _report_nothing(cases: "Cases", as_json: bool) -> None:
    from interp.cli.output import emit

    note = f"Nothing to explain: {cases.nothing}. Nothing is written."
    emit({"nothing": cases.nothing, "files": []}, as_json=as_json, title="Heads", rows=[], note=note)


def _report_rank(scores: "HeadScores", cases: "Cases", out: Path, as_json: bool) -> None:
    from interp.cli.output import counts, emit

    shown = ["rank", "name", "score", "low", "high", "q", "share", "suppresses"]
    table = scores.table[shown]
    rows: list[list[object]] = [["head", "score", "low", "high", "q", "share", "suppresses"]]
    if scores.facts["nothing"] is None:
        rows += [[row[1], *map(float, row[2:7]), "yes" if row[7] else "no"] for row in table.head(8).itertuples(False)]
    else:
        rows = []
    files = [str(out), str(out.with_suffix(".html"))]
    payload: dict[str, Any] = {
        "model": scores.model,
        "method": scores.method,
        "nothing": scores.facts["nothing"],
        "suppressors": [str(head) for head in scores.suppressors],
        "heads": table.head(20).to_dict(orient="records"),
        "files": files,
    }
    emit(
        payload,
        as_json=as_json,
        title=f"{scores.model}: heads by {scores.method}",
        rows=rows,
        note=f"{scores.evidence}\nLeft out: {counts(cases.skipped)}.\nWritten to {', '.join(files)}.",
    )


def _report_curve(curve: "AblationCurve", cases: "Cases", out: Path, as_json: bool) -> None:
    from interp.cli.output import emit

    columns = ["refusal_logit", "asr", "refusal_benign", "kl_benign"]
    rows: list[list[object]] = [["heads", *columns, "random refusal_logit", "random asr"]]
    for count, group in curve.table.groupby("n_heads"):
        ranked, drawn = group[group["set"] == "ranked"].iloc[0], group[group["set"] == "random"]
        means = [float(drawn[name].mean()) for name in ("refusal_logit", "asr")]
        rows.append([count, *(float(ranked[name]) for name in columns), *means])
    files = [str(out), str(out.with_suffix(".html"))]
    payload = {"model": curve.model, "rows": curve.table.to_dict(orient="records"), "files": files}
    nothing = "" if cases.nothing is None else f"Nothing to explain: {cases.nothing}.\n"
    note = f"{nothing}{curve.evidence}\nWritten to {', '.join(files)}."
    emit(payload, as_json=as_json, title=f"{curve.model}: heads ablated, best first", rows=rows, note=note)


def _report_cascade(found: Any, out: Path, as_json: bool) -> None:
    from interp.cli.output import emit

    table = found.table
    behind = table[table["change"].abs() > 0].reindex(table["change"].abs().sort_values(ascending=False).index).dropna()
    rows: list[list[object]] = [["head", "before", "after", "change", "q"]]
    rows += [
        [row.name_, float(row.before), float(row.after), float(row.change), float(row.q)]
        for row in behind.rename(columns={"name": "name_"}).head(8).itertuples(index=False)
    ]
    payload = {"model": found.model, "head": str(found.head), "rows": table.to_dict(orient="records"), "out": str(out)}
    title = f"{found.model}: contributions behind head {found.head} when it is knocked out"
    emit(payload, as_json=as_json, title=title, rows=rows, note=f"Written to {out}.")
