"""The files of a cliff: the table of rollouts, the table of layers, the figures, the picture."""

import json
import os
from pathlib import Path

import pandas as pd

from interp.files import write_atomically, write_text
from probes.cliff import Cliff
from probes.cliff_figure import write_cliff_html


def write_cliff(cliff: Cliff, out: str | os.PathLike[str]) -> list[Path]:
    """Writes `out` (Parquet, one row a rollout) and beside it `.layers.parquet`, `.json` and `.html`.

    Returns:
        The files written, `out` last: where it is, the others are.

    Raises:
        CliffscopeError: If a file cannot be written.
    """
    layers, figures, picture, out = cliff_files(out)
    written = [figures, picture, out]
    if cliff.by_layer is not None:
        _write_table(cliff.by_layer, layers)
        written.insert(0, layers)
    write_text(figures, json.dumps(cliff.summary(), indent=2, ensure_ascii=False) + "\n")
    write_cliff_html(cliff, picture)
    _write_table(cliff.table, out)
    return written


def cliff_files(out: str | os.PathLike[str]) -> tuple[Path, Path, Path, Path]:
    """The table of layers, the figures, the picture and the table of rollouts, as `write_cliff` names them."""
    out = Path(out)
    layers, figures, picture = (out.with_suffix(suffix) for suffix in (".layers.parquet", ".json", ".html"))
    return layers, figures, picture, out


def _write_table(table: pd.DataFrame, path: Path) -> None:
    write_atomically(path, lambda partial: table.to_parquet(partial, index=False))
