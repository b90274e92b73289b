"""`cliffscope bench calibrate`: whether p-values, claims and intervals mean what they say."""

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import Json, Seed


def calibrate(
    quick: Annotated[bool, typer.Option("--quick", help="Few runs, in two minutes: shows gross faults only.")] = False,
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")] = Path("runs/calibration"),
    docs: Annotated[
        Path | None,
        typer.Option("--docs", help="A Markdown page whose tables are written anew, such as docs/calibration.md."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measures p-values and claims where there is nothing to find, and how often intervals cover the truth.

    Writes calibration.parquet (one row a figure), summary.json and tables.md into OUT.

    Example: cliffscope bench calibrate --quick --out runs/calibration
    """
    import json

    from cliffbench.calibration.page import BEGIN, END, tables
    from cliffbench.calibration.results import FORMAT, table_of
    from cliffbench.calibration.run import CalibrationOptions
    from cliffbench.calibration.run import calibrate as run
    from cliffbench.page import require_page, write_page
    from interp.cli.output import emit, plain
    from interp.cli.session import quiet_libraries, require_writable
    from interp.files import write_text
    from interp.progress import progress

    quiet_libraries()
    files = {name: out / name for name in ("calibration.parquet", "summary.json", "tables.md")}
    require_writable(*files.values())
    if docs is not None:
        require_page(docs, BEGIN, END)
    options = CalibrationOptions.quick(seed) if quick else CalibrationOptions.full(seed)
    with progress("Calibrating", options.n_steps, "steps") as bar:
        found = run(options, bar.advance)
    FORMAT.write(files["calibration.parquet"], table_of(found.rows), {"seed": seed, "quick": quick})
    command = " ".join(["cliffscope bench calibrate", *["--quick"] * quick, *([f"--seed {seed}"] if seed else [])])
    text = tables(found, command)
    write_text(files["tables.md"], text)
    if docs is not None:
        write_page(docs, text, BEGIN, END)
    asked = [row for row in found.rows if not row.note]
    summary = {
        "asked": len(asked),
        "outside": [
            {key: getattr(row, key) for key in ("kind", "statistic", "setting", "n", "runs", "rate")}
            for row in found.outside
        ],
        "evidence": found.evidence,
        "cpu_seconds": round(found.seconds, 1),
        "quick": quick,
        "seed": seed,
    }
    write_text(files["summary.json"], json.dumps(plain(summary), indent=2, ensure_ascii=False) + "\n")
    kinds = {
        "p": "share of p < 0.05 under nulls",
        "claims": "runs with a false claim",
        "coverage": "coverage of intervals",
    }
    rows = [["figure", "in range", "least", "most"]]
    for kind, words in kinds.items():
        mine = [row for row in asked if row.kind == kind]
        rates = [row.rate for row in mine]
        within = f"{sum(row.within for row in mine)} of {len(mine)}"
        rows.append([words, within, f"{min(rates):.3f}", f"{max(rates):.3f}"])
    emit(
        {**summary, "files": [str(file) for file in files.values()]},
        as_json=as_json,
        title=f"Calibration, seed {seed}",
        rows=rows,
        note=f"{found.evidence}\nWritten to {', '.join(map(str, files.values()))}.",
    )
