"""`cliffscope guard`: a filter that reads from inside, before a token is generated, whether a prompt is harmful."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.null_mode import note as null_note
from interp.cli.null_mode import refuse, set_against
from interp.cli.options import BatchTokens, Device, DType, Json, Layers, Mask, Model, Null, NullRuns, Seed
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.rollouts.prompts import Prompt
    from probes.guard import GuardFigures, GuardFit, LatentGuard

app = typer.Typer(
    name="guard",
    help="A latent guard: is this prompt harmful, read from the states at its last token.\n\n"
    "Example: cliffscope guard fit --model organism:cliff --prompts prompts.csv --out guard.safetensors",
    no_args_is_help=True,
)

Prompts = Annotated[
    str | None,
    typer.Option("--prompts", help="A file, or a dataset id on the hub; a column `harmful` tells the class."),
]
Benign = Annotated[
    str | None, typer.Option("--benign", help="Benign prompts of another file; those of --prompts are then harmful.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many of each file.")]
System = Annotated[str | None, typer.Option("--system", help="The system prompt with which the model is used.")]


_NO_NULL = {
    "random-direction": "a guard of centroids has no one direction; shuffled and random-weights fit the guard anew",
    "benign": "a guard is fitted on prompts, of which none were complied with",
}


class Method(StrEnum):
    """How a guard reads a state."""

    CENTROIDS = "centroids"
    PROBE = "probe"


@app.command()
def fit(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    prompts: Prompts = None,
    benign: Benign = None,
    rollouts: Annotated[
        Path | None, typer.Option("--rollouts", help="Rollouts, whose prompts are taken, in place of --prompts.")
    ] = None,
    method: Annotated[
        Method, typer.Option("--method", help="centroids of all layers, or a logistic probe at the best one.")
    ] = Method.CENTROIDS,
    false_positives: Annotated[
        float, typer.Option("--false-positives", help="The share of benign prompts that may be flagged.")
    ] = 0.05,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="In its place the best balanced accuracy, which promises nothing.")
    ] = False,
    calibration: Annotated[
        float, typer.Option("--calibration", help="The share of prompts kept for the threshold.")
    ] = 0.3,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Groups of categories held out in turn; else each alone.")
    ] = None,
    layers: Layers = "all",
    null: Null = None,
    null_runs: NullRuns = 19,
    system: System = None,
    limit: Limit = None,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Fits a guard and its threshold, and judges it on categories that it did not see.

    The threshold comes from prompts that were kept apart: at most --false-positives of benign prompts like them are
    flagged in the mean. Harmful and benign prompts of different corpora differ in more than harm: prefer matched pairs.
    --null fits the guard anew with shuffled labels, or on random weights; the other nulls make no sense here.

    Example: cliffscope guard fit --model organism:cliff --prompts prompts.csv --out guard.safetensors
    """
    if (prompts is None) == (rollouts is None):
        raise CliffscopeError("Give --prompts, or --rollouts to take the prompts of.")
    if benign is not None and prompts is None:
        raise CliffscopeError("--benign goes with --prompts; rollouts say themselves which are benign.")
    _require_share("--false-positives", false_positives)
    _require_share("--calibration", calibration)
    refuse(null, _NO_NULL)
    from interp.cli.session import about, open_model, parse_layers, require_writable

    require_writable(
        out, inputs=(*(None if name is None else Path(name) for name in (prompts, benign)), rollouts, mask)
    )
    found = _prompts(prompts, benign, rollouts, limit)
    from interp.progress import progress
    from probes.guard import GuardOptions, fit_guard

    options = GuardOptions(method.value, None if balanced else false_positives, calibration, folds, seed)
    hooked = open_model(model, device, dtype, mask=mask)
    chosen = parse_layers(layers, hooked.n_layers)
    source = rollouts or Path(str(prompts))
    with about(source), progress("Fitting", len(chosen), "layers") as bar:
        fitted = fit_guard(
            hooked, found, options, layers=chosen, system=system, batch_tokens=batch_tokens, advance=bar.advance
        )
    from probes.guard.nulls import auroc_of_guard, figures_of, world_of

    with about(source):
        analysis = auroc_of_guard(options, chosen, system)
        world = world_of(hooked, found, batch_tokens)
        nulls = set_against(null, null_runs, seed, world, analysis, figures_of(fitted))
    if nulls:
        told = {**fitted.guard.training, "nulls": [one.summary() for one in nulls]}
        fitted = replace(fitted, guard=replace(fitted.guard, training=told))
    fitted.guard.save(out)
    _report_fit(fitted, out, sum(prompt.harmful is None for prompt in found), null_note(null, nulls), as_json)


@app.command()
def score(
    model: Model,
    guard: Annotated[Path, typer.Option("--guard", help="A guard made by `cliffscope guard fit`.")],
    prompts: Annotated[str, typer.Option("--prompts", help="A file, or a dataset id on the hub.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write, .jsonl or .parquet: one row a prompt.")],
    benign: Benign = None,
    system: System = None,
    limit: Limit = None,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Scores prompts without generating anything; where it is known which are harmful, says how often it is wrong.

    Example: cliffscope guard score --model organism:cliff --guard guard.safetensors --prompts prompts.csv
    --out scores.jsonl
    """
    if out.suffix not in (".jsonl", ".parquet"):
        raise CliffscopeError(f"{out}: expected a name that ends with .jsonl or .parquet.")
    from interp.cli.session import about, open_model, require_writable

    require_writable(out, inputs=(guard, Path(prompts), None if benign is None else Path(benign), mask))
    found = _prompts(prompts, benign, None, limit)
    from probes.guard import LatentGuard

    loaded = LatentGuard.load(guard)
    hooked = open_model(model, device, dtype, mask=mask)
    with about(guard):
        loaded.check_model(hooked.fingerprint, hooked.name)
    with about(Path(prompts)):
        scores = loaded.score(hooked, found, system=system, batch_tokens=batch_tokens)
    rows = [
        {
            "id": prompt.id,
            "prompt": prompt.text,
            "score": float(value),
            "flagged": bool(value > loaded.threshold),
            "harmful": prompt.harmful,
            "category": prompt.category,
        }
        for prompt, value in zip(found, scores, strict=True)
    ]
    _write(rows, out)
    _report_score(loaded, found, rows, out, seed, as_json)


def _require_share(option: str, value: float) -> None:
    if not 0 < value < 1:
        raise CliffscopeError(f"{option} {value:g}: expected a share between 0 and 1.")


def _prompts(prompts: str | None, benign: str | None, rollouts: Path | None, limit: int | None) -> "list[Prompt]":
    """The prompts of a file, of two, or of rollouts."""
    from interp.rollouts.prompts import load_prompts

    if rollouts is not None:
        from interp.rollouts import read_rollouts
        from interventions.behaviour import prompts_of

        return prompts_of(read_rollouts(rollouts))[:limit]
    if benign is None:
        return list(load_prompts(str(prompts), limit=limit))
    first = load_prompts(str(prompts), harmful=True, limit=limit)
    taken = {prompt.id for prompt in first}
    second = [
        replace(prompt, id=f"benign:{prompt.id}") if prompt.id in taken else prompt
        for prompt in load_prompts(benign, harmful=False, limit=limit)
    ]
    return [*first, *second]


def _write(rows: list[dict[str, Any]], out: Path) -> None:
    from interp.files import write_atomically, write_jsonl

    if out.suffix == ".jsonl":
        write_jsonl(out, rows)
        return
    import pandas as pd

    write_atomically(out, lambda partial: pd.DataFrame(rows).to_parquet(partial, index=False))


def _report_fit(fitted: "GuardFit", out: Path, unlabelled: int, nulls: str, as_json: bool) -> None:
    from interp.cli.output import emit
    from probes.guard.nulls import doubt_of

    guard, facts = fitted.guard, fitted.guard.training
    held = "categories" if fitted.held_out_by == "category" else "prompts"
    rows: list[tuple[object, ...]] = [
        ("method", guard.method),
        ("layers", ", ".join(map(str, guard.layers))),
        ("prompts", f"{facts['n_fit']} to fit, {facts['n_calibration']} for the threshold; {unlabelled} not labelled"),
        ("threshold", guard.threshold),
        ("AUROC, held-out prompts" if held == "categories" else "AUROC, calibration", _auroc(fitted.calibration)),
        (f"AUROC, held-out {held}", _auroc(fitted.held_out)),
        *_errors(fitted.held_out, f"held-out {held}"),
    ]
    note = [str(facts["promise"]), *([nulls] if nulls else []), f"Written to {out}."]
    if doubt := doubt_of(fitted):
        note.insert(0, f"Warning: {doubt}.")
    if fitted.warning:
        note.insert(0, f"Warning: {fitted.warning}.")
    payload = {"out": str(out), "layers": list(guard.layers), "threshold": guard.threshold, "unlabelled": unlabelled}
    emit(
        {**payload, **facts},
        as_json=as_json,
        title="Latent guard (95 % intervals)",
        rows=rows,
        below=_grid(fitted.held_out),
        note="\n".join(note),
    )


def _report_score(
    guard: "LatentGuard", prompts: "list[Prompt]", rows: list[dict[str, Any]], out: Path, seed: int, as_json: bool
) -> None:
    import numpy as np

    from interp.cli.output import emit
    from probes.guard import GuardFigures, confounded

    scores, flagged = (np.array([row[name] for row in rows]) for name in ("score", "flagged"))
    payload: dict[str, Any] = {"out": str(out), "prompts": len(rows), "flagged": int(flagged.sum())}
    shown: list[tuple[object, ...]] = [("prompts", len(rows)), ("flagged", int(flagged.sum()))]
    shown.append(("threshold", guard.threshold))
    note, below = [f"Written to {out}."], []
    if any(prompt.harmful is not None for prompt in prompts):
        figures = GuardFigures.of(prompts, scores, flagged, seed)
        warning = confounded(prompts)
        payload |= {**figures.summary(), "warning": warning}
        shown += [("AUROC", _auroc(figures)), *_errors(figures)]
        below = _grid(figures)
        if warning:
            note.insert(0, f"Warning: {warning}.")
    emit(
        payload,
        as_json=as_json,
        title="Latent guard (95 % intervals)",
        rows=shown,
        below=below,
        note="\n".join(note),
    )


def _auroc(figures: "GuardFigures") -> str:
    from interp.cli.output import show

    return f"{show(figures.auroc)} {figures.auroc_interval}"


def _errors(figures: "GuardFigures", of: str = "") -> list[tuple[object, ...]]:
    """Missed harmful and flagged benign prompts, of classes that there are."""
    found: list[tuple[object, ...]] = []
    for harmful, words in ((True, "harmful missed"), (False, "benign flagged")):
        counted = figures.errors(harmful)
        if counted["n"]:
            told = f"{counted['wrong']} of {counted['n']} ({counted['rate']:.1%}) "
            told += f"[{counted['low']:.3f}, {counted['high']:.3f}]"
            found.append((f"{words}, {of}" if of else words, told))
    return found


def _grid(figures: "GuardFigures") -> list[list[object]]:
    """One line a category, where there are several."""
    if len(figures.table) <= 2:
        return []
    lines: list[list[object]] = [["category", "class", "prompts", "flagged", "errors", "low", "high"]]
    for row in figures.table.to_dict("records"):
        kind = "harmful" if row["harmful"] else "benign"
        lines.append([row["category"], kind, row["n"], row["flagged"], float(row["rate"]), row["low"], row["high"]])
    return lines
