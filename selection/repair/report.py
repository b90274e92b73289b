"""What a repair was: `repair.json` and `loss.jsonl` beside the weights."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import CliffscopeError
from interp.files import read_jsonl, write_jsonl, write_text

FORMAT = "cliffscope-repair"
VERSION = 1
MANIFEST = "repair.json"
LOSSES = "loss.jsonl"


@dataclass(frozen=True)
class RepairReport:
    """What a repair was.

    Attributes:
        out: The folder of the repaired model.
        facts: The manifest: `base` (name, fingerprint), `data` and `benign` (count, sha256), `options`, `tokens` (the
            preflight's sums), `trained`, `steps`, `loss` (first, last), `precision`, `versions`.
        losses: One entry an optimizer step: `step`, `epoch`, `loss` (mean over the learnt tokens, in nats),
            `learning_rate`, `gradient_norm`.
        resumed_from: The step from which this run went on; 0 if it began at the beginning.
        was_complete: Whether an earlier run had finished it, so that there was nothing to do.
    """

    out: Path
    facts: Mapping[str, Any]
    losses: Sequence[Mapping[str, float]]
    resumed_from: int = 0
    was_complete: bool = False

    def save(self, folder: Path) -> None:
        """Writes both files into a folder."""
        write_jsonl(folder / LOSSES, self.losses)
        header = {"format": FORMAT, "version": VERSION}
        write_text(folder / MANIFEST, json.dumps({**header, **self.facts}, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, out: str | os.PathLike[str]) -> "RepairReport":
        """Reads them from a repaired model's folder.

        Raises:
            CliffscopeError: If the folder is none, or its manifest cannot be read.
        """
        out = Path(out)
        path = out / MANIFEST
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CliffscopeError(f"{out}: not a repaired model, it has no {MANIFEST}.") from error
        except (OSError, ValueError) as error:
            raise CliffscopeError(f"{path}: cannot be read ({error}).") from error
        if not isinstance(facts, dict) or facts.get("format") != FORMAT or facts.get("version") != VERSION:
            raise CliffscopeError(f"{path}: not a manifest of this version's repair.")
        facts = {key: value for key, value in facts.items() if key not in ("format", "version")}
        return cls(out, facts, [row for _, row in read_jsonl(out / LOSSES)], was_complete=True)
