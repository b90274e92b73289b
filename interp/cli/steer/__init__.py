"""`cliffscope steer`: directions in a model's activations, and what comes of adding them: one file a subcommand."""

import typer

from interp.cli.steer.align import align
from interp.cli.steer.apart import apart
from interp.cli.steer.apply import apply
from interp.cli.steer.check import check
from interp.cli.steer.choose import choose
from interp.cli.steer.fit import fit
from interp.cli.steer.sweep import sweep

app = typer.Typer(
    name="steer",
    help="Directions of harmfulness and refusal, and what steering along them does, dose by dose.\n\n"
    "Example: cliffscope steer sweep --model organism:cliff --vector vector.safetensors --prompts prompts.csv "
    "--out sweep.parquet",
    no_args_is_help=True,
)
app.command()(fit)
app.command()(choose)
app.command()(sweep)
app.command()(apply)
app.command()(align)
app.command()(check)
app.command()(apart)
