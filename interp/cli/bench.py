"""`cliffscope bench`: how often each method finds what was planted, and how often what is not there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.bench_calibrate import calibrate
from interp.cli.options import Json

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    name="bench",
    help="Test the methods on organisms whose mechanism is known.\n\n"
    "Example: cliffscope bench --quick --out runs/bench",
    invoke_without_command=True,
)

app.command()(calibrate)

QUICK_SEEDS, FULL_SEEDS = 2, 5


@app.callback()
def bench(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="The shipped organisms, 2 seeds of prompts, fewer rollouts.")
    ] = False,
    organisms: Annotated[
        str | None, typer.Option("--organisms", help="Names, separated by commas; all if not given.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Names, separated by commas; all if not given.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="How many; 5, with --quick 2.", show_default=False)
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(
            "--prompts", min=32, help="Harmful prompts of an instance; 128, with --quick 96.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")] = Path("runs/bench"),
    docs: Annotated[
        Path | None,
        typer.Option("--docs", help="A Markdown page whose tables are written anew, such as docs/bench.md."),
    ] = None,
    additions: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A Python file that adds methods or mechanisms of your own; may be repeated."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes; as many as cores if not given.", show_default=False)
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run left.")] = False,
    as_json: Json = False,
) -> None:
    """Puts every method on every organism, and scores what it says against what was planted.

    Without --quick each seed plants the mechanisms anew into the shipped base. A killed run goes on where it was.
    Writes scores.parquet (one row a score), summary.json (means with intervals over seeds) and tables.md into OUT.

    Example: cliffscope bench --quick --out runs/bench
    """
    if context.invoked_subcommand is not None:
        return
    import shutil
    import time

    from cliffbench.additions import load_additions
    from cliffbench.instances import Sizes
    from cliffbench.page import require_page, tables, write_page
    from cliffbench.run import FORMAT, QUICK, BenchOptions, run_bench, table_of
    from cliffbench.summary import summarize
    from interp.cli.session import quiet_libraries, require_writable
    from interp.files import write_text
    from interp.progress import progress

    start = time.perf_counter()
    quiet_libraries()
    files = {name: out / name for name in ("scores.parquet", "summary.json", "tables.md")}
    require_writable(*files.values())
    if docs is not None:
        require_page(docs)
    load_additions(additions or ())
    sizes = QUICK if quick else Sizes()
    options = BenchOptions(
        organisms=_names(organisms),
        methods=_names(methods),
        seeds=seeds or (QUICK_SEEDS if quick else FULL_SEEDS),
        fresh=not quick,
        jobs=jobs,
        additions=tuple(additions or ()),
        sizes=sizes if prompts is None else sizes.with_prompts(prompts),
    )
    tasks = options.tasks(out)
    if restart:
        shutil.rmtree(tasks[0].cells, ignore_errors=True)
    resumed = any(not task.left for task in tasks)
    with progress("Benching", len(tasks), "organisms") as bar:
        run_bench(options, out, bar.advance)
    table = table_of(tasks)
    summary = summarize(table, tasks) | {"seconds": round(time.perf_counter() - start, 1), "resumed": resumed}
    FORMAT.write(files["scores.parquet"], table, {"summary": {"seeds": summary["seeds"], "fresh": summary["fresh"]}})
    _write_json(files["summary.json"], summary)
    command = _command(quick, organisms, methods, seeds, prompts)
    text = tables(table, summary, command)
    write_text(files["tables.md"], text)
    if docs is not None:
        write_page(docs, text)
    _report(table, summary, [str(file) for file in files.values()], as_json)


def _names(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def _command(quick: bool, organisms: str | None, methods: str | None, seeds: int | None, prompts: int | None) -> str:
    given = {"--organisms": organisms, "--methods": methods, "--seeds": seeds, "--prompts": prompts}
    options = [f"{name} {value}" for name, value in given.items() if value is not None]
    return " ".join(["cliffscope bench", *(["--quick"] if quick else []), *options])


def _write_json(path: Path, summary: dict[str, Any]) -> None:
    import json

    from interp.cli.output import plain
    from interp.files import write_text

    write_text(path, json.dumps(plain(summary), indent=2, ensure_ascii=False) + "\n")


def _report(table: "pd.DataFrame", summary: dict[str, Any], files: list[str], as_json: bool) -> None:
    from cliffbench.page import HEAD_COLUMNS, method_rows
    from interp.cli.output import emit

    rows = method_rows(table)
    errors = [f"{one['organism']} {one['seed']} {one['method']}: {one['error']}" for one in summary["errors"]]
    emit(
        {**summary, "files": files},
        as_json=as_json,
        title=f"CliffBench: {len(summary['organisms'])} organisms, {len(summary['seeds'])} seeds",
        rows=[["method", *HEAD_COLUMNS.values()], *rows],
        note="\n".join([*errors, f"Written to {', '.join(files)}."]),
    )
