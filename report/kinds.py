"""What a file of a run is, by its content: metadata, keys or columns; by its name only where the content is broken."""

import contextlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError

FORMATS = {
    "cliffscope.heads": "heads",
    "cliffscope.curve": "curve",
    "cliffscope.cascade": "cascade",
    "cliffscope.doses": "doses",
    "cliffscope.latents": "latents",
    "cliffscope.apart": "apart",
    "cliffscope.direction-scores": "direction_scores",
    "cliffscope.probe": "probe",
    "cliffscope.head_mask": "mask",
    "cliffscope.direction": "direction",
    "cliffscope.transport": "direction",
    "cliffscope.guard": "guard",
    "cliffscope.evaluation": "evaluation",
    "cliffscope.run": "manifest",
    "cliffscope-rollouts": "settings",
    "cliffscope-scores": "settings",
    "cliffscope-selection": "selection",
}
"""Kinds of files that say what they are."""

FIRST = 20
"""Lines that are looked at."""

COLUMNS = {
    "scores": ("id", "token_index", "segment", "token", "score"),
    "cliff": ("id", "outcome", "category", "plateau", "edge", "cliff"),
    "layers": ("layer", "outcome", "plateau", "edge", "cliff"),
    "sweep": ("layer", "position", "control", "auroc"),
    "heads": ("rank", "layer", "head", "name", "score", "low", "high", "q", "suppresses"),
    "curve": ("n_heads", "set", "draw", "heads", "refusal_logit", "asr"),
    "doses": ("set", "draw", "layer", "alpha", "asr", "asr_low", "asr_high", "refusal_benign", "kl_benign"),
}
"""Columns by which a table is known, or without which it is of no use."""

KEYS = {
    "rollouts": ("id", "prompt", "thinking", "response"),
    "selected": ("rank", "cliff", "reason"),
    "pool_scores": ("id", "outcome", "plateau", "edge", "unscorable"),
    "summary": ("model", "probe", "cliff", "asr"),
    "cliff_figures": ("verdict", "evidence", "mean"),
    "manifest": ("command", "versions"),
}
"""Keys by which a JSON object is known."""

NAMES = (
    (r"rollouts.*\.jsonl", "rollouts"),
    (r"selected.*\.jsonl", "selected"),
    (r"pool.*\.jsonl", "pool"),
    (r"scores.*\.jsonl", "pool_scores"),
    (r".*\.layers\.parquet", "layers"),
    (r"cliff.*\.parquet", "cliff"),
    (r"scores.*\.parquet", "scores"),
    (r"sweep.*\.parquet", "sweep"),
    (r"heads.*\.parquet", "heads"),
    (r"curve.*\.parquet", "curve"),
    (r"doses.*\.parquet", "doses"),
    (r"cliff.*\.json", "cliff_figures"),
    (r"eval.*\.json", "evaluation"),
    (r"summary\.json", "summary"),
    (r"run\.json", "manifest"),
    (r"probe.*\.safetensors", "probe"),
    (r"mask.*\.safetensors", "mask"),
)
"""What a file that cannot be read was meant to be."""


@dataclass(frozen=True)
class Artefact:
    """A file of a run.

    Attributes:
        path: Where it is.
        kind: What it is; `other` if it is nothing that a report knows.
        facts: Its metadata.
        problem: Why it cannot be used, in one sentence; `None` if nothing was seen yet.
    """

    path: Path
    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def artefacts(folder: Path) -> Iterator[Artefact]:
    """Every file of a run's folder in the order of names, but pages, hidden files and what lies in its folders."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in (".html", ".htm"):
            yield artefact(path)


def artefact(path: Path) -> Artefact:
    """What a file is."""
    look = {".parquet": _table, ".jsonl": _lines, ".json": _object, ".safetensors": _tensors}.get(path.suffix)
    if look is None:
        return Artefact(path, "other")
    try:
        return look(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Artefact(path, named(path), problem=reason(path, error))


def named(path: Path) -> str:
    """The kind that a file's name speaks of."""
    return next((kind for pattern, kind in NAMES if re.fullmatch(pattern, path.name)), "other")


def reason(path: Path, error: Exception) -> str:
    """An error on a file as one sentence without the file's folder."""
    words = " ".join(str(error).split()) or type(error).__name__
    words = words.removeprefix(f"{path}: ").removeprefix(f"{path}, ").replace(str(path), path.name)
    return words[:1].upper() + words[1:].rstrip(".") + "."


def _table(path: Path) -> Artefact:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise CliffscopeError(f"not a whole Parquet file ({str(error).splitlines()[0]}).") from error
    entries = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    known = FORMATS.get(entries.get("format", ""))
    if known is not None:
        facts = {key: _parsed(value) for key, value in entries.items() if key not in ("pandas", "ARROW:schema")}
        kind = known
    else:
        facts, columns = {}, set(schema.names)
        kind = next((kind for kind, needed in COLUMNS.items() if columns.issuperset(needed)), named(path))
        if kind == "scores" and "token" not in columns:
            kind = "other"  # of a guard, which scores prompts
    missing = [name for name in COLUMNS.get(kind, ()) if name not in schema.names]
    problem = f"It has no column {', '.join(missing)}." if missing else None
    return Artefact(path, kind, facts, problem)


def _lines(path: Path) -> Artefact:
    # The first lines tell what a file is. A broken one may stand before good ones; it is told when they are read.
    rows = list(itertools.islice(_rows(path), FIRST))
    if not rows:
        empty = not path.read_bytes().strip()
        return Artefact(path, named(path), problem="It is empty." if empty else "It is not JSON Lines.")
    for kind in ("selected", "pool_scores", "rollouts"):
        if any(row.keys() >= set(KEYS[kind]) for row in rows):
            return Artefact(path, kind)
    kind = named(path)
    lacking = ", ".join(key for key in KEYS.get(kind, ()) if key not in rows[0])
    return Artefact(path, kind, problem=f"Its lines have no {lacking}." if lacking else None)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The first lines that are JSON objects."""
    with path.open("rb") as lines:
        for line in itertools.islice(lines, 10 * FIRST):
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(row := json.loads(line), dict):
                    yield row


def _object(path: Path) -> Artefact:
    content = read_object(path)
    kind = FORMATS.get(str(content.get("format")))
    if kind is None:
        kind = next((k for k in ("summary", "cliff_figures", "manifest") if content.keys() >= set(KEYS[k])), None)
    if kind is None:
        kind = named(path)
        missing = ", ".join(key for key in KEYS.get(kind, ()) if key not in content)
        if kind == "manifest":  # Whatever it tells is better than nothing.
            missing = ""
        return Artefact(path, kind, content, f"It has no {missing}." if missing else None)
    return Artefact(path, kind, content)


def _tensors(path: Path) -> Artefact:
    """The header of a safetensors file, read without the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise CliffscopeError("not a whole safetensors file.")
        header = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if size < 8 + length + max(ends, default=0):
        raise CliffscopeError("not a whole safetensors file: tensors are cut off.")
    facts = {key: _parsed(value) for key, value in header.get("__metadata__", {}).items()}
    kind = FORMATS.get(str(facts.get("format")), "other")
    if kind == "other" and (kind := named(path)) != "other":
        return Artefact(path, kind, facts, "Its metadata names no format of Cliffscope.")
    return Artefact(path, kind, facts)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CliffscopeError` if the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise CliffscopeError(f"not valid JSON (line {error.lineno}, {error.msg}).") from error
    except UnicodeDecodeError as error:
        raise CliffscopeError(f"not UTF-8 text (byte {error.start}).") from error
    except RecursionError as error:
        raise CliffscopeError("not JSON that can be read (nested too deeply).") from error
    if not isinstance(content, dict):
        raise CliffscopeError(f"expected a JSON object, found {type(content).__name__}.")
    return content


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
