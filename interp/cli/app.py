"""Assembles the commands, and turns bad input into one line and exit code 2."""

import sys
import warnings

import typer

from interp.cli.bench import app as bench
from interp.cli.cliff import cliff
from interp.cli.compare import compare
from interp.cli.demo import demo
from interp.cli.evaluate import evaluate
from interp.cli.guard import app as guard
from interp.cli.heads import app as heads
from interp.cli.inspect import inspect
from interp.cli.judge import app as judge
from interp.cli.mask import app as mask
from interp.cli.organism import app as organism
from interp.cli.probe import app as probe
from interp.cli.repair import repair
from interp.cli.report import report
from interp.cli.rollout import rollout
from interp.cli.sae import app as sae
from interp.cli.select import select
from interp.cli.steer import app as steer
from interp.errors import CliffscopeError

app = typer.Typer(
    name="cliffscope",
    help="Find where a reasoning model that knows a request is harmful stops refusing it, and what causes it.\n\n"
    "Example: cliffscope demo --out runs/demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(demo)
app.command()(inspect)
app.command()(rollout)
app.add_typer(judge)
app.add_typer(probe)
app.command()(cliff)
app.add_typer(heads)
app.add_typer(mask)
app.add_typer(guard)
app.add_typer(steer)
app.add_typer(sae)
app.command()(select)
app.command()(repair)
app.command()(evaluate)
app.command()(compare)
app.command()(report)
app.add_typer(bench)
app.add_typer(organism)


def main() -> None:
    """Runs the command line; exits with 2 on bad input and 130 when interrupted."""
    try:
        with warnings.catch_warnings():
            # The libraries' warnings are for programmers; `python -W` brings them back.
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            app(prog_name="cliffscope")
    except CliffscopeError as error:
        message = " ".join(str(error).split())
        sys.stderr.write(f"cliffscope: error: {message}\n")
        sys.exit(2)
    except SystemExit as end:
        # Typer ends like this, without a word, on a keyboard interrupt.
        if end.code == 130:
            sys.stderr.write("cliffscope: interrupted\n")
        raise
