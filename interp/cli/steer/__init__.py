"""`cliffscope steer`: directions in a model's activations, and what comes of adding them: one file a subcommand."""

import typer

app = typer.Typer(
    name="steer",
    help="Directions of harmfulness and refusal, and what steering along them does, dose by dose.\n\n"
    "Example: cliffscope steer sweep --model organism:cliff --vector vector.safetensors --prompts prompts.csv "
    "--out sweep.parquet",
    no_args_is_help=True,
)
