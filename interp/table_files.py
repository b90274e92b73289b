"""Parquet tables that say what they are: format, version and facts are metadata in the table's own schema."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from interp.errors import CliffscopeError
from interp.files import write_atomically


@dataclass(frozen=True)
class TableFormat:
    """One kind of table file.

    Attributes:
        name: As stored, for instance `cliffscope.heads`.
        version: Of the format.
        noun: What an error calls it, for instance "a table of head scores".
        remake: What an error tells to do, for instance "rank the heads again".
        columns: Those that must be there.
    """

    name: str
    version: str
    noun: str
    remake: str
    columns: tuple[str, ...]

    def write(self, path: str | os.PathLike[str], table: pd.DataFrame, metadata: Mapping[str, Any]) -> None:
        """Writes a table with metadata that JSON can hold, atomically.

        Raises:
            CliffscopeError: If the file cannot be written.
        """
        entries = {"format": self.name, "version": self.version}
        entries |= {key: json.dumps(value, sort_keys=True, ensure_ascii=False) for key, value in metadata.items()}
        made = pa.Table.from_pandas(table, preserve_index=False)
        made = made.replace_schema_metadata({**(made.schema.metadata or {}), **entries})
        write_atomically(path, lambda partial: pq.write_table(made, partial))

    def read(self, path: str | os.PathLike[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The table and its metadata.

        Raises:
            CliffscopeError: If the file is missing, not Parquet, of another kind or version, or lacks a column.
        """
        path = Path(path)
        if not path.is_file():
            raise CliffscopeError(f"{path}: no such file.")
        try:
            found = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise CliffscopeError(f"{path}: not a Parquet file ({str(error).splitlines()[0]}).") from error
        entries = {key.decode(): value.decode() for key, value in (found.schema.metadata or {}).items()}
        if entries.get("format") != self.name:
            was = entries.get("format", "missing")
            raise CliffscopeError(f"{path}: not {self.noun} (format {was!r}, expected {self.name!r}).")
        if entries["version"] != self.version:
            raise CliffscopeError(
                f"{path}: {self.noun} of format version {entries['version']!r}; this Cliffscope reads version "
                f"{self.version!r}: {self.remake} or change the Cliffscope version."
            )
        if missing := [column for column in self.columns if column not in found.column_names]:
            raise CliffscopeError(f"{path}: not {self.noun}: it has no column {', '.join(map(repr, missing))}.")
        metadata = {key: entries[key] for key in entries.keys() - {"format", "version", "pandas", "ARROW:schema"}}
        try:
            return found.to_pandas(), {key: json.loads(value) for key, value in metadata.items()}
        except ValueError as error:
            raise CliffscopeError(f"{path}: the metadata cannot be read ({error}); {self.remake}.") from error
