"""`cliffscope steer apart`: whether a model's harmfulness and its refusal are two things."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.null_mode import refuse
from interp.cli.options import (
    BatchTokens,
    Device,
    DType,
    Json,
    Layers,
    Mask,
    MaxNewTokens,
    Model,
    Null,
    NullName,
    Rollouts,
    Seed,
)
from interp.cli.steer.sweep import parse_alphas
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interventions.directions.apart_report import Apart


class Contrast(StrEnum):
    """What refusal is the difference of."""

    REFUSED_COMPLIED = "refused-complied"
    REFUSED_BENIGN = "refused-benign"


_NO_NULL = dict.fromkeys(
    (NullName.RANDOM_WEIGHTS, NullName.BENIGN),
    "what is asked is whether two directions are one; shuffled labels and random directions are always set beside it",
)


def apart(
    model: Model,
    rollouts: Rollouts,
    out: Annotated[Path, typer.Option("--out", help="The file to write, .json or .parquet.")],
    page: Annotated[
        bool, typer.Option("--page", help="Also write the picture and the words beside OUT (.html).")
    ] = False,
    base: Annotated[
        str | None, typer.Option("--base", help="A model to compare with on the same tokens: what this was made from.")
    ] = None,
    contrast: Annotated[
        Contrast, typer.Option("--contrast", help="refused-benign is for models that answer nothing harmful.")
    ] = Contrast.REFUSED_COMPLIED,
    layers: Layers = "all",
    steer: Annotated[
        bool, typer.Option("--steer/--no-steer", help="Whether to steer along each, which generates.")
    ] = True,
    steer_layers: Annotated[
        str | None, typer.Option("--steer-layers", help="Where to steer; six over the whole depth if not given.")
    ] = None,
    alphas: Annotated[
        str, typer.Option("--alphas", help="Doses: START:STOP:COUNT, or numbers separated by commas.")
    ] = "1,2",
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Prompts of each class to steer with.")] = 40,
    controls: Annotated[int, typer.Option("--controls", min=0, help="Random directions at the dose quoted.")] = 3,
    null: Null = None,
    max_new_tokens: MaxNewTokens = 512,
    batch_tokens: BatchTokens = 8192,
    mask: Mask = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Sets harmfulness, read at the instruction's last token, against refusal, read at the prompt's end and the edge.

    Their cosine by layer stands against what two estimates of one direction would have, and against shuffled labels.
    Steering along each shows what it moves: refusal, what the thinking concludes, and, of a model that can be asked,
    its judgment. Harmful and benign prompts of different corpora differ in more than harm: prefer matched pairs.
    Its nulls are always there: --null shuffled (chance) and random-direction (--controls) change nothing, and the
    others make no sense for cosines and doses.

    Example: cliffscope steer apart --model organism:cliff --rollouts rollouts.jsonl --out apart.json --page
    """
    doses = parse_alphas(alphas)
    refuse(null, _NO_NULL)
    from interp.rollouts import read_rollouts

    loaded = read_rollouts(rollouts)
    from interp.cli.session import about, open_model, parse_layers, require_writable
    from interp.files import write_text
    from interp.progress import progress
    from interventions.directions.apart_report import ApartOptions, apart_page, check_ending, few_layers, tell_apart
    from interventions.directions.apart_steering import SteeringOptions

    check_ending(out)
    picture = out.with_suffix(".html")
    require_writable(out, *([picture] if page else []), inputs=(rollouts, mask))
    if not steer and steer_layers is not None:
        raise CliffscopeError("--steer-layers says where to steer, and --no-steer not to.")
    steering = SteeringOptions(doses, controls=controls, max_new_tokens=max_new_tokens, seed=seed)
    hooked = open_model(model, device, dtype, mask=mask)
    other = None if base is None else open_model(base, device, dtype)
    places = (
        few_layers(hooked.n_layers)
        if steer_layers is None
        else parse_layers(steer_layers, hooked.n_layers, "--steer-layers")
    )
    options = ApartOptions(
        contrast=contrast.value,
        layers=tuple(parse_layers(layers, hooked.n_layers)),
        steer=steer,
        steer_layers=tuple(places),
        steer_prompts=prompts,
        steering=steering,
        seed=seed,
    )
    total = 1 + 2 * (len(places) * len(doses) + controls) if steer else 0
    with about(rollouts), progress("Steering", total, "conditions") as bar:
        found = tell_apart(hooked, loaded, options, base=other, batch_tokens=batch_tokens, advance=bar.advance)
    found.save(out)
    if page:
        write_text(picture, apart_page(found))
    _report(found, [out, *([picture] if page else [])], as_json)


def _report(found: "Apart", files: list[Path], as_json: bool) -> None:
    from interp.cli.output import emit

    rows: list[list[object]] = [["pair", "layer", "cosine", "low", "high", "ceiling", "chance", "apart"]]
    for row in found.cosines.table.to_dict("records"):
        chance = f"{row['chance_low']:.2f} to {row['chance_high']:.2f}"
        pair = f"{row['first']} | {row['second']}"
        figures = [row[name] for name in ("cosine", "low", "high", "ceiling")]
        rows.append([pair, row["layer"], *figures, chance, "yes" if row["apart"] else "no"])
    told = ", ".join(str(path) for path in files)
    emit(
        {**found.payload(), "files": [str(path) for path in files]},
        as_json=as_json,
        title=f"{found.model}: harmfulness and refusal (95 % intervals)",
        rows=rows,
        note="\n".join([*found.verdicts, f"Written to {told}."]),
    )
