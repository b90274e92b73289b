"""`DoseResponse`: what each dose did, in one table, and its file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.display.shown import Drawn, Words
from interp.json_values import as_json_holds
from interp.table_files import TableFormat

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interventions.dose.smallest import SmallestDose, Target

COLUMNS = (
    "set",
    "draw",
    "layer",
    "alpha",
    "n_harmful",
    "answered",
    "asr",
    "asr_low",
    "asr_high",
    "n_benign",
    "benign_refused",
    "refusal_benign",
    "refusal_benign_low",
    "refusal_benign_high",
    "unjudged",
    "unclosed",
    "looping",
    "useless",
    "useless_low",
    "useless_high",
    "kl_benign",
    "kl_benign_low",
    "kl_benign_high",
    "refusal_logit",
    "refusal_logit_low",
    "refusal_logit_high",
)
FORMAT = TableFormat("cliffscope.doses", "1", "a table of doses", "sweep again", COLUMNS)


Row = Mapping[str, Any]
"""One dose: its columns by name, `None` for what there is not."""


@dataclass(frozen=True, eq=False, repr=False)
class DoseResponse(Drawn):
    """What each dose did.

    Attributes:
        table: One row a dose. `set`: `unsteered`, `vector` or `random`, with `draw` telling which random direction;
            `layer`, none for the unsteered model; `alpha`. Of the harmful prompts how many were `answered`, of the
            benign ones `benign_refused`, as shares `asr` and `refusal_benign` with Wilson's 95 % intervals; of all
            prompts `unjudged`, the number of responses without a verdict, which count in neither share, and the shares
            `unclosed` (thinking that never ended), `looping` (thinking or response that ends by repeating itself) and
            `useless` (no usable response: unclosed, blank or looping). `kl_benign`: drift on the unsteered model's
            benign answers in nats a token; `refusal_logit`: its mean at the edge of the unsteered model's harmful
            rollouts in nats; both with bootstrap 95 % intervals over rollouts.
        model: Name of the model.
        facts: Options, vector, prompts and judge: all that the table depends on.
    """

    table: pd.DataFrame
    model: str
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        # As the file holds them: what is in memory must not differ from what is read back.
        object.__setattr__(self, "facts", as_json_holds(self.facts))

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], model: str, facts: Mapping[str, Any]) -> "DoseResponse":
        """From one mapping a row."""
        table = pd.DataFrame([dict(row) for row in rows], columns=list(COLUMNS))
        return cls(table.astype({"draw": "Int64", "layer": "Int64"}), model, facts)

    @property
    def rows(self) -> list[Row]:
        """The table row by row."""
        records = self.table.to_dict(orient="records")
        return [{str(name): None if value is pd.NA else value for name, value in row.items()} for row in records]

    @property
    def unsteered(self) -> Row:
        """The row of the unsteered model."""
        return next(row for row in self.rows if row["set"] == "unsteered")

    @property
    def mode(self) -> str:
        """How the vector acts."""
        return str(self.facts["options"]["mode"])

    def smallest(self, target: "Target | None" = None) -> "SmallestDose":
        """The smallest dose that meets a target, or the words that none does and which came nearest.

        The smallest has the smallest |α|, and of those the least drift; when clamping, where |α| is no size of the
        change, the least drift.

        Args:
            target: `Target()` if not given: ASR ≤ 10 %, benign refused ≤ 3 %, useless ≤ 5 %.
        """
        from interventions.dose.smallest import find_smallest

        return find_smallest(self, target)

    def figure(self) -> "go.Figure":
        """What each dose did, with the smallest marked: at most six layers, spread over those that were tried.

        `interventions.dose.dose_figures` draws all of them.
        """
        from interventions.dose.figure import dose_figure

        return dose_figure(self)

    def words(self) -> Words:
        """The smallest dose that meets the target, if any does, beside the unsteered model."""
        found = self.smallest()
        columns = ("asr", "refusal_benign", "useless", "kl_benign")
        rows: list[list[object]] = [["dose", "ASR", "benign refused", "useless", "drift (nats)"]]
        for title, row in (("unsteered", self.unsteered), *((("smallest", found.dose),) if found.met else ())):
            place = title if row["layer"] is None else f"{title}: layer {row['layer']}, α {row['alpha']:g}"
            rows.append([place, *(row[name] for name in columns)])
        head = "a dose meets the target" if found.met else "no dose meets the target"
        return Words(f"Doses for {self.model}", head, (found.evidence,), rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes Parquet with model and facts in its metadata. Raises `CliffscopeError` if it cannot."""
        FORMAT.write(path, self.table, {"model": self.model, "facts": self.facts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DoseResponse":
        """Reads a table of doses. Raises `CliffscopeError` if the file is missing or is none."""
        table, metadata = FORMAT.read(path)
        return cls(table, metadata["model"], metadata["facts"])
