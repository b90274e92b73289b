"""`cliffscope rollout`: generate and judge rollouts."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.options import BatchSize, Device, DType, Json, Mask, MaxNewTokens, Restart, Seed, System, Temperature
from interp.cli.steer_options import Alpha, DoseUnits, HowToSteer, Layer, OptionalVector, Scope, Steering, Units
from interp.errors import CliffscopeError


class Label(StrEnum):
    """What all prompts of a file are."""

    HARMFUL = "harmful"
    BENIGN = "benign"


Prompts = Annotated[str, typer.Option("--prompts", help="CSV, JSON, JSONL, Parquet, or a dataset id on the hub.")]
Out = Annotated[Path, typer.Option("--out", help="The JSON Lines file to write.")]
LabelOption = Annotated[Label | None, typer.Option("--label", help="What the prompts are, where no column says.")]
Column = Annotated[str | None, typer.Option("--column", help="The prompt column, if not found by name.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many prompts.")]


def rollout(
    prompts: Prompts,
    out: Out,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model; with --endpoint its name there.", envvar="CLIFFSCOPE_MODEL"),
    ] = None,
    label: LabelOption = None,
    column: Column = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    system: System = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="An OpenAI-compatible server to use.")] = None,
    batch_size: BatchSize = 64,
    restart: Restart = False,
    mask: Mask = None,
    guard: Annotated[
        Path | None,
        typer.Option(
            "--guard", help="A guard made by `cliffscope guard fit`: what it flags is refused, and nothing generated."
        ),
    ] = None,
    vector: OptionalVector = None,
    alpha: Alpha = None,
    layer: Layer = None,
    mode: HowToSteer = None,
    scope: Scope = "all",
    units: DoseUnits = Units.SCALE,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Generates a rollout for every prompt and judges it by keywords; run again, it goes on where it was.

    What a guard stops gets a fixed refusal, whose `model` names the guard; leave such rollouts out of what is fitted.

    Example: cliffscope rollout --model organism:cliff --prompts prompts.csv --label harmful --out rollouts.jsonl
    """
    if model is None and endpoint is None:
        raise CliffscopeError("Give --model, or --endpoint with the URL of a server.")
    if endpoint is not None and (mask is not None or vector is not None):
        what = "--mask" if mask is not None else "--vector"
        advice = "; fold it into a checkpoint" if mask is not None else ""
        raise CliffscopeError(f"{what} acts on a model on this machine, not on a server{advice}.")
    if endpoint is not None and guard is not None:
        raise CliffscopeError("--guard reads a model on this machine, not on a server.")
    steering = Steering.asked(vector, alpha, layer, mode, scope, units)
    from interp.judges import KeywordJudge
    from interp.rollouts.job import run, settings_path
    from interp.rollouts.prompts import load_prompts

    harmful = None if label is None else label is Label.HARMFUL
    loaded = load_prompts(prompts, column=column, harmful=harmful, limit=limit)
    from interp.cli.session import about, open_model, require_writable, steered

    require_writable(out, settings_path(out), inputs=(Path(prompts), mask, guard, vector))
    options = {"temperature": temperature, "seed": seed, "system": system}
    job: dict[str, Any] = {"batch_size": batch_size, "judge": KeywordJudge(), "restart": restart}
    idle: list[str] = []
    if endpoint is not None:
        from interp.rollouts.endpoint import Endpoint

        with Endpoint(endpoint, model=model, max_tokens=max_new_tokens, **options) as server:  # type: ignore[arg-type]
            _require_reachable(server.url)
            result = run(loaded, server.generate, out, server.settings, **job)
    else:
        from interp.rollouts.model_generator import ModelGenerator
        from probes.guard import GuardedGenerator, LatentGuard

        filtering = None if guard is None else LatentGuard.load(guard)
        hooked = open_model(str(model), device, dtype, mask=mask)
        generator: Any = ModelGenerator(hooked, max_new_tokens=max_new_tokens, **options)  # type: ignore[arg-type]
        if filtering is not None:
            with about(Path(str(guard))):
                filtering.check_model(hooked.fingerprint, hooked.name)
            # Before anything steers the model: a guard is fitted on it as it is.
            generator = GuardedGenerator.of(generator, filtering, loaded)
        with steered(hooked, steering) as idle:
            result = run(loaded, generator.generate, out, generator.settings, **job)
    _report(result, out, idle, guard is not None, as_json)


def _require_reachable(endpoint: str) -> None:
    """Raises `CliffscopeError` at once if there is no server: a job's own patience is for one that comes back."""
    import httpx

    try:
        httpx.get(endpoint, timeout=httpx.Timeout(2, connect=10))
    except httpx.ReadTimeout:
        pass  # It is there, and busy.
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise CliffscopeError(
            f"endpoint {endpoint}: cannot be reached ({reason}); check the address and that the server runs."
        ) from error


def _report(result: Any, out: Path, idle: list[str], guarded: bool, as_json: bool) -> None:
    from collections import Counter

    from interp.cli.output import emit

    outcomes = Counter(rollout.outcome for rollout in result.rollouts)
    unclosed = sum(rollout.response is None for rollout in result.rollouts)
    payload = {
        "out": str(out),
        "rollouts": len(result.rollouts),
        "generated": result.generated,
        "resumed": result.resumed,
        "outcomes": dict(sorted(outcomes.items())),
        "unclosed_thinking": unclosed,
        "idle": idle,
    }
    rows = [("rollouts", len(result.rollouts)), *sorted(outcomes.items()), ("thinking never closed", unclosed)]
    if guarded:
        payload["stopped_by_guard"] = sum(rollout.by_guard for rollout in result.rollouts)
        rows.append(("stopped by the guard", payload["stopped_by_guard"]))
    note = "Nothing to do: it was finished already." if result.was_complete else f"Written to {out}."
    note = "\n".join([note, *idle])
    emit(payload, as_json=as_json, title="Rollouts", rows=rows, note=note)
