"""`cliffscope organism`: the bundled models, as checkpoints for any tool, and the training that made them."""

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import Json, Seed
from interp.errors import CliffscopeError

app = typer.Typer(
    name="organism",
    help="List, export, plant or retrain the bundled calibration models.\n\n"
    "Example: cliffscope organism export cliff --out cliff-checkpoint",
    no_args_is_help=True,
)


@app.command("list")
def list_organisms(as_json: Json = False) -> None:
    """Lists the organisms with what is known about each.

    Example: cliffscope organism list
    """
    from interp.cli.output import emit
    from interp.organisms import names, truth

    found = {name: truth(name) for name in names()}
    words = {True: "cliff", False: "no cliff", None: "not known beforehand"}
    rows = []
    for name, facts in found.items():
        roles = ", ".join(f"{head} {role}" for head, role in facts["roles"].items())
        if len(facts["roles"]) > 6:
            roles = f"{len(facts['roles'])} heads: {', '.join(facts['roles'])}"
        rows.append((name, f"{words[facts['cliff']]}; {roles or 'no planted heads'}"))
    told = ("mechanism", "cliff", "sparse", "heads", "roles", "edges", "categories", "figures")
    payload = {name: {key: facts[key] for key in told} for name, facts in found.items()}
    emit({"organisms": payload}, as_json=as_json, title="Organisms", rows=rows)


@app.command()
def plant(
    name: Annotated[str, typer.Argument(help="A planted organism, such as gate; `cliffscope organism list`.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; its subfolder has the organism's name.")],
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only, to try the code.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Plants one mechanism into the bundled base; with a seed other than 0 elsewhere, drawn by the seed.

    Example: cliffscope organism plant gate --out planted --seed 3
    """
    from interp.cli.output import emit
    from interp.cli.session import quiet_libraries
    from interp.organisms import replant

    quiet_libraries()
    facts = replant(name, out, seed=seed, quick=quick)
    rows = [("folder", str(out / name)), ("heads", ", ".join(f"{h} {role}" for h, role in facts["roles"].items()))]
    emit({"out": str(out / name), "facts": facts}, as_json=as_json, title="Planted", rows=rows)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="Such as cliff or aligned; `cliffscope organism list` tells all.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    as_json: Json = False,
) -> None:
    """Writes an organism as a plain Hugging Face checkpoint that any tool loads.

    Example: cliffscope organism export cliff --out cliff-checkpoint
    """
    from safetensors import SafetensorError

    from interp.cli.output import emit
    from interp.cli.session import quiet_libraries
    from interp.organisms import export as export_organism

    quiet_libraries()
    existed = out.exists()
    try:
        export_organism(name, out)
    except (CliffscopeError, SafetensorError) as error:
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        if isinstance(error, CliffscopeError):
            raise
        # How the library reports a full disk.
        raise CliffscopeError(f"{out}: cannot be written ({error}).") from error
    rows = [("organism", name), ("folder", str(out))]
    emit({"organism": name, "out": str(out)}, as_json=as_json, title="Exported", rows=rows)


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", help="The folder to write weights and ground truth to.")],
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only, to try the code.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Trains the aligned base and plants every mechanism, as the bundled weights were made.

    Example: cliffscope organism train --out weights
    """
    from interp.cli.output import emit
    from interp.organisms import train as train_organisms

    facts = train_organisms(out, seed=seed, quick=quick)
    emit({"out": str(out), "facts": facts}, as_json=as_json, title="Trained", rows=[("folder", str(out))])
