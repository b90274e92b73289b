"""`HeadScores`: every head of a model with its score by one method, the evidence for it, and the file of the table.

In every method a score above 0 means that the head suppresses refusal. A head is called a suppression head only with
evidence: the mean over cases is above 0 with a sign-flip permutation p that stays below 0.05 after Benjamini–Hochberg
correction over all heads, it is at least a twentieth of what there is to explain, the method's own confirmation holds
where it has one, and there is something to explain at all. `shapley` names heads by evidence of its own instead (see
`circuits.shapley`): where many heads suppress together, each carries less than a twentieth.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray

from interp.display.shown import Drawn, Words
from interp.errors import CliffscopeError
from interp.json_values import as_json_holds
from interp.models.fingerprint import require_same_model
from interp.null_runs import NullRuns
from interp.significance import benjamini_hochberg, mean_and_interval, sign_flip_p
from interp.table_files import TableFormat
from interventions.heads import Head

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from interp.models.hooked_model import HookedModel

Method = Literal["attribution", "ablation", "gradient", "interchange", "shapley"]

MAX_Q = 0.05
"""The false discovery rate at which heads are named."""
MIN_SHARE = 0.05
"""The least part of what is to be explained that a suppression head accounts for."""

COLUMNS = ("rank", "layer", "head", "name", "score", "low", "high", "p", "q", "share", "suppresses")
FORMAT = TableFormat("cliffscope.heads", "1", "a table of head scores", "rank the heads again", COLUMNS)


@dataclass(frozen=True, eq=False, repr=False)
class HeadScores(Drawn):
    """The heads of one model, ranked by one method.

    Attributes:
        table: One row a head, best first: `rank` from 1, `layer`, `head`, `name` ("3.1"), `score` (the mean over cases,
            NaN if unknown), `low` and `high` (its bootstrap 95 % interval), `p`, `q`, `share` of what is to be
            explained, `suppresses`; then the method's own columns.
        method: How the heads were scored: one of `METHODS` of `circuits.rank`, or another method's name.
        model: Name of the model.
        fingerprint: What the model is, to refuse another.
        facts: What JSON can hold: `nothing` (why there is nothing to explain, else `None`), `n`, `seed`, …
    """

    table: pd.DataFrame
    method: str
    model: str
    fingerprint: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        method: str,
        model: "HookedModel",
        scores: Float[np.ndarray, "case layer head"],
        *,
        to_explain: float,
        clusters: Sequence[Any] | NDArray[Any] | None = None,
        confirmed: Bool[np.ndarray, "layer head"] | None = None,
        named: Bool[np.ndarray, "layer head"] | None = None,
        columns: Mapping[str, Shaped[np.ndarray, "layer head"]] | None = None,
        facts: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> "HeadScores":
        """Ranks heads by their mean score over cases.

        Args:
            method: How the scores were made.
            model: The model.
            scores: Above 0 where the head suppresses refusal; a head with a NaN is ranked last.
            to_explain: The size of the whole effect, in the unit of the scores; where it is not above 0, there is
                nothing to explain.
            clusters: `[case]` labels of cases that belong together, usually their prompts.
            confirmed: Whether the method's own second condition holds.
            named: Which heads are named by evidence of the method's own, in place of their score, q and share.
            columns: More columns, by name.
            facts: More facts; `nothing` is a reason not to name any head.
            seed: Of bootstrap and permutation.

        Raises:
            CliffscopeError: If JSON cannot hold the facts.
        """
        known = {"nothing": None, **(facts or {})}
        if known["nothing"] is None and not to_explain > 0:
            known["nothing"] = "what the heads could explain is not above 0"
        mean, low, high = mean_and_interval(scores, clusters=clusters, seed=seed)
        p = sign_flip_p(scores, clusters=clusters, seed=seed)
        q = benjamini_hochberg(p)
        share = mean / to_explain if to_explain > 0 else np.full_like(mean, math.nan)
        suppresses = (mean > 0) & (q < MAX_Q) & (share >= MIN_SHARE) if named is None else named.copy()
        suppresses &= known["nothing"] is None
        if confirmed is not None:
            suppresses &= confirmed
        figures = {"score": mean, "low": low, "high": high, "p": p, "q": q, "share": share, "suppresses": suppresses}
        known |= {
            "own_evidence": named is not None,
            "n": len(scores),
            "n_clusters": len(scores) if clusters is None else len(set(clusters)),
            "to_explain": to_explain,
            "seed": seed,
        }
        # The best heads of a table are asked for by their number: those that are named must come first.
        table = _ranked({**figures, **(columns or {})}, first=None if named is None else suppresses)
        return cls(table, method, model.name, model.fingerprint, known)

    @classmethod
    def nothing(
        cls, method: str, model: "HookedModel", reason: str, facts: Mapping[str, Any] | None = None
    ) -> "HeadScores":
        """All heads without scores, because there is nothing to explain."""
        unknown = np.full((model.n_layers, model.n_heads), math.nan)
        figures = {name: unknown for name in ("score", "low", "high", "p", "q", "share")}
        table = _ranked({**figures, "suppresses": np.zeros(unknown.shape, dtype=bool)})
        return cls(table, method, model.name, model.fingerprint, {**(facts or {}), "nothing": reason})

    def __post_init__(self) -> None:
        try:
            # As the file holds them: the table in memory must not differ from the one read back.
            facts = as_json_holds(self.facts)
        except (TypeError, ValueError) as error:
            raise CliffscopeError(f"head scores: JSON cannot hold the facts ({error}).") from error
        object.__setattr__(self, "facts", facts)
        object.__setattr__(self, "fingerprint", dict(self.fingerprint))

    def grid(self, column: str = "score") -> Float[np.ndarray, "layer head"]:
        """A column with its heads in their places. Raises `CliffscopeError` if there is no such column of numbers."""
        if column not in self.table or not pd.api.types.is_numeric_dtype(self.table[column]):
            numbers = [str(name) for name in self.table if pd.api.types.is_numeric_dtype(self.table[name])]
            raise CliffscopeError(f"head scores: no column {column!r} of numbers; use one of {', '.join(numbers)}.")
        grid = np.full((int(self.table["layer"].max()) + 1, int(self.table["head"].max()) + 1), math.nan)
        grid[self.table["layer"], self.table["head"]] = self.table[column].astype(np.float64)
        return grid

    def top(self, n: int) -> tuple[Head, ...]:
        """The `n` heads with the highest scores, best first."""
        return _heads(self.table[self.table["score"].notna()].head(n))

    @property
    def suppressors(self) -> tuple[Head, ...]:
        """The suppression heads, best first."""
        return _heads(self.table[self.table["suppresses"]])

    def choose(self, *, count: int | None = None, fraction: float | None = None) -> tuple[Head, ...]:
        """The heads for a mask, best first.

        Args:
            count: How many.
            fraction: How many, as a share of all heads, rounded down to at least one. Where neither is given, all
                suppression heads.

        Raises:
            CliffscopeError: If no suppression head is named, both are given, or fewer heads score above 0.
        """
        if count is not None and fraction is not None:
            raise CliffscopeError("heads: give a count or a fraction, not both.")
        if not self.suppressors:
            raise CliffscopeError(f"heads: there is none to mask. {self.evidence}")
        if fraction is not None:
            if not 0 < fraction <= 1:
                raise CliffscopeError(f"heads: a fraction lies between 0 and 1, found {fraction:g}.")
            count = max(1, math.floor(fraction * len(self.table) + 1e-9))
        if count is None:
            return self.suppressors
        above = int((self.table["score"] > 0).sum())
        if not 1 <= count <= above:
            raise CliffscopeError(f"heads: {count} are asked for; {above} have a score above 0.")
        return self.top(count)

    @property
    def evidence(self) -> str:
        """What the table says, in one or two sentences, and what its null says of it."""
        reason = self.facts.get("no_fall")
        probe = [] if reason is None else [f"The probe itself shows no cliff ({reason}); the refusal logit does."]
        return " ".join([self._named, *probe, *(null.sentence for null in self.nulls)])

    @property
    def nulls(self) -> tuple[NullRuns, ...]:
        """The figures of the ranking beside those of a null (`circuits.nulls`), where one was run."""
        return tuple(NullRuns.of_summary(summary) for summary in self.facts.get("nulls", ()))

    @property
    def _named(self) -> str:
        """Which heads are named, and by what."""
        if self.facts["nothing"] is not None:
            return f"Nothing to explain: {self.facts['nothing']}. No head is called a suppression head."
        named = self.table[self.table["suppresses"]]
        criteria = f"a score above 0 at q < {MAX_Q} that accounts for {MIN_SHARE:.0%} of what is to be explained"
        if self.facts.get("own_evidence"):
            criteria = "evidence from ablation, alone or beside others, or as a gate"
        if named.empty:
            return f"No suppression head: none of the {len(self.table)} heads has {criteria}."
        heads = "; ".join(
            f"{row['name']} (score {row['score']:.3g} [{row['low']:.3g}, {row['high']:.3g}], q = {row['q']:.2g}, "
            f"{row['share']:.0%})"
            for _, row in named.iterrows()
        )
        return f"{len(named)} suppression head{'s' * (len(named) > 1)} of {len(self.table)}, with {criteria}: {heads}."

    def figure(self, outlined: Sequence[Head] | None = None) -> "go.Figure":
        """The scores by layer and head, with the suppression heads outlined; see `circuits.head_grid`."""
        from circuits.head_grid import head_grid

        return head_grid(self, outlined)

    def words(self) -> Words:
        """Which heads are named and by what evidence, and the eight best."""
        rows: list[list[object]] = [["head", "score", "95 %", "q", "share", "suppresses"]]
        for row in self.table.head(8).to_dict("records"):
            bounds = None if math.isnan(row["low"]) else f"[{row['low']:.3f}, {row['high']:.3f}]"
            q = None if math.isnan(row["q"]) else f"{row['q']:.2g}"
            mark = "yes" if row["suppresses"] else ""
            rows.append([row["name"], float(row["score"]), bounds, q, float(row["share"]), mark])
        n, named = len(self.suppressors), ", ".join(map(str, self.suppressors)) or "none"
        head = f"{n} suppression head{'s' * (n != 1)} of {len(self.table)}: {named}"
        alt = f"Grid of layers and heads, coloured by {self.method} score. {self.evidence}"
        return Words(f"Heads of {self.model} by {self.method}", head, (self.evidence,), rows, alt)

    def check_model(self, fingerprint: Mapping[str, str], name: str) -> None:
        """Refuses a model whose heads these are not.

        Raises:
            CliffscopeError: If the fingerprints differ, naming what differs.
        """
        advice = "rank the heads of this model"
        require_same_model("head scores", self.model, self.fingerprint, fingerprint, name, advice)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes Parquet with all else in the schema's metadata. Raises `CliffscopeError` if it cannot."""
        metadata = {"method": self.method, "model": self.model, "fingerprint": self.fingerprint, "facts": self.facts}
        FORMAT.write(path, self.table, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "HeadScores":
        """Reads a table back.

        Raises:
            CliffscopeError: If the file is missing, not Parquet, not a table of head scores, or of another version.
        """
        table, metadata = FORMAT.read(path)
        return cls(table, metadata["method"], metadata["model"], metadata["fingerprint"], metadata["facts"])


def _ranked(
    figures: Mapping[str, Shaped[np.ndarray, "layer head"]], first: Bool[np.ndarray, "layer head"] | None = None
) -> pd.DataFrame:
    """One row a head, highest score first, some heads before the others; NaN last, equal scores in the heads' order."""
    layers, heads = (index.ravel() for index in np.indices(figures["score"].shape))
    order = np.argsort(-figures["score"].ravel(), kind="stable")
    if first is not None:
        order = order[np.argsort(~first.ravel()[order], kind="stable")]
    table = pd.DataFrame({"rank": np.arange(1, len(order) + 1), "layer": layers[order], "head": heads[order]})
    table["name"] = [str(head) for head in _heads(table)]
    for name, values in figures.items():
        table[name] = values.ravel()[order]
    return table


def _heads(rows: pd.DataFrame) -> tuple[Head, ...]:
    return tuple(Head(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"], strict=True))
