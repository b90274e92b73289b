"""`cliffscope heads`: which heads suppress refusal, how many it takes, and what they act through."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.heads_report import report_attention, report_cascade, report_curve, report_nothing, report_rank
from interp.cli.null_mode import refuse, set_against
from interp.cli.options import (
    BatchTokens,
    Device,
    DType,
    Json,
    Mask,
    Model,
    Null,
    NullName,
    NullRuns,
    Probe,
    Rollouts,
    Seed,
)
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from circuits.cases import Cases
    from circuits.head_scores import HeadScores
    from circuits.rank import RankOptions
    from interp.models.hooked_model import HookedModel
    from interp.rollouts import Rollout
    from interventions.heads import Head
    from probes.linear import LinearProbe

_CANDIDATES = 4
"""Heads of the ranking that a greedy choice looks at, for each that it is to choose."""

app = typer.Typer(
    name="heads",
    help="Find the heads that suppress refusal.\n\n"
    "Example: cliffscope heads rank --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl "
    "--out heads.parquet",
    no_args_is_help=True,
)


class Method(StrEnum):
    """How heads are scored."""

    ATTRIBUTION = "attribution"
    ABLATION = "ablation"
    GRADIENT = "gradient"
    INTERCHANGE = "interchange"
    SHAPLEY = "shapley"


class Instead(StrEnum):
    """What a head writes when it is knocked out."""

    ZERO = "zero"
    REFUSED = "refused"


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
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Interchange and shapley: pairs of rollouts.")] = 120,
    positions: Annotated[
        str, typer.Option("--positions", help="Interchange: named positions, separated by commas.")
    ] = "close:-1",
    null: Null = None,
    null_runs: NullRuns = 19,
    limit: Limit = 200,
    batch_tokens: BatchTokens = 8192,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Ranks all heads by how much they suppress refusal, and names those for which there is evidence.

    A score above 0 suppresses. Beside OUT it writes the picture (.html). With --null the whole search is run where
    there is nothing to find: how many heads it names there, and what share the best one explains, stand beside it.
    random-direction is a null of attribution alone: the other methods do not read the probe's direction.

    Example: cliffscope heads rank --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl
    --method ablation --out heads.parquet
    """
    from interp.rollouts import read_rollouts

    _require_parquet(out)
    _refuse_direction(null, method.value)
    loaded = read_rollouts(rollouts)
    from circuits.cases import Cases
    from circuits.head_files import write_heads
    from circuits.nulls import figures_of, ranking_of, with_nulls
    from circuits.rank import RankOptions, n_steps, rank_heads
    from interp.cli.session import about, require_writable
    from interp.progress import progress
    from probes.nulls import World

    require_writable(out, out.with_suffix(".html"), inputs=(probe, rollouts, mask))
    options = RankOptions(
        method=method.value,
        scope=scope.value,
        gamma=gamma,
        steps=steps,
        pairs=pairs,
        positions=tuple(position.strip() for position in positions.split(",")),
        seed=seed,
        batch_tokens=batch_tokens,
    )
    hooked, fitted = _open(model, probe, mask, device, dtype)
    with about(rollouts):
        cases = Cases.of(hooked, fitted, loaded, limit=limit, seed=seed, batch_tokens=batch_tokens)
        with progress("Scoring", n_steps(cases, options), "steps") as bar:
            scores = rank_heads(hooked, fitted, cases, options, bar.advance)
        world = World(hooked, tuple(loaded), fitted, batch_tokens)
        if cases.nothing is None:
            nulls = set_against(null, null_runs, seed, world, ranking_of(options, limit), figures_of(scores))
            scores = with_nulls(scores, nulls)
    write_heads(scores, out)
    report_rank(scores, cases, out, as_json, null)


@app.command()
def curve(
    model: Model,
    probe: Probe,
    rollouts: Rollouts,
    heads: Heads,
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a set of heads.")],
    counts: Annotated[str, typer.Option("--counts", help="Numbers of heads, separated by commas.")] = "1,2,3,4,6,8",
    greedy: Annotated[
        bool,
        typer.Option("--greedy", help="Choose one after another, those before it ablated: for redundant ones."),
    ] = False,
    null: Null = None,
    null_runs: NullRuns = 19,
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

    With --greedy the order is made anew, out of the best heads of the table: fewer than asked for where none raises the
    refusal logit any more. Beside OUT it writes the picture (.html). With --null the heads are ranked anew where there
    is nothing to find, by the method of the table, and as many ablated: the rise of the refusal logit stands beside.
    random-direction is a null of tables made by attribution alone.

    Example: cliffscope heads curve --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl
    --heads heads.parquet --out curve.parquet
    """
    from interp.rollouts import read_rollouts

    _require_parquet(out)
    numbers = _numbers(counts)
    loaded = read_rollouts(rollouts)
    from circuits.cases import Cases
    from circuits.curve import CurveOptions, ablation_curve, check_counts, n_sets
    from circuits.head_files import write_curve
    from circuits.head_scores import HeadScores
    from circuits.nulls import curve_of, rise_in, with_nulls
    from interp.cli.session import about, require_writable
    from interp.progress import progress
    from probes.nulls import World

    require_writable(out, out.with_suffix(".html"), inputs=(probe, rollouts, heads, mask))
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
    scores = HeadScores.load(heads)
    _refuse_direction(null, scores.method)
    if scores.facts["nothing"] is not None:
        report_nothing(scores.facts["nothing"], as_json)
        return
    ranked = scores.top(max(numbers))
    hooked, fitted = _open(model, probe, mask, device, dtype)
    with about(heads):
        scores.check_model(hooked.fingerprint, hooked.name)
        check_counts(numbers, len(ranked), hooked)
    with about(rollouts):
        cases = Cases.of(hooked, fitted, loaded, limit=limit, seed=seed, batch_tokens=batch_tokens)
        if cases.nothing is not None:
            report_nothing(cases.nothing, as_json)
            return
        if greedy:
            ranked = _jointly(hooked, cases, scores, max(numbers), scope, gamma, batch_tokens)
            options = replace(options, counts=tuple(sorted({min(number, len(ranked)) for number in numbers})))
        with progress("Ablating", n_sets(options), "sets of heads") as bar:
            found = ablation_curve(hooked, fitted, cases, ranked, options, bar.advance)
        if null is not None:
            world, ranking = World(hooked, tuple(loaded), fitted, batch_tokens), _ranking_of(scores, seed, batch_tokens)
            analysis, observed = curve_of(ranking, options, limit), rise_in(found)
            found = with_nulls(found, set_against(null, null_runs, seed, world, analysis, observed))
    write_curve(found, out)
    report_curve(found, out, as_json)


@app.command()
def cascade(
    model: Model,
    probe: Probe,
    rollouts: Rollouts,
    head: Annotated[str, typer.Option("--head", help="The head to knock out, as LAYER.HEAD.")],
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a head.")],
    scope: Where = Scope.ALL,
    instead: Annotated[
        Instead, typer.Option("--instead", help="What the head then writes: nothing, or its mean in refused rollouts.")
    ] = Instead.ZERO,
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
    from interp.rollouts import read_rollouts
    from interventions.heads import check_heads, parse_heads

    chosen, *more = parse_heads(head)
    if more:
        raise CliffscopeError(f"--head {head!r}: knock out one head at a time.")
    loaded = read_rollouts(rollouts)
    from circuits.cascade import cascade as knock_out
    from circuits.cases import Cases
    from interp.cli.session import about, require_writable

    require_writable(out, inputs=(probe, rollouts, mask))
    hooked, fitted = _open(model, probe, mask, device, dtype)
    check_heads([chosen], hooked)
    with about(rollouts):
        cases = Cases.of(hooked, fitted, loaded, limit=limit, seed=seed, batch_tokens=batch_tokens)
        if cases.no_fall is not None:
            report_nothing(cases.no_fall, as_json)
            return
        found = knock_out(
            hooked,
            fitted,
            cases,
            chosen,
            scope=scope.value,
            instead=instead.value,
            seed=seed,
            batch_tokens=batch_tokens,
        )
    found.save(out)
    report_cascade(found, out, as_json)


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
    found = _choose(read_rollouts(rollouts), rollout, rollouts)
    from circuits.attention import attention_page, edge_attention
    from interp.cli.session import about, open_model, require_writable
    from interp.files import write_text

    require_writable(out, inputs=(rollouts, mask))
    hooked = open_model(model, device, dtype, mask=mask)
    check_heads(chosen, hooked)
    with about(rollouts):
        transcript = hooked.transcripts().build(found)
        pattern = edge_attention(hooked, transcript, chosen)
    write_text(out, attention_page(transcript, pattern, chosen))
    report_attention(hooked.name, transcript, pattern, chosen, out, as_json)


def _choose(rollouts: "Sequence[Rollout]", id: str | None, path: Path) -> "Rollout":
    """The rollout with an id, or without one the first that answered a harmful prompt."""
    for rollout in rollouts:
        if rollout.id == id or (id is None and rollout.outcome == "complied"):
            return rollout
    if id is None:
        raise CliffscopeError(f"{path}: no rollout answered a harmful prompt; choose another with --id.")
    raise CliffscopeError(f"{path}: no rollout has the id {id!r}.")


def _refuse_direction(null: NullName | None, method: str) -> None:
    """Raises `CliffscopeError` for random directions where the method does not read the probe's."""
    if method != Method.ATTRIBUTION:
        refuse(null, {"random-direction": f"ranking by {method} reads the refusal logit, not the probe's direction"})


def _ranking_of(scores: "HeadScores", seed: int, batch_tokens: int) -> "RankOptions":
    """How a table was ranked, as far as it says so."""
    from circuits.rank import RankOptions

    told = {name: scores.facts[name] for name in ("scope", "gamma", "steps") if scores.facts.get(name) is not None}
    return RankOptions(method=scores.method, seed=seed, batch_tokens=batch_tokens, **told)  # type: ignore[arg-type]


def _jointly(
    model: "HookedModel",
    cases: "Cases",
    scores: "HeadScores",
    n: int,
    scope: Scope,
    gamma: float,
    batch_tokens: int,
) -> "tuple[Head, ...]":
    """Heads chosen one after another, from the best of a table."""
    from circuits.joint import greedy
    from circuits.sweeps.readouts import Readouts
    from interp.progress import progress

    with progress("Choosing", n * len(cases.complied), "rollouts") as bar:
        steps = greedy(
            model,
            cases.complied,
            Readouts.of(model),
            n=n,
            candidates=scores.top(_CANDIDATES * n),
            scope=scope.value,
            gamma=gamma,
            batch_tokens=batch_tokens,
            advance=bar.advance,
        )
    if not steps:
        raise CliffscopeError("--greedy: no head raises the refusal logit when it is ablated; leave the option out.")
    return tuple(step.head for step in steps)


def _require_parquet(out: Path) -> None:
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


def _open(model: str, probe: Path, mask: Path | None, device: str, dtype: str) -> "tuple[HookedModel, LinearProbe]":
    """The model and its probe; whether they belong together is checked."""
    from interp.cli.session import about, open_model
    from probes.linear import LinearProbe
    from probes.trajectory import check_probe

    fitted = LinearProbe.load(probe)
    hooked = open_model(model, device, dtype, mask=mask)
    with about(probe):
        check_probe(hooked, fitted)
    return hooked, fitted
