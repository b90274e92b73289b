"""`cliffscope compare`: evaluations side by side, and each against the first, prompt by prompt."""

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import Json, Seed


def compare(
    evaluations: Annotated[
        list[Path],
        typer.Argument(metavar="EVALUATION...", help="From `cliffscope evaluate`; the first is the base."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The HTML page to write.")],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compares evaluations: one table, one picture, and differences to the first on the prompts that both have.

    A difference comes with its interval over prompts and McNemar's exact p.

    Example: cliffscope compare eval-base.json eval-mask.json eval-repair.json --out compare.html
    """
    from interp.cli.output import emit
    from interp.cli.session import require_writable
    from interp.files import write_text
    from selection.evaluation import Evaluation
    from selection.evaluation import compare as side_by_side
    from selection.evaluation.figure import comparison_page
    from selection.evaluation.tables import comparison_rows, difference_rows, sentences

    require_writable(out, inputs=evaluations)
    found = side_by_side([Evaluation.load(path) for path in evaluations], seed=seed)
    write_text(out, comparison_page(found))
    differences = difference_rows(found)
    emit(
        {"out": str(out), **found.payload()},
        as_json=as_json,
        title=f"Against {found.labels[0]}",
        rows=comparison_rows(found),
        below=differences if len(differences) > 1 else (),
        note="\n".join([*sentences(found), f"Picture, and the ASR by category: {out}."]),
    )
