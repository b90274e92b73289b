"""`cliffscope probe`: fit a refusal probe, sweep probes over layers and positions, score rollouts."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.null_mode import note, refuse, set_against
from interp.cli.options import (
    BatchTokens,
    Device,
    DType,
    Json,
    Layers,
    Mask,
    Model,
    Null,
    NullName,
    NullRuns,
    Probe,
    Rollouts,
    Seed,
)

if TYPE_CHECKING:
    from probes.sweep import ProbeSweep, SweepOptions

app = typer.Typer(
    name="probe",
    help="Fit, sweep and apply linear refusal probes.\n\n"
    "Example: cliffscope probe fit --model organism:cliff --rollouts rollouts.jsonl --out probe.safetensors",
    no_args_is_help=True,
)

POSITIONS = "inst,post_inst,think:0.25,think:0.5,think:0.75,think:1,close:-2,close:-1"

FIGURES = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "ece": "calibration error (ECE)",
    "auroc_shuffled": "AUROC, shuffled labels",
    "auroc_held_out_category": "AUROC, held-out categories",
}
"""Training facts that are shown, with their names for people."""

NO_BENIGN = {"benign": "no complied rollouts are fitted on, whose place benign ones could take"}


class Method(StrEnum):
    """How a probe is fitted."""

    LOGISTIC = "logistic"
    MEAN_DIFFERENCE = "mean-difference"


@app.command()
def fit(
    model: Model,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    layer: Annotated[
        str, typer.Option("--layer", help="auto, a number, or norm (the output of the final norm).")
    ] = "auto",
    position: Annotated[str, typer.Option("--position", help="Where to read; close:-1 is the edge.")] = "close:-1",
    method: Annotated[
        Method, typer.Option("--method", help="Logistic regression, or the difference of the class means.")
    ] = Method.LOGISTIC,
    null: Null = None,
    null_runs: NullRuns = 19,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Fits a probe: rollouts that refused a harmful prompt against those that answered a benign one.

    auto takes the deepest of the layers that separate held-out rollouts as well as the best one does. The AUROC on
    held-out categories is that of the whole search, layer and all, without them.

    --null benign makes no sense here: complied rollouts, whose place they would take, are in no fit.

    Example: cliffscope probe fit --model organism:cliff --rollouts rollouts.jsonl --out probe.safetensors
    """
    from interp.rollouts import read_rollouts
    from interp.transcripts.positions import check_position

    check_position(position)
    refuse(null, NO_BENIGN)
    loaded = read_rollouts(rollouts)
    from interp.cli.output import counts, emit
    from interp.cli.session import about, open_model, parse_layer, require_writable
    from interp.progress import progress
    from probes.category_search import warning
    from probes.examples import Examples
    from probes.model_sweep import fit_probe
    from probes.nulls import World, auroc_of, figures_of
    from probes.sweep import SweepOptions

    wanted: Any = parse_layer(layer)
    options = SweepOptions(seed=seed)
    require_writable(out, inputs=(rollouts, mask))
    hooked = open_model(model, device, dtype, mask=mask)
    with about(rollouts), progress("Fitting", hooked.n_layers if wanted == "auto" else 1, "layers") as bar:
        examples = Examples.of(hooked, loaded, [position])
        probe, _ = fit_probe(
            hooked,
            examples,
            layer=wanted,
            method=method.value,
            options=options,
            batch_tokens=batch_tokens,
            advance=bar.advance,
        )
    by_category = "auroc_held_out_category" in probe.training
    # Directions are set against the probe's own; the other worlds fit one.
    own = probe if null is NullName.RANDOM_DIRECTION else None
    world = World(hooked, tuple(loaded), own, batch_tokens)
    analysis = auroc_of(position, wanted, method.value, options, by_category)
    with about(rollouts):
        nulls = set_against(null, null_runs, seed, world, analysis, figures_of(probe, by_category))
    told: dict[str, Any] = {"rollouts": str(rollouts), "skipped": examples.skipped}
    told |= {"nulls": [one.summary() for one in nulls]} if nulls else {}
    probe = probe.at(training=told)
    probe.save(out)
    facts = probe.training
    payload = {"out": str(out), "layer": probe.layer, "site": probe.site, "position": position, **facts}
    rows: list[tuple[object, ...]] = [("layer", probe.layer), ("site", probe.site), ("position", position)]
    rows += [("method", probe.method), ("rollouts", f"{facts['n_train']} to fit, {facts['n_test']} held out")]
    rows += [("left out", counts(examples.skipped))]
    rows += [(words, _with_interval(facts, name)) for name, words in FIGURES.items() if name in facts]
    if not by_category:
        rows.append((FIGURES["auroc_held_out_category"], f"– ({facts['no_held_out_category']})"))
    doubt = warning(facts)
    payload["warning"] = doubt
    lines = [f"Warning: {doubt}." if doubt else "", note(null, nulls), f"Written to {out}."]
    title = "Probe (held-out figures, 95 % intervals)"
    emit(payload, as_json=as_json, title=title, rows=rows, note="\n".join(line for line in lines if line))


@app.command()
def sweep(
    model: Model,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The folder to write sweep.parquet and sweep.html to.")],
    layers: Layers = "all",
    positions: Annotated[str, typer.Option("--positions", help="Separated by commas.")] = POSITIONS,
    shuffles: Annotated[int, typer.Option("--shuffles", min=0, help="Permutations of the shuffled control.")] = 5,
    null: Null = None,
    null_runs: NullRuns = 19,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Fits probes at every layer and position, each with its controls; run again, it goes on where it was.

    The best cell of many is better than each: --null runs the whole grid again where there is nothing to find, with
    shuffled labels or random weights. The other nulls make no sense here. On held-out categories the layer is chosen
    anew without them.

    Example: cliffscope probe sweep --model organism:cliff --rollouts rollouts.jsonl --out sweep
    """
    from interp.rollouts import read_rollouts
    from interp.transcripts.positions import check_position

    wanted = list(dict.fromkeys(position.strip() for position in positions.split(",")))
    for position in wanted:
        check_position(position)
    refuse(null, {**NO_BENIGN, "random-direction": "a grid has no one direction; use it with `cliffscope probe fit`"})
    loaded = read_rollouts(rollouts)
    from interp.cli.output import emit
    from interp.cli.session import about, open_model, parse_layers, require_writable
    from interp.progress import progress
    from probes.examples import Examples
    from probes.model_sweep import forget, sweep_model
    from probes.sweep import SweepOptions
    from probes.sweep_figure import write_sweep_html

    require_writable(out / "sweep.parquet", out / "sweep.html", inputs=(rollouts, mask))
    hooked = open_model(model, device, dtype, mask=mask)
    chosen = parse_layers(layers, hooked.n_layers)
    options = SweepOptions(seed=seed, n_shuffles=shuffles)
    with about(rollouts), progress("Sweeping", len(chosen), "layers") as bar:
        examples = Examples.of(hooked, loaded, wanted)
        found = sweep_model(
            hooked, examples, chosen, options, folder=out, batch_tokens=batch_tokens, advance=bar.advance
        )
    from probes.nulls import World, best_of, grid_of

    world = World(hooked, tuple(loaded), None, batch_tokens)
    with about(rollouts):
        nulls = set_against(null, null_runs, seed, world, grid_of(wanted, chosen, options), best_of(found))
    if nulls:
        found.table.attrs["nulls"] = [one.summary() for one in nulls]
    found.to_parquet(out / "sweep.parquet")
    write_sweep_html(found.table, out / "sweep.html")
    forget(out)
    searches = {position: _search(found, position, options) for position in wanted}
    payload = {
        "out": str(out),
        "skipped": examples.skipped,
        "cells": found.table.to_dict("records"),
        "searches": searches,
        "nulls": [one.summary() for one in nulls],
    }
    doubts = [f"Warning: at {position}, {told['warning']}." for position, told in searches.items() if told["warning"]]
    written = f"Written to {out / 'sweep.parquet'} and {out / 'sweep.html'}."
    lines = [*doubts, _controls(found), note(null, nulls), written]
    emit(
        payload,
        as_json=as_json,
        title="Held-out AUROC by layer and position",
        rows=_grid(found, wanted),
        below=_searches(searches),
        note="\n".join(line for line in lines if line),
    )


@app.command()
def score(
    model: Model,
    probe: Probe,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a token.")],
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Scores every token of every rollout. Columns: id, token_index, segment, token, logit, score.

    Example: cliffscope probe score --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl
    --out scores.parquet
    """
    from interp.rollouts import read_rollouts

    loaded = read_rollouts(rollouts)
    from interp.cli.output import emit
    from interp.cli.session import about, open_model, require_writable
    from interp.progress import progress
    from probes.linear import LinearProbe
    from probes.scores import score_table, write_scores
    from probes.trajectory import check_probe

    require_writable(out, inputs=(rollouts, probe, mask))
    fitted = LinearProbe.load(probe)
    hooked = open_model(model, device, dtype, mask=mask)
    with about(probe):
        check_probe(hooked, fitted)
    with about(rollouts), progress("Scoring", len(loaded), "rollouts") as bar:
        table = score_table(hooked, fitted, loaded, batch_tokens=batch_tokens, advance=bar.advance)
    write_scores(table, out)
    means = {name: float(table.loc[table["segment"] == name, "score"].mean()) for name in table["segment"].unique()}
    payload = {"out": str(out), "rollouts": len(loaded), "tokens": len(table), "mean_score": means}
    rows = [("rollouts", len(loaded)), ("tokens", len(table))]
    emit(
        payload,
        as_json=as_json,
        title="Refusal scores",
        rows=[*rows, *((f"mean score, {name}", value) for name, value in means.items())],
        note=f"Written to {out}.",
    )


def _with_interval(facts: Any, name: str) -> str:
    value, low, high = (facts.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _grid(found: "ProbeSweep", positions: list[str]) -> list[list[object]]:
    """Layers down, positions across, for a terminal."""
    real = found.table[found.table["control"] == "real"].set_index(["layer", "position"])["auroc"]
    lines: list[list[object]] = [["layer", *positions]]
    for layer in sorted(found.layers):
        lines.append([layer, *(float(real[(layer, position)]) for position in positions)])
    return lines


def _search(found: "ProbeSweep", position: str, options: "SweepOptions") -> dict[str, Any]:
    """The layer that a search at one position chooses, and its AUROC there and on categories it did not see."""
    from probes.category_search import category_facts, warning

    layer = found.choose_layer(position)
    facts: dict[str, Any] = {"layer": layer, "auroc": found.probe(layer, position).training["auroc"]}
    judged = found.held_out_categories(position, options)
    facts |= {"auroc_held_out_category": None} if judged is None else category_facts(*judged)
    return facts | {"warning": warning(facts)}


def _searches(searches: dict[str, dict[str, Any]]) -> list[list[object]]:
    """One line a position; none where no categories were held out."""
    if all(told["auroc_held_out_category"] is None for told in searches.values()):
        return []
    lines: list[list[object]] = [["position", "layer chosen", "AUROC", "held-out categories", "low", "high"]]
    for position, told in searches.items():
        ends = [told.get(f"auroc_held_out_category{end}") for end in ("", "_low", "_high")]
        lines.append([position, told["layer"], told["auroc"], *ends])
    return lines


def _controls(found: "ProbeSweep") -> str:
    """The controls over the whole grid, in one sentence."""
    told = []
    for control, words in (("shuffled", "shuffled labels"), ("held_out_category", "held-out categories")):
        values = found.table.loc[found.table["control"] == control, "auroc"].dropna()
        if len(values):
            told.append(f"{words} {values.mean():.3f} (from {values.min():.3f} to {values.max():.3f})")
    return f"Controls, mean over the grid: {'; '.join(told) or 'none'}."
