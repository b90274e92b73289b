"""`cliffscope mask`: make, show, check and fold head masks, which training jobs load."""

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.cli.options import Device, DType, Json, Model
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from interventions.masks import HeadMask

app = typer.Typer(
    name="mask",
    help="Head masks, as files that training jobs load.\n\n"
    "Example: cliffscope mask build --heads heads.parquet --fraction 0.05 --out mask.safetensors",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(metavar="MASK", help="A head mask.")]


class Verify(StrEnum):
    """What a model must have in common with the one that a mask was made for."""

    FULL = "full"
    ARCHITECTURE = "architecture"


Strictness = Annotated[
    Verify, typer.Option("--verify", help="architecture takes a model that was trained further since, masked or not.")
]


@app.command()
def build(
    heads: Annotated[Path, typer.Option("--heads", help="A table made by `cliffscope heads rank`.")],
    out: Annotated[Path, typer.Option("--out", help="The safetensors file to write.")],
    fraction: Annotated[
        float | None, typer.Option("--fraction", help="Share of all heads, rounded down to at least one.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Number of heads.")] = None,
    scale: Annotated[float, typer.Option("--scale", help="What their output is multiplied by.")] = 0.0,
    renormalize: Annotated[
        bool, typer.Option("--renormalize", help="Keep the norm of what each layer's heads write, token by token.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="The model; the one whose heads were ranked if not given.")
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Makes a mask of the best-ranked heads; without --fraction or --count, of all that suppress refusal.

    The model is loaded to take its fingerprint and to measure what the mask does to three texts, so that whoever loads
    the mask can prove that it is live. The texts are rollouts of the ranking, and are in the file word for word.

    Example: cliffscope mask build --heads heads.parquet --fraction 0.05 --out mask.safetensors
    """
    if not math.isfinite(scale) or scale == 1:
        raise CliffscopeError(f"--scale {scale:g}: expected a finite number other than 1, which would mask nothing.")
    from interp.cli.session import MASKED, about, open_model, require_writable

    require_writable(out, inputs=(heads,))
    from circuits.head_scores import HeadScores
    from circuits.mask import build_mask

    scores = HeadScores.load(heads)
    if model is None and MASKED in scores.model:
        raise CliffscopeError(f"{heads}: ranked on {scores.model}; say with --model for which model the new mask is.")
    with about(heads):
        chosen = scores.choose(count=count, fraction=fraction)
    hooked = open_model(model or scores.model, device, dtype)
    with about(heads):
        mask = build_mask(hooked, scores, chosen, gamma=scale, renormalize=renormalize)
    mask.save(out)
    _report(mask, f"Written to {out}.", as_json)


@app.command()
def show(mask: File, as_json: Json = False) -> None:
    """Says what a mask holds; loads no model.

    Example: cliffscope mask show mask.safetensors
    """
    from interventions.masks import HeadMask

    _report(HeadMask.load(mask), "", as_json)


@app.command()
def check(
    mask: File,
    model: Model,
    verify: Strictness = Verify.FULL,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Proves a mask on a model: it fits, it is live, and does there what it did where it was made; exit code 2 if not.

    Example: cliffscope mask check mask.safetensors --model organism:cliff
    """
    from interp.cli.output import emit
    from interp.cli.session import about, open_model
    from interventions.masks import HeadMask

    loaded = HeadMask.load(mask)
    hooked = open_model(model, device, dtype)
    report = loaded.check(hooked, verify.value)
    with about(mask):
        report.require()
    figures = {
        "fits": report.fits,
        "live": report.live,
        "reproduced": report.reproduced,
        "deviation": report.deviation,
        "tolerance": report.tolerance,
    }
    rows = [(name, ("yes" if value else "no") if isinstance(value, bool) else value) for name, value in figures.items()]
    emit(figures, as_json=as_json, title=f"{mask} on {hooked.name}", rows=rows)


@app.command()
def fold(
    mask: File,
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="The folder to write: new or empty.")],
    verify: Strictness = Verify.FULL,
    device: Device = "auto",
    dtype: DType = "auto",
    as_json: Json = False,
) -> None:
    """Writes a plain checkpoint with the mask baked into the output projections, which any server loads unchanged.

    Example: cliffscope mask fold mask.safetensors --model organism:cliff --out masked-model
    """
    from interp.cli.output import emit
    from interp.cli.session import about, open_model
    from interventions.masks import HeadMask, fold_checkpoint

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CliffscopeError(f"{out}: already there; give a new or an empty folder.")
    loaded = HeadMask.load(mask)
    hooked = open_model(model, device, dtype)
    with about(mask):
        fold_checkpoint(loaded, hooked, out, verify.value)
    heads = [str(head) for head in loaded.heads]
    payload = {"model": hooked.name, "heads": heads, "out": str(out)}
    rows = [("model", hooked.name), ("heads folded", ", ".join(heads)), ("checkpoint", str(out))]
    emit(payload, as_json=as_json, title="Folded", rows=rows)


def _report(mask: "HeadMask", note: str, as_json: bool) -> None:
    from interp.cli.output import emit

    summary = mask.summary()
    scales = {f"{scale:g}" for scale in summary["scale"]}
    rows: list[tuple[str, object]] = [
        ("model", summary["model"]),
        ("heads", ", ".join(summary["heads"])),
        ("share of all heads", f"{len(summary['heads'])} of {mask.scale.numel()} ({summary['fraction']:.1%})"),
        ("scale", ", ".join(sorted(scales))),
        ("renormalize", "yes" if summary["renormalize"] else "no"),
        ("found by", summary["method"]),
        *((name, value) for name, value in summary["fingerprint"].items() if name in ("architecture", "d_model")),
    ]
    for number, effect in enumerate(summary["expected"] or [], start=1):
        logits = effect["refusal_logit"]
        change = f"log-probabilities move by up to {effect['largest_change']:.2f} nats"
        if logits is not None:
            change += f"; refusal logit {logits[0]:.2f} → {logits[1]:.2f}"
        rows.append((f"on text {number}", f"{effect['tokens']} tokens; {change}"))
    emit(summary, as_json=as_json, title="Head mask", rows=rows, note=note)
