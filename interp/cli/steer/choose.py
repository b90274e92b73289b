"""`cliffscope steer choose`: the layer and position of a direction, by what it does."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.null_mode import note as null_note
from interp.cli.null_mode import refuse
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
    Rollouts,
    Seed,
)
from interp.cli.steer.fit import ContrastOption, Kind, KindOption, Method, SiteOption

if TYPE_CHECKING:
    from interventions.directions import Choice


_OF_THE_FIT = dict.fromkeys(
    (NullName.SHUFFLED, NullName.RANDOM_WEIGHTS, NullName.BENIGN),
    "directions are chosen by what they do, of which random directions are the null; run this one by "
    "`cliffscope steer fit`",
)


class Sufficient(StrEnum):
    """Which effect of adding must reach a refusal logit of 0."""

    INDUCE = "induce"
    RESTORE = "restore"


def choose(
    model: Model,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write the chosen direction to.")],
    table: Annotated[Path, typer.Option("--table", help="The Parquet file to write all scores to.")],
    kind: KindOption = Kind.REFUSAL,
    method: Annotated[Method, typer.Option("--method", help="How candidates are fitted.")] = Method.MEAN_DIFFERENCE,
    contrast: ContrastOption = None,
    layers: Layers = "all",
    site: SiteOption = "hook_resid_post",
    positions: Annotated[
        str, typer.Option("--positions", help="Where candidates are fitted, separated by commas.")
    ] = "close:-1,post_inst",
    kl_budget: Annotated[
        float, typer.Option("--kl-budget", help="Most drift of benign answers under ablation, in nats a token.")
    ] = 0.1,
    deepest: Annotated[
        float, typer.Option("--deepest", help="Candidates lie at layers below this share of all layers.")
    ] = 0.8,
    sufficient: Annotated[
        Sufficient | None,
        typer.Option(
            "--sufficient",
            help="What adding must do: induce refusal of benign prompts, or restore that of answered harmful ones. "
            "By default restore for refused-complied, else induce.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=2, help="Most rollouts of each outcome to measure on.")] = 32,
    null: Null = None,
    null_runs: NullRuns = 19,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Chooses among directions at every layer and position: the least refusal when ablated, within a budget.

    On held-out prompts, by the refusal logit at the edge: ablating it everywhere (bypass), adding it once at its layer
    (induce, restore), and the KL of benign answers. The table is written even where no candidate is within the budget;
    command then ends with an error. A few random directions are always measured; with --null random-direction there are
    as many as --null-runs. The other nulls are of a direction's fit: `cliffscope steer fit`.

    Example: cliffscope steer choose --model organism:cliff --rollouts rollouts.jsonl --positions close:-1,post_inst
    --out refusal.safetensors --table scores.parquet
    """
    from interp.rollouts import read_rollouts
    from interp.transcripts.positions import check_position

    wanted = list(dict.fromkeys(position.strip() for position in positions.split(",")))
    for position in wanted:
        check_position(position)
    refuse(null, _OF_THE_FIT)
    loaded = read_rollouts(rollouts)
    from interp.cli.output import emit
    from interp.cli.session import about, open_model, parse_layers, require_writable
    from interp.progress import progress
    from interventions.directions import ChoiceOptions, choose_direction
    from interventions.directions.choosing import N_RANDOM
    from interventions.directions.contrasts import site_at

    options = ChoiceOptions(
        kl_budget=kl_budget,
        deepest=deepest,
        sufficient=None if sufficient is None else sufficient.value,
        limit=limit,
        n_random=N_RANDOM if null is None else null_runs,
        seed=seed,
    )
    site_at(site, 0)
    require_writable(out, table, inputs=(rollouts, mask))
    hooked = open_model(model, device, dtype, mask=mask)
    chosen = parse_layers(layers, hooked.n_layers)
    with (
        about(rollouts),
        progress("Measuring", len(chosen) * len(wanted) + options.n_random, "directions") as bar,
    ):
        choice = choose_direction(
            hooked,
            loaded,
            kind=kind.value,
            contrast=contrast and contrast.value,
            method=method.value,
            positions=wanted,
            layers=chosen,
            site=site,
            options=options,
            batch_tokens=batch_tokens,
            advance=bar.advance,
        )
    choice.write_table(table)
    direction = choice.require(f"see all scores in {table}").at(training={"rollouts": str(rollouts)})
    direction.save(out)
    payload: dict[str, Any] = {
        "out": str(out),
        "table": str(table),
        "layer": direction.layer,
        "position": direction.position,
    }
    payload |= {"reason": choice.reason, **choice.facts, "candidates": choice.table.to_dict("records")}
    nulls = () if null is None else choice.nulls
    payload["nulls"] = [one.summary() for one in nulls]
    lines = [choice.reason, null_note(null, nulls), f"Written to {out} and {table}."]
    note = "\n".join(line for line in lines if line)
    emit(payload, as_json=as_json, title="Directions by measured effect", rows=_grid(choice), note=note)


def _grid(choice: "Choice") -> list[list[object]]:
    """One line a direction: what it does, and whether it is the one."""
    lines: list[list[object]] = [["layer", "position", "AUROC", "bypass", "induce", "restore", "KL", ""]]
    for row in choice.table.to_dict("records"):
        state = "chosen" if row["chosen"] else "random" if row["control"] == "random" else ""
        state = state or ("within the budget" if row["eligible"] else "")
        numbers = [float(row[name]) for name in ("auroc", "bypass", "induce", "restore", "kl")]
        lines.append([int(row["layer"]), row["position"], *numbers, state])
    return lines
