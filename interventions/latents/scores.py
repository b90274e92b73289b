"""`LatentScores`: every latent of an autoencoder with how well it separates two groups of rollouts, and its file.

A latent is said to separate with evidence: a permutation p that stays below 0.05 after Benjamini–Hochberg correction
over all latents that are active at all; active more often in every category of its own group than in the other group;
and active on no more than 2 % of ordinary tokens (the share that Ferrando et al. 2025, arXiv 2411.14257, allow): a
latent that fires everywhere does not stand for what it happens to separate.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from interp.errors import CliffscopeError
from interp.json_values import as_json_holds
from interp.models.fingerprint import require_same_model
from interp.significance import benjamini_hochberg
from interp.statistics import auroc
from interp.table_files import TableFormat
from interventions.directions.direction import Direction
from interventions.latents.latents import Latents
from interventions.latents.permutation import Permuted, permute_labels

MAX_Q = 0.05
"""The false discovery rate at which latents are said to separate."""
GENERIC = 0.02
"""The largest share of ordinary tokens at which a latent that stands for something is active."""
MIN_EXPLAINED = 0.5
"""The share of variance below which an autoencoder does not seem to be of this place."""
MIN_CATEGORY = 3
"""Rollouts that a category needs for a frequency of its own."""

COLUMNS = (
    "rank",
    "latent",
    "sign",
    "auroc",
    "auroc_held_out",
    "frequency_positive",
    "frequency_negative",
    "difference",
    "worst",
    "worst_category",
    "mean_positive",
    "mean_negative",
    "effect",
    "p",
    "q",
    "generic_share",
    "generic",
    "separates",
)
FORMAT = TableFormat("cliffscope.latents", "1", "a table of latents", "rank the latents again", COLUMNS)


@dataclass(frozen=True, eq=False)
class LatentScores:
    """The latents of one autoencoder, ranked by what they separate.

    Attributes:
        table: One row a latent, best first: `rank` from 1, `latent`, `sign` (1 active in the positive group, −1 in the
            negative one), `auroc` (of the positive group), `auroc_held_out` (on prompts not ranked by), `frequency_…`
            (share of rollouts with the latent active), `difference` of the two in favour of its own group, `worst`
            (the least difference over that group's categories) and `worst_category`, `mean_…`, `effect` (Cohen's d),
            `p`, `q`, `generic_share` of ordinary tokens with the latent active, `generic` (more than 2 %),
            `separates`.
        model: Name of the model.
        fingerprint: What the model is, to refuse another.
        facts: What JSON can hold: the autoencoder, the contrast, counts, the controls `shuffled` and `untrained`, ….
    """

    table: pd.DataFrame
    model: str
    fingerprint: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # As the file holds them: the table in memory must not differ from the one read back.
        object.__setattr__(self, "facts", as_json_holds(self.facts))
        object.__setattr__(self, "fingerprint", dict(self.fingerprint))

    @property
    def separating(self) -> tuple[int, ...]:
        """The latents that separate, best first."""
        return tuple(int(latent) for latent in self.table.loc[self.table["separates"], "latent"])

    def row(self, latent: int) -> "pd.Series[Any]":
        """The figures of one latent. Raises `CliffscopeError` if there is no such latent."""
        found = self.table[self.table["latent"] == latent]
        if found.empty:
            raise CliffscopeError(f"there is no latent {latent} in the table of {len(self.table)}.")
        return found.iloc[0]

    @property
    def evidence(self) -> str:
        """What the table and its controls say, a paragraph a line."""
        trained, untrained, shuffled = (self.facts[name] for name in ("trained", "untrained", "shuffled"))
        named = self.separating
        first = ", ".join(map(str, named[:5])) + (", …" if len(named) > 5 else "")
        told = [
            f"{len(named)} of {len(self.table):,} latents separate (q < {MAX_Q}, in every category, active on at most "
            f"{GENERIC:.0%} of ordinary tokens){': ' if named else ''}{first}.",
            f"Controls: under shuffled labels the best latent has AUROC {shuffled['best_auroc']:.3f} in the mean "
            f"(95 %: {shuffled['best_auroc_95']:.3f}); of an untrained SAE as sparse as this one "
            f"{untrained['best_auroc']:.3f}, and {untrained['separating']} of its latents separate.",
        ]
        if untrained["best_auroc"] >= trained["best_auroc"] - 0.01:
            told.append(
                "An untrained SAE separates as well: here a latent's AUROC says nothing of what training found; see "
                "what the latent does when it is changed."
            )
        tested = int(self.table["p"].notna().sum())
        if tested / (1 + self.facts["shuffles"]) >= MAX_Q:
            told.append(
                f"With {self.facts['shuffles']:,} shuffles no latent alone among {tested:,} can have q < {MAX_Q}: take "
                f"at least {20 * tested:,}."
            )
        explained = self.facts["reconstruction"]["explained"]
        if explained is not None and explained < MIN_EXPLAINED:
            told.append(
                f"The SAE explains {explained:.0%} of the variance of ordinary tokens here: it may be of another "
                "model, site or preprocessing."
            )
        return "\n".join(told)

    def direction(self, latents: Latents, latent: int, *, kind: str = "given") -> Direction:
        """A latent as a direction that points to the positive group; one step is the distance of the groups' means.

        Args:
            latents: The autoencoder that was ranked.
            latent: Which.
            kind: What it stands for.

        Raises:
            CliffscopeError: If the autoencoder is another, or the latent's mean is the same in both groups.
        """
        if self.facts.get("sae_digest") != latents.digest:
            raise CliffscopeError(
                f"the table ranks another SAE ({self.facts.get('sae')}) than {latents.source}; rank its latents first."
            )
        row = self.row(latent)
        apart = float(row["mean_positive"] - row["mean_negative"])
        if not apart:
            raise CliffscopeError(
                f"latent {latent} is as active in both groups, so that there is no step from one to the other."
            )
        step = abs(apart) * float(latents.step(latent).norm())
        return latents.direction(latent, scale=step, kind=kind, sign=1 if apart > 0 else -1)

    def check_model(self, fingerprint: Mapping[str, str], name: str) -> None:
        """Refuses a model whose latents these are not.

        Raises:
            CliffscopeError: If the fingerprints differ, naming what differs.
        """
        advice = "rank the latents of this model"
        require_same_model("latents", self.model, self.fingerprint, fingerprint, name, advice)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes Parquet with all else in the schema's metadata. Raises `CliffscopeError` if it cannot."""
        FORMAT.write(path, self.table, {"model": self.model, "fingerprint": self.fingerprint, "facts": self.facts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LatentScores":
        """Reads a table back.

        Raises:
            CliffscopeError: If the file is missing, not Parquet, not a table of latents, or of another version.
        """
        table, metadata = FORMAT.read(path)
        return cls(table, metadata["model"], metadata["fingerprint"], metadata["facts"])


@dataclass(frozen=True)
class Cases:
    """What latents are judged by: one row a rollout.

    Attributes:
        values: How active each latent is in each rollout.
        labels: 1 for the positive group, 0 for the negative one.
        prompts: Which rollouts belong together.
        categories: Of the rollouts.
        ranked: Rows to rank by; the others are held out.
    """

    values: Float[np.ndarray, "rollout latent"]
    labels: Int[np.ndarray, " rollout"]
    prompts: Sequence[str]
    categories: Sequence[str | None]
    ranked: Bool[np.ndarray, " rollout"]


def score_cases(
    cases: Cases, generic: Float[np.ndarray, " latent"], *, shuffles: int, seed: int
) -> tuple[pd.DataFrame, Permuted]:
    """The table of all latents, best first, and what shuffled labels give."""
    rows = np.flatnonzero(cases.ranked).tolist()
    values, labels = cases.values[rows], cases.labels[rows]
    positive, negative = values[labels == 1], values[labels == 0]
    area = auroc(values.T, labels)
    sign = np.where(area >= 0.5, 1, -1)
    fired = values != 0
    often, seldom = fired[labels == 1].mean(0), fired[labels == 0].mean(0)
    worst, category = _worst(fired, labels, [cases.categories[row] for row in rows], sign)
    permuted = permute_labels(
        *_independent(values, labels, [cases.prompts[row] for row in rows]), shuffles=shuffles, seed=seed
    )
    p = np.where(fired.any(0), permuted.p, np.nan)
    q = benjamini_hochberg(p)
    with np.errstate(invalid="ignore"):
        is_generic = generic > GENERIC
        separates = (q < MAX_Q) & (worst > 0) & ~is_generic
    held = ~cases.ranked
    unknown = np.full(len(area), np.nan)
    figures = {
        "latent": np.arange(len(area)),
        "sign": sign,
        "auroc": area,
        "auroc_held_out": auroc(cases.values[held].T, cases.labels[held]) if held.any() else unknown,
        "frequency_positive": often,
        "frequency_negative": seldom,
        "difference": sign * (often - seldom),
        "worst": worst,
        "worst_category": category,
        "mean_positive": positive.mean(0),
        "mean_negative": negative.mean(0),
        "effect": _effect(positive, negative),
        "p": p,
        "q": q,
        "generic_share": generic,
        "generic": is_generic,
        "separates": separates,
    }
    table = pd.DataFrame(figures)
    margin = np.abs(area - 0.5)
    with np.errstate(invalid="ignore"):
        chance = ~(q < MAX_Q)
    order = np.lexsort((figures["latent"], -np.abs(_finite(figures["effect"])), -margin, -worst, chance))
    table = table.iloc[order].reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table, permuted


def _independent(
    values: Float[np.ndarray, "rollout latent"], labels: Int[np.ndarray, " rollout"], prompts: Sequence[str]
) -> tuple[Float[np.ndarray, "case latent"], Int[np.ndarray, " case"]]:
    """The mean of the rollouts of one prompt in one class: a case that does not depend on the others."""
    groups: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(prompts, labels.tolist(), strict=True)):
        groups.setdefault(key, []).append(row)
    if len(groups) == len(labels):
        return values, labels
    means = np.stack([values[rows].mean(0) for rows in groups.values()])
    return means, np.array([label for _, label in groups], dtype=labels.dtype)


def _worst(
    fired: Bool[np.ndarray, "rollout latent"],
    labels: Int[np.ndarray, " rollout"],
    categories: Sequence[str | None],
    sign: Int[np.ndarray, " latent"],
) -> tuple[Float[np.ndarray, " latent"], list[str | None]]:
    """Each latent's least difference of frequencies over the categories of its own group, and which that is.

    A category is compared with the same one in the other group, or where that has too few such rollouts, with all of
    the other group.
    """
    names = sorted({name for name in categories if name is not None})
    of = np.array([names.index(name) if name is not None else -1 for name in categories])
    found: dict[int, tuple[Float[np.ndarray, " latent"], list[str | None]]] = {}
    for side, own in ((1, 1), (-1, 0)):
        differences: list[Float[np.ndarray, " latent"]] = []
        told: list[str | None] = []
        for number, name in enumerate(names):
            mine, other = (labels == own) & (of == number), (labels != own) & (of == number)
            if mine.sum() >= MIN_CATEGORY:
                against = other if other.sum() >= MIN_CATEGORY else labels != own
                differences.append(fired[mine].mean(0) - fired[against].mean(0))
                told.append(name)
        if not differences:
            differences, told = [fired[labels == own].mean(0) - fired[labels != own].mean(0)], [None]
        least = np.argmin(differences, axis=0)
        found[side] = np.min(differences, axis=0), [told[number] for number in least]
    worst = np.where(sign == 1, found[1][0], found[-1][0])
    return worst, [found[int(side)][1][latent] for latent, side in enumerate(sign)]


def _effect(
    positive: Float[np.ndarray, "n latent"], negative: Float[np.ndarray, "m latent"]
) -> Float[np.ndarray, " latent"]:
    """Cohen's d: the difference of the means over the pooled standard deviation; NaN where that is 0 or undefined."""
    n, m = len(positive), len(negative)
    if n + m < 3:
        return np.full(positive.shape[1], np.nan)
    squares = ((positive - positive.mean(0)) ** 2).sum(0) + ((negative - negative.mean(0)) ** 2).sum(0)
    spread = np.sqrt(squares / (n + m - 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, (positive.mean(0) - negative.mean(0)) / spread, np.nan)


def _finite(values: Float[np.ndarray, " latent"]) -> Float[np.ndarray, " latent"]:
    return np.nan_to_num(values, nan=0.0)
