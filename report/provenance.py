"""What was run: the command, versions, seeds, the model, and every file with its hash."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from report.problems import Problem, missing
from report.run import Run

LARGEST = 500_000_000
"""Bytes of a file that is still hashed: the weights of a repaired model may be far more."""
KEPT = "as the run left it"
LONGEST = 300
"""Characters of a value that are shown."""


@dataclass
class Provenance:
    """What was run.

    Attributes:
        command: What made the run, if that is known.
        facts: Names and values.
        files: Name, size in bytes, SHA-256, and what is known of it.
        problems: What is missing or broken.
    """

    command: str | None = None
    facts: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, str, str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def state(self) -> str:
        """What became of the files, in one sentence."""
        if not self.files or all(told == "as found" for *_, told in self.files):
            return "There is no manifest to compare the files with."
        counts = Counter(told for *_, told in self.files)
        if set(counts) == {KEPT}:
            return f"All {len(self.files)} files are as the run left them."
        return "Of the files of the run, " + ", ".join(f"{n} {told}" for told, n in sorted(counts.items())) + "."

    @property
    def text(self) -> str:
        """All of it as plain text, to be copied."""
        lines = [f"command: {self.command}"] if self.command else []
        lines += [f"{name}: {value}" for name, value in self.facts]
        lines += [f"{digest}  {name}  ({size} bytes; {told})" for name, size, digest, told in self.files]
        return "\n".join(lines)


def provenance(run: Run) -> Provenance:
    """From the manifest; without one, from what the files say of themselves."""
    manifest = run.object("manifest")
    found = Provenance(problems=run.of("manifest", "settings"))
    if not manifest and not run.of("manifest"):
        why = "This folder has no run.json, so the command is not known; below is what the files say of themselves."
        found.problems.append(missing("manifest", why))
    command = manifest.get("command")
    if command:
        found.command = " ".join(map(str, command)) if isinstance(command, list) else str(command)
    hashes = _hashes(manifest.get("files"))
    told = {key: value for key, value in manifest.items() if key not in ("command", "files")}
    found.facts = list(_flat(told)) or _once(_said(run))
    found.files = list(_files(run, hashes))
    return found


def _files(run: Run, hashes: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """The files in the folder and those of the manifest: name, size, digest and state of each."""
    # The manifest cannot hold its own hash; pages are listed where it has them, as this one may lie there too.
    names = {file.path.name for file in run.files if file.kind != "manifest"} | hashes.keys()
    for name in sorted(names):
        path = run.folder / name
        if not path.resolve().is_relative_to(run.folder.resolve()) or not path.is_file():
            yield name, "–", hashes.get(name, ""), "gone since the run"
            continue
        size = path.stat().st_size
        if size > LARGEST:
            yield name, f"{size:,}", hashes.get(name, ""), "large, not compared"
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not hashes:
            state = "as found"
        elif name not in hashes:
            state = "not in the manifest"
        else:
            state = KEPT if hashes[name] == digest else "changed since the run"
        yield name, f"{size:,}", digest, state


def _once(facts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Facts without those that an earlier file told in the same words."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for name, value in facts:
        seen.setdefault((name.rpartition(", ")[2], value), (name, value))
    return list(seen.values())


def _said(run: Run) -> Iterator[tuple[str, str]]:
    """What the files say of how they were made."""
    summary = run.object("summary")
    if summary.get("model"):
        yield "model", str(summary["model"])
    for key in ("probe", "mask"):
        content = run.object(key)
        if content.get("model"):
            yield f"{key}, model", str(content["model"])
            yield from _flat({"fingerprint": content.get("fingerprint")}, f"{key}, ")
    for name, content in (*run.objects["settings"], *run.objects["selection"]):
        some = {key: content.get(key) for key in ("settings", "judge", "versions", "options")}
        yield from _flat({key: value for key, value in some.items() if value is not None}, f"{name}, ")
    for name, content in run.objects["repair"]:
        some = {key: content.get(key) for key in ("model", "options", "versions", "seconds")}
        yield from _flat({key: value for key, value in some.items() if value is not None}, f"{name}, ")
    for name, content in run.objects["evaluation"]:
        yield from _flat({"settings": content.get("settings"), "judge": content.get("judge")}, f"{name}, ")


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names and values; what a mapping holds that is no mapping itself stands together in one row."""
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            plain = {
                name: inner for name, inner in entry.items() if not isinstance(inner, Mapping) and inner is not None
            }
            if plain:
                yield f"{before}{key}", "; ".join(f"{name} {_words(plain[name])}" for name in sorted(plain))
            deeper = {name: inner for name, inner in entry.items() if isinstance(inner, Mapping)}
            yield from _flat(deeper, f"{before}{key}, ")
        elif entry is not None:
            yield f"{before}{key}", _words(entry)


def _words(value: Any) -> str:
    words = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} …"


def _hashes(files: Any) -> dict[str, str]:
    """The SHA-256 of files by name, from a mapping or a list of objects."""
    if isinstance(files, list):
        files = {
            entry.get("name") or entry.get("path") or entry.get("file"): entry
            for entry in files
            if isinstance(entry, Mapping)
        }
    if not isinstance(files, Mapping):
        return {}
    digests = {name: entry.get("sha256") if isinstance(entry, Mapping) else entry for name, entry in files.items()}
    return {str(name): digest.removeprefix("sha256:") for name, digest in digests.items() if isinstance(digest, str)}
