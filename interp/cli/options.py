"""The options that several commands share, written once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="A Hugging Face id, a local folder, or organism:cliff / organism:aligned.",
        envvar="CLIFFSCOPE_MODEL",
    ),
]
Rollouts = Annotated[Path, typer.Option("--rollouts", help="Rollouts as JSON Lines.")]
Probe = Annotated[Path, typer.Option("--probe", help="A probe made by `cliffscope probe fit`.")]
Device = Annotated[
    str, typer.Option("--device", help="cpu, cuda, mps, …; auto takes an accelerator.", envvar="CLIFFSCOPE_DEVICE")
]
DType = Annotated[
    str,
    typer.Option(
        "--dtype", help="float32, bfloat16, float16; auto is the checkpoint's own.", envvar="CLIFFSCOPE_DTYPE"
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, max=2**32 - 1, help="Of every random choice.", envvar="CLIFFSCOPE_SEED"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
BatchTokens = Annotated[
    int, typer.Option("--batch-tokens", min=1, help="Tokens in a batch; halved when memory runs out.")
]
Layers = Annotated[str, typer.Option("--layers", help="all, or layers separated by commas; -1 is the last.")]
Mask = Annotated[
    Path | None,
    typer.Option("--mask", help="A head mask made by `cliffscope mask build`, attached to the model throughout."),
]
MaxNewTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Thinking included.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0 is greedy.")]
System = Annotated[str | None, typer.Option("--system", help="A system prompt.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Prompts between two savings.")]
Restart = Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run left.")]


class NullName(StrEnum):
    """Worlds in which there is nothing to find; see `probes.nulls`."""

    SHUFFLED = "shuffled"
    RANDOM_WEIGHTS = "random-weights"
    RANDOM_DIRECTION = "random-direction"
    BENIGN = "benign"


Null = Annotated[
    NullName | None,
    typer.Option("--null", help="Run it too where there is nothing to find, and set that beside the finding."),
]
NullRuns = Annotated[
    int, typer.Option("--null-runs", min=1, help="Runs of --null; the smallest p is 1/(runs + 1), 0.05 with 19.")
]
