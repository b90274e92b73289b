"""`cliffscope cliff`: measure the refusal cliff against its controls."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.null_mode import note, set_against
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
    from probes.cliff import Cliff


class Plateau(StrEnum):
    """What stands for the score before the fall."""

    MEAN = "mean"
    MAX = "max"


def cliff(
    model: Model,
    probe: Probe,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a rollout.")],
    plateau: Annotated[
        Plateau, typer.Option("--plateau", help="Over the second half of the thinking; max is biased upwards.")
    ] = Plateau.MEAN,
    null: Null = None,
    null_runs: NullRuns = 19,
    batch_tokens: BatchTokens = 8192,
    seed: Seed = 0,
    mask: Mask = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Says whether there is a cliff, and with what evidence: the fall from the thinking to the edge, and its controls.

    Beside OUT it writes OUT's name with .layers.parquet (the mean cliff by layer), .json (the figures) and .html (the
    picture). A second table says where refusals are lost: whether the probe detects harm in the thinking, whether the
    edge routes to refusing, and whether the response refuses, answers, or evades without refusing.

    Probes of shuffled labels are always there: --null shuffled only makes them more. A cliff that its null shows too
    is no cliff.

    Example: cliffscope cliff --model organism:cliff --probe probe.safetensors --rollouts rollouts.jsonl
    --out cliff.parquet
    """
    from interp.rollouts import read_rollouts

    loaded = read_rollouts(rollouts)
    from interp.cli.session import about, open_model, require_writable
    from interp.progress import progress
    from probes.cliff import STATISTIC
    from probes.cliff_files import cliff_files, write_cliff
    from probes.cliff_run import N_SHUFFLES, mean_cliff_of, measure_cliff
    from probes.linear import LinearProbe
    from probes.nulls import World
    from probes.trajectory import check_probe

    if out.suffix in (".json", ".html"):
        raise CliffscopeError(f"{out}: the table of rollouts is Parquet; give a name that ends with .parquet.")
    require_writable(*cliff_files(out), inputs=(rollouts, probe, mask))
    fitted = LinearProbe.load(probe)
    hooked = open_model(model, device, dtype, mask=mask)
    with about(probe):
        check_probe(hooked, fitted)
    with about(rollouts), progress("Scoring", len(loaded), "rollouts") as bar:
        found = measure_cliff(
            hooked,
            fitted,
            loaded,
            plateau=plateau.value,
            n_shuffles=max(null_runs, N_SHUFFLES),
            seed=seed,
            batch_tokens=batch_tokens,
            advance=bar.advance,
        )
    if null is not NullName.SHUFFLED:
        world = World(hooked, tuple(loaded), fitted, batch_tokens)
        with about(rollouts):
            analysis, observed = mean_cliff_of(plateau.value), {STATISTIC: found.mean}
            nulls = set_against(null, null_runs, seed, world, analysis, observed)
        found = replace(found, nulls=nulls)
    files = write_cliff(found, out)
    _report(found, [str(file) for file in files], as_json, null)


def _report(found: "Cliff", files: list[str], as_json: bool, null: NullName | None) -> None:
    from interp.cli.output import counts, emit
    from interp.display.palette import NAMES
    from probes.cliff import OUTCOMES
    from probes.stages import told

    figures = found.summary()
    rows: list[list[object]] = [["", "n", "plateau", "edge", "cliff"]]
    for outcome in OUTCOMES:
        plateau, edge = (found.of(outcome, field) for field in ("plateau", "edge"))
        if len(edge):
            values = [float(plateau.mean()), float(edge.mean()), float((plateau - edge).mean())]
            rows.append([NAMES[outcome], len(edge), *values])
    # A null that was run stands in the evidence.
    asked = "" if found.nulls else note(null, found.shuffled)
    lines = [
        found.evidence,
        asked,
        told(found.rows),
        f"Left out: {counts(found.skipped or {})}.",
        f"Written to {', '.join(files)}.",
    ]
    emit(
        {**figures, "files": files},
        as_json=as_json,
        title=f"{found.model}: {found.verdict} (probe at {found.site})",
        rows=rows,
        below=_stages(found),
        note="\n".join(line for line in lines if line),
    )


def _stages(found: "Cliff") -> list[list[object]]:
    """Detect, route, generate: shares with their intervals, of the harmful rollouts by category too."""
    from probes.stages import STAGES

    lines: list[list[object]] = [["", "n", *STAGES]]
    for row in found.stages.to_dict("records"):
        total = not isinstance(row["category"], str)
        if total or row["harmful"]:
            name = ("harmful" if row["harmful"] else "benign") if total else f"  {row['category']}"
            cells = [f"{row[stage]:.2f} [{row[f'{stage}_low']:.2f}, {row[f'{stage}_high']:.2f}]" for stage in STAGES]
            lines.append([name, row["n"], *cells])
    return lines if len(lines) > 1 else []
