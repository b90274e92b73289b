"""The files of a cliff: the table of rollouts, the table of layers, the figures, the picture."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from interp.files import write_together
from probes.cliff import Cliff
from probes.cliff_figure import cliff_page


def write_cliff(cliff: Cliff, out: str | os.PathLike[str]) -> list[Path]:
    """Writes `out` (Parquet, one row a rollout) and beside it `.layers.parquet`, `.json` and `.html`.

    Returns:
        The files written, `out` last: where it is, the others are.

    Raises:
        CliffscopeError: If a file cannot be written.
    """
    layers, figures, picture, out = cliff_files(out)
    text = json.dumps(cliff.summary(), indent=2, ensure_ascii=False) + "\n"
    writers: dict[Path, Callable[[Path], object]] = {
        figures: lambda partial: partial.write_text(text, encoding="utf-8"),
        picture: lambda partial: partial.write_text(cliff_page(cliff), encoding="utf-8"),
        out: lambda partial: cliff.table.to_parquet(partial, index=False),
    }
    if (by_layer := cliff.by_layer) is not None:
        writers = {layers: lambda partial: by_layer.to_parquet(partial, index=False), **writers}
    write_together(writers)
    return list(writers)


def cliff_files(out: str | os.PathLike[str]) -> tuple[Path, Path, Path, Path]:
    """The table of layers, the figures, the picture and the table of rollouts, as `write_cliff` names them."""
    out = Path(out)
    layers, figures, picture = (out.with_suffix(suffix) for suffix in (".layers.parquet", ".json", ".html"))
    return layers, figures, picture, out
