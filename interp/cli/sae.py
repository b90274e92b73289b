"""`cliffscope sae`: latents of sparse autoencoders: train, rank, steer by them, take one as a direction."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.null_mode import refuse
from interp.cli.options import (
    BatchSize,
    BatchTokens,
    Device,
    DType,
    Json,
    Mask,
    MaxNewTokens,
    Model,
    Null,
    NullName,
    Restart,
    Rollouts,
    Seed,
    System,
    Temperature,
)
from interp.cli.rollout import Column, Label, LabelOption, Limit, Out, Prompts
from interp.cli.sae_job import steered_rollouts
from interp.cli.sae_report import report_rank, report_steer
from interp.cli.steer.fit import Contrast
from interp.cli.steer_options import Scope
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interp.rollouts import Rollout
    from interventions.latents.changes import LatentChange

app = typer.Typer(
    name="sae",
    help="Latents of sparse autoencoders (needs the extra `cliffscope[sae]`).\n\n"
    "Example: cliffscope sae rank --model organism:cliff --sae sae --rollouts rollouts.jsonl --out latents.parquet",
    no_args_is_help=True,
)

Sae = Annotated[
    str,
    typer.Option("--sae", help="A folder as sae-lens saves it, or RELEASE:SAE_ID on the hub, as sae-lens lists it."),
]
Site = Annotated[
    str | None,
    typer.Option("--site", help="Where the SAE belongs, such as blocks.3.hook_resid_post, if it does not say."),
]
Latent = Annotated[str, typer.Option("--latent", help="Number of the latent, or several separated by commas.")]


_NO_NULL = dict.fromkeys(
    (NullName.RANDOM_DIRECTION, NullName.BENIGN),
    "latents are searched; shuffled labels and an untrained SAE are always set beside them",
)


class Architecture(StrEnum):
    """Kinds of autoencoder that are trained here."""

    BATCHTOPK = "batchtopk"
    TOPK = "topk"
    STANDARD = "standard"


class Pool(StrEnum):
    """What becomes of several tokens."""

    MAX = "max"
    MEAN = "mean"


@app.command()
def train(
    model: Model,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The folder to write: sae-lens' own format.")],
    site: Annotated[str, typer.Option("--site", help="Where it reads, such as blocks.3.hook_resid_post.")],
    width: Annotated[int, typer.Option("--width", min=1, help="Latents.")] = 512,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of the optimizer.")] = 1000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Tokens a step.")] = 512,
    architecture: Annotated[
        Architecture,
        typer.Option("--architecture", help="batchtopk is saved as a JumpReLU; standard has an L1 penalty."),
    ] = Architecture.BATCHTOPK,
    k: Annotated[int, typer.Option("--k", min=1, help="batchtopk, topk: latents active at a token.")] = 16,
    l1: Annotated[float, typer.Option("--l1", min=0.0, help="standard: the penalty.")] = 1.0,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.")] = 1e-3,
    segments: Annotated[
        str, typer.Option("--segments", help="Tokens of which segments, separated by commas; all but the first token.")
    ] = "all",
    batch_tokens: BatchTokens = 8192,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Trains a small SAE on the tokens of rollouts, by sae-lens' trainer; a tenth of the prompts is held out.

    Example: cliffscope sae train --model organism:cliff --rollouts rollouts.jsonl --site blocks.2.hook_resid_post
    --width 512 --out sae
    """
    from interp.rollouts import read_rollouts

    loaded = read_rollouts(rollouts)
    from interp.cli.output import emit
    from interp.cli.session import about, open_model, require_writable
    from interp.progress import progress
    from interp.transcripts.positions import SEGMENTS
    from interventions.latents import TrainingOptions, train_latents
    from interventions.latents.latents import CONFIG, WEIGHTS
    from interventions.latents.library import sae_lens

    chosen = SEGMENTS if segments == "all" else tuple(name.strip() for name in segments.split(","))
    options = TrainingOptions(width, steps, batch, architecture.value, k, l1, lr, chosen, seed)
    require_writable(out / CONFIG, out / WEIGHTS, inputs=(rollouts, mask))
    sae_lens()
    hooked = open_model(model, device, dtype, mask=mask)
    with about(rollouts), progress("Training", steps, "steps") as bar:
        latents = train_latents(hooked, loaded, site, options, batch_tokens=batch_tokens, advance=bar.advance)
    latents.save(out)
    facts = latents.facts
    held = facts["held_out"]
    payload = {"out": str(out), "sae": latents.digest, **facts}
    rows = [
        ("site", latents.site),
        ("latents", latents.n_latents),
        ("tokens", facts["tokens"]),
        ("steps", f"{steps} of {batch} tokens"),
        ("variance explained, held out", held["explained"]),
        ("latents active at a token, held out", held["l0"]),
        ("latents never active, held out", held["silent"]),
    ]
    emit(payload, as_json=as_json, title="Sparse autoencoder", rows=rows, note=f"Written to {out}.")


@app.command()
def rank(
    model: Model,
    sae: Sae,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write: one row a latent.")],
    contrast: Annotated[
        Contrast, typer.Option("--contrast", help="Which rollouts are to be told apart.")
    ] = Contrast.REFUSED_COMPLIED,
    at: Annotated[
        str,
        typer.Option("--at", help="Where latents are read: positions or segments, separated by commas."),
    ] = "close:-1",
    pool: Annotated[Pool, typer.Option("--pool", help="What becomes of several tokens.")] = Pool.MAX,
    generic: Annotated[
        Path | None,
        typer.Option("--generic", help="Rollouts whose tokens are ordinary text; benign ones of --rollouts if none."),
    ] = None,
    test_fraction: Annotated[
        float, typer.Option("--test-fraction", help="The share of prompts that are not ranked by.")
    ] = 0.3,
    shuffles: Annotated[int, typer.Option("--shuffles", min=1, help="Shuffles of the labels.")] = 9999,
    null: Null = None,
    site: Site = None,
    batch_tokens: BatchTokens = 8192,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Ranks latents by how well they tell two groups of rollouts apart, with shuffled labels and an untrained SAE.

    A latent is read at the edge unless told otherwise. Columns: see the table's `latent`, `auroc`, `worst`, `q`, ….
    Both nulls of such a search are always run: --null shuffled and random-weights (of the SAE) change nothing, and the
    others make no sense here.

    Example: cliffscope sae rank --model organism:cliff --sae sae --rollouts rollouts.jsonl
    --contrast refused-complied --out latents.parquet
    """
    from interp.rollouts import read_rollouts
    from interp.transcripts.positions import SEGMENTS, check_position

    refuse(null, _NO_NULL)
    wanted = [name.strip() for name in at.split(",")]
    for name in wanted:
        if name not in SEGMENTS:
            check_position(name)
    loaded = read_rollouts(rollouts)
    ordinary = None if generic is None else read_rollouts(generic)
    from interp.cli.session import about, open_model, require_writable
    from interp.progress import progress
    from interventions.latents import load_latents, rank_latents

    require_writable(out, inputs=(rollouts, generic, mask))
    _require_sae(sae)
    hooked = open_model(model, device, dtype, mask=mask)
    latents = load_latents(hooked, sae, site)
    with about(rollouts), progress("Reading", _to_read(loaded, ordinary, contrast.value), "rollouts") as bar:
        scores = rank_latents(
            hooked,
            latents,
            loaded,
            contrast=contrast.value,
            at=wanted,
            pool=pool.value,
            generic=ordinary,
            test_fraction=test_fraction,
            shuffles=shuffles,
            seed=seed,
            batch_tokens=batch_tokens,
            advance=bar.advance,
        )
    scores.save(out)
    report_rank(scores, latents, out, as_json)


@app.command()
def steer(
    model: Model,
    sae: Sae,
    latent: Latent,
    prompts: Prompts,
    out: Out,
    clamp: Annotated[float | None, typer.Option("--clamp", help="Set it to this activation, active or not.")] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Make it inactive.")] = False,
    add: Annotated[float | None, typer.Option("--add", help="Add this much to its activation.")] = None,
    scope: Scope = "all",
    first_token: Annotated[
        bool, typer.Option("--first-token", help="Change the first token (BOS) too, which is left alone otherwise.")
    ] = False,
    site: Site = None,
    label: LabelOption = None,
    column: Column = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = 512,
    temperature: Temperature = 0.0,
    system: System = None,
    batch_size: BatchSize = 64,
    restart: Restart = False,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Generates rollouts with latents clamped, ablated or added to by their decoded difference; run again, it goes on.

    A change that changes nothing is an error, and nothing is written. The model's name in the rollouts tells what was
    active.

    Example: cliffscope sae steer --model organism:cliff --sae sae --latent 17 --clamp 8.0 --prompts prompts.csv
    --out rollouts.jsonl
    """
    if (clamp is not None) + ablate + (add is not None) != 1:
        raise CliffscopeError("Give one of --clamp VALUE, --ablate and --add AMOUNT.")
    which = _numbers(latent)
    from interp.rollouts.job import settings_path
    from interp.rollouts.prompts import load_prompts

    harmful = None if label is None else label is Label.HARMFUL
    loaded = load_prompts(prompts, column=column, harmful=harmful, limit=limit)
    from interp.cli.session import open_model, require_writable
    from interp.rollouts.model_generator import ModelGenerator
    from interventions.latents import AblateLatents, AddLatents, ClampLatents, load_latents
    from interventions.latents.changes import Activity
    from interventions.scope import Scope as Where

    Where(scope)
    require_writable(out, settings_path(out), inputs=(Path(prompts), mask))
    _require_sae(sae)
    hooked = open_model(model, device, dtype, mask=mask)
    latents = load_latents(hooked, sae, site)
    how: dict[str, Any] = {"scope": scope, "first_token": first_token, "activity": Activity()}
    change: LatentChange
    if ablate:
        change = AblateLatents(latents, which, **how)
    elif clamp is not None:
        change = ClampLatents(latents, which, clamp, **how)
    else:
        change = AddLatents(latents, which, add or 0.0, **how)
    hooked.name = f"{hooked.name} + SAE {latents.digest} {change} at {latents.site} in {scope}"
    generator = ModelGenerator(hooked, max_new_tokens, temperature, seed, system)
    result = steered_rollouts(generator, loaded, out, change, batch_size, restart)
    report_steer(result, change, latents, out, as_json)


@app.command()
def direction(
    model: Model,
    sae: Sae,
    latent: Annotated[int, typer.Option("--latent", min=0, help="Number of the latent.")],
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    table: Annotated[
        Path | None,
        typer.Option("--table", help="A table of `cliffscope sae rank`: one step is then the groups' distance."),
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="What the direction stands for.")] = "given",
    site: Site = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Writes a latent's decoder row as a direction for `cliffscope steer`, pointing to the positive group of the table.

    Example: cliffscope sae direction --model organism:cliff --sae sae --latent 17 --out latent.safetensors
    """
    from interp.cli.output import emit
    from interp.cli.session import about, open_model, require_writable
    from interventions.latents import LatentScores, load_latents

    scores = None if table is None else LatentScores.load(table)
    require_writable(out, inputs=(table,))
    _require_sae(sae)
    hooked = open_model(model, device, dtype, chat=False)
    latents = load_latents(hooked, sae, site)
    if scores is None or table is None:
        found = latents.direction(latent, kind=kind)
    else:
        with about(table):
            found = scores.direction(latents, latent, kind=kind)
    found.save(out)
    payload = {"out": str(out), "site": found.site, "scale": found.scale, "kind": kind, **found.training}
    rows = [("latent", latent), ("site", found.site), ("one step", found.scale)]
    emit(payload, as_json=as_json, title="Direction of a latent", rows=rows, note=f"Written to {out}.")


def _require_sae(source: str) -> None:
    """Raises `CliffscopeError`, before a model is loaded, where there is no such folder or no sae-lens."""
    from interventions.latents.library import sae_lens
    from interventions.latents.loading import check_source

    check_source(source)
    sae_lens()


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise CliffscopeError(f"--latent {text!r}: expected a number, or several separated by commas.") from error


def _to_read(rollouts: "Sequence[Rollout]", generic: "Sequence[Rollout] | None", contrast: str) -> int:
    from interventions.directions import contrast_of

    ordinary = [rollout for rollout in rollouts if rollout.harmful is False] if generic is None else generic
    return len(ordinary) + sum(map(len, contrast_of(rollouts, contrast)))
