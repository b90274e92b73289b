"""`cliffscope repair`: fine-tune a model on few chosen examples."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.options import Json, Model, Seed
from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from selection.repair.report import RepairReport


class Trainable(StrEnum):
    """What is trained."""

    ALL = "all"
    LORA = "lora"
    HEADS = "heads"


class LossOn(StrEnum):
    """What is learnt."""

    RESPONSE = "response"
    CLOSE = "close"
    THINKING = "thinking"


class Precision(StrEnum):
    """In what the passes are computed."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def repair(
    model: Model,
    data: Annotated[Path, typer.Option("--data", help="Training examples, made by `cliffscope select`.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write: new or empty.")],
    trainable: Annotated[Trainable, typer.Option("--trainable", help="What is trained.")] = Trainable.ALL,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="With --trainable heads: the head mask whose heads are trained.")
    ] = None,
    train_under: Annotated[
        Path | None, typer.Option("--train-under", help="A head mask that is active during training only.")
    ] = None,
    loss_on: Annotated[
        LossOn, typer.Option("--loss-on", help="What is learnt, with all that follows it.")
    ] = LossOn.THINKING,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Times that every example is seen.")] = 3,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="The highest; by default 1e-5 for all, 2e-4 for lora, 1e-4 for heads."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples a step, over all processes.")] = 8,
    device_batch_size: Annotated[
        int | None, typer.Option("--device-batch-size", min=1, help="Examples at a time in a process.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Tokens of an example; by default the model's context.")
    ] = None,
    mix_benign: Annotated[
        Path | None,
        typer.Option("--mix-benign", help="Rollouts of benign prompts, or examples, against over-refusal."),
    ] = None,
    benign_share: Annotated[
        float | None, typer.Option("--benign-share", help="Share of the benign ones in all; by default all are used.")
    ] = None,
    lora_rank: Annotated[int, typer.Option("--lora-rank", min=1, help="Rank of the adapters.")] = 16,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Write the adapter, too.")] = False,
    checkpoint_every: Annotated[
        int | None, typer.Option("--checkpoint-every", min=1, help="Steps between checkpoints; by default five in all.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for more time.")
    ] = False,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Under torchrun: shard the model over the processes.")] = False,
    precision: Annotated[
        Precision, typer.Option("--precision", help="auto is bfloat16 on an accelerator that has it.")
    ] = Precision.AUTO,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run left.")] = False,
    seed: Seed = 0,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, mps, …; auto takes an accelerator.", envvar="CLIFFSCOPE_DEVICE")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Fine-tunes a model on chosen examples, and writes a plain checkpoint; run again, it goes on where it was.

    What each example teaches is counted first, and one of whose response nothing is left within --max-length stops the
    repair. The folder holds repair.json (data, options, counts, versions) and loss.jsonl beside the weights.

    Example: cliffscope repair --model organism:cliff --data selected.jsonl --out repaired --learning-rate 3e-4
    """
    _check(out, trainable, mask, mix_benign, benign_share)
    options: dict[str, Any] = {
        "trainable": trainable.value,
        "loss_on": loss_on.value,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "device_batch_size": device_batch_size,
        "max_length": max_length,
        "seed": seed,
        "lora_rank": lora_rank,
        "keep_adapter": keep_adapter,
        "benign_share": benign_share,
        "checkpoint_every": checkpoint_every,
        "precision": precision.value,
        "gradient_checkpointing": gradient_checkpointing,
        "fsdp": fsdp,
        "device": device,
    }
    from interp.cli.session import open_model
    from interventions.masks.head_mask import HeadMask
    from selection.repair.options import RepairOptions

    if mask is not None:
        options["heads"] = HeadMask.load(mask).heads
    if train_under is not None:
        options["mask"] = HeadMask.load(train_under)
    checked = RepairOptions(**options)
    chat = open_model(model, "cpu", "auto").chat
    from selection.examples import read_examples
    from selection.repair.mix import benign_examples
    from selection.repair.run import repair as run

    examples = read_examples(data, chat)
    benign = [] if mix_benign is None else benign_examples(mix_benign, chat)
    report = run(model, examples, out, checked, benign=benign, restart=restart)
    _report(report, model, as_json)


def _check(
    out: Path, trainable: Trainable, mask: Path | None, mix_benign: Path | None, benign_share: float | None
) -> None:
    """Refuses options that would have no effect, and a place that cannot be written, before anything is loaded."""
    if (trainable is Trainable.HEADS) != (mask is not None):
        raise CliffscopeError(
            "--trainable heads and --mask go together: the mask says which heads are trained. To train while a mask is "
            "active, use --train-under."
        )
    if benign_share is not None and mix_benign is None:
        raise CliffscopeError("--benign-share needs --mix-benign with the benign examples.")
    from interp.cli.session import require_writable

    require_writable(out / "repair.json")


def _report(report: "RepairReport", model: str, as_json: bool) -> None:
    from selection.repair.processes import is_first

    if not is_first():
        return
    from interp.cli.output import emit, show

    facts = report.facts
    tokens, loss = facts["tokens"], facts["loss"]
    learnt = ", ".join(f"{tokens['learnt'][name]:,} {name}" for name in ("thinking", "close", "response"))
    rows: list[tuple[str, object]] = [
        ("model", model),
        ("trained", f"{facts['options']['trainable']}: {facts['trained']['parameters']:,} parameters"),
        ("examples", f"{tokens['examples']:,}, of them {tokens['benign']:,} benign"),
        ("tokens learnt", f"{learnt}; at least {tokens['fewest_learnt']:,} an example"),
        ("examples cut short", tokens["shortened"]),
        ("steps", facts["steps"]),
        ("loss", f"{show(loss['first'])} → {show(loss['last'])}"),
        ("computed in", facts["precision"]),
    ]
    note = "Nothing to do: it was finished already." if report.was_complete else f"Written to {report.out}."
    payload = {
        "out": str(report.out),
        "was_complete": report.was_complete,
        "resumed_from": report.resumed_from,
        **facts,
    }
    emit(payload, as_json=as_json, title="Repair", rows=rows, note=note)
