"""Choosing a direction among layers and positions by what it does, after Arditi et al. 2024 (arXiv 2406.11717).

1. A candidate is fitted at every layer and position, on a part of the prompts.
2. On the other prompts three things are measured of each, all by the refusal logit at the edge:
       bypass    refused harmful rollouts, the direction ablated at every layer and token: is it needed?
       induce    benign rollouts, one step of it added at its own layer and all tokens: is it enough?
       restore   answered harmful rollouts, one step added likewise: does it bring a lost refusal back?
   and the drift `kl` of benign answers under ablation, in nats a token (`interventions.behaviour.drift`).
3. Of the candidates within the budget (kl, depth, sufficiency) the one with the lowest bypass is chosen.

Departures: the refusal logit is read at the edge, with the thinking as it was written, since before `<think>` it means
nothing; the rollouts of the measurement are the model's own, not prompts alone; and where refused and *answered
harmful* rollouts were contrasted, sufficiency is asked of `restore` instead of `induce`: such a direction holds harm
fixed, and one that leaves benign answers alone is what a repair wants. Every effect has its bootstrap interval over
prompts, and random directions with the same step stand beside the chosen one.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.errors import CliffscopeError
from interp.models.capture import BATCH_TOKENS
from interp.models.sites import FINAL_NORM
from interp.null_runs import NullRuns
from interp.rollouts import Rollout
from interp.table_files import TableFormat
from interp.transcripts.positions import EDGE
from interventions.directions.contrasts import defaults_of, examples_of, site_at
from interventions.directions.direction import Direction
from interventions.directions.effects import EFFECTS, MEASURED_ON, EffectBench
from interventions.directions.fitting import TEST_FRACTION, fit_cells
from probes.splits import prompt_keys, split_by_prompt

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

TABLE = TableFormat(
    name="cliffscope.direction-scores",
    version="1",
    noun="a table of directions' effects",
    remake="choose the direction again",
    columns=("layer", "position", "control", "bypass", "induce", "restore", "kl", "eligible", "chosen"),
)

POSITIONS = (EDGE, "post_inst")
"""Where candidates are fitted, unless told otherwise."""


N_RANDOM = 3
"""Random directions that are measured beside the chosen one."""


@dataclass(frozen=True)
class ChoiceOptions:
    """How a direction is chosen.

    Attributes:
        kl_budget: Most drift of benign answers under ablation, in nats a token.
        deepest: Candidates are at layers below this share of the layers.
        sufficient: The effect of adding that must reach a refusal logit of 0: `induce` or `restore`; `None` takes
            `restore` for the contrast refused-complied, else `induce`.
        limit: Most rollouts of each outcome to measure on; which ones is drawn.
        n_random: Random directions to measure beside the chosen one.
        seed: Of the split, the draw, the bootstrap and the random directions.

    Raises:
        CliffscopeError: If a value is out of range.
    """

    kl_budget: float = 0.1
    deepest: float = 0.8
    sufficient: str | None = None
    limit: int = 32
    n_random: int = N_RANDOM
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.kl_budget > 0:
            raise CliffscopeError(f"kl_budget: expected a number of nats above 0, found {self.kl_budget}.")
        if not 0 < self.deepest <= 1:
            raise CliffscopeError(f"deepest: expected a share of the layers in (0, 1], found {self.deepest}.")
        if self.sufficient not in (None, "induce", "restore"):
            raise CliffscopeError(f"sufficient: expected induce or restore, found {self.sufficient!r}.")
        if self.limit < 2 or self.n_random < 0:
            raise CliffscopeError(
                f"choice: expected a limit of at least 2 and no negative n_random, found {self.limit}, {self.n_random}."
            )


@dataclass(frozen=True)
class Choice:
    """What was chosen, and from what.

    Attributes:
        direction: The chosen one, its effects among its training facts; `None` if no candidate is within the budget.
        candidates: All, by layer and position.
        table: One row a candidate (`control` "real") and one a random direction ("random"): `layer`, `position`,
            `scale`, `auroc`, the effects with `_low` and `_high`, `eligible`, `why` (not), `chosen`.
        reason: Why this one, or why none, in words.
        facts: Model, contrast, method, site, options, and the refusal logits without any change.
    """

    direction: Direction | None
    candidates: Mapping[tuple[int, str], Direction]
    table: pd.DataFrame
    reason: str
    facts: Mapping[str, Any]

    def require(self, advice: str = "") -> Direction:
        """The chosen direction.

        Args:
            advice: What else can be done, to be said where none is chosen.

        Raises:
            CliffscopeError: If no candidate is within the budget.
        """
        if self.direction is None:
            raise CliffscopeError(f"directions: {self.reason}{f' Or {advice}.' if advice else ''}")
        return self.direction

    @property
    def nulls(self) -> tuple[NullRuns, ...]:
        """The fall of the refusal logit by ablating the chosen direction, beside that by random ones; none without."""
        rows = self.table[self.table["control"] == "random"] if self.direction is not None else self.table[:0]
        if rows.empty:
            return ()
        before = float(self.facts["refusal_logit_before"]["refused"])
        observed = before - float(self.table.loc[self.table["chosen"], "bypass"].iloc[0])
        values = tuple(before - float(value) for value in rows["bypass"])
        statistic = "fall of the refusal logit when ablated"
        return (NullRuns("random-direction", statistic, observed, values, int(self.facts["options"]["seed"])),)

    def write_table(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as Parquet, with the reason and the facts.

        Raises:
            CliffscopeError: If the file cannot be written.
        """
        TABLE.write(path, self.table, {"reason": self.reason, "facts": dict(self.facts)})


def choose_direction(
    model: "HookedModel",
    rollouts: Sequence[Rollout],
    *,
    kind: str = "refusal",
    contrast: str | None = None,
    method: str = "mean-difference",
    positions: Sequence[str] = POSITIONS,
    layers: Sequence[int] | None = None,
    site: str = "hook_resid_post",
    options: ChoiceOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> Choice:
    """Fits a direction at every layer and position, measures what each does, and chooses.

    Args:
        model: The model that gave the rollouts.
        rollouts: Judged rollouts; refused and benign ones are needed, complied ones for `restore`.
        kind: What the direction stands for.
        contrast: One of `CONTRASTS`; that of the kind if `None`.
        method: See `fit_direction`.
        positions: Where candidates are fitted; rollouts that lack one are left out.
        layers: Indices; all if `None`.
        site: A site's name without its layer, in the blocks.
        options: See `ChoiceOptions`.
        batch_tokens: Token budget of a batch.
        advance: Called with 1 for each direction that was measured: the candidates and the random ones.

    Raises:
        CliffscopeError: If a group of rollouts is missing or too small, or a position or site does not exist.
    """
    options = options or ChoiceOptions()
    contrast, _ = defaults_of(kind, contrast, positions[0] if positions else None)
    if site == FINAL_NORM:
        raise CliffscopeError(
            f"site {site}: a direction after the final norm is not one of the residual stream, from which it is to be "
            "ablated; fit it at hook_resid_post."
        )
    site_at(site, 0)
    sufficient = options.sufficient or ("restore" if contrast == "refused-complied" else "induce")
    examples = examples_of(model, rollouts, contrast, list(dict.fromkeys(positions)))
    split = split_by_prompt(examples.labels.numpy(), examples.prompts, TEST_FRACTION, options.seed)
    candidates = {
        cell: direction.at(kind=kind, training={"contrast": contrast})
        for cell, direction in fit_cells(
            model, examples, split, layers, site, method=method, seed=options.seed, batch_tokens=batch_tokens
        ).items()
    }
    trained_on = set(prompt_keys([examples.prompts[i] for i in split.train]))
    bench = EffectBench.of(
        model, rollouts, trained_on, limit=options.limit, seed=options.seed, batch_tokens=batch_tokens
    )
    bench.require("refused", "benign", *(["complied"] if sufficient == "restore" else []))
    before = bench.logits_before()
    rows = []
    for direction in candidates.values():
        row = bench.measure(direction)
        why = _objections(row, model.n_layers, before["refused"], sufficient, options)
        rows.append({"control": "real", **row, "eligible": not why, "why": "; ".join(why), "chosen": False})
        advance(1)
    best = min((i for i, row in enumerate(rows) if row["eligible"]), key=lambda i: rows[i]["bypass"], default=None)
    chosen = None
    if best is not None:
        rows[best]["chosen"] = True
        effects = {name: rows[best][name] for effect in EFFECTS for name in (effect, f"{effect}_low", f"{effect}_high")}
        chosen = list(candidates.values())[best].at(training={"chosen_by": "measured effect", **effects})
        for number in range(options.n_random):
            row = bench.measure(chosen.random_like(options.seed + number))
            rows.append({"control": "random", **row, "eligible": False, "why": "a control", "chosen": False})
            advance(1)
    facts = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "kind": kind,
        "contrast": contrast,
        "method": method,
        "site": site,
        "options": {**asdict(options), "sufficient": sufficient},
        "refusal_logit_before": before,
        "n": {outcome: len(group) for outcome, group in bench.at_edge.items()},
    }
    reason = _reason(rows, best, before, sufficient, options)
    if chosen is not None:
        chosen = chosen.at(training={"reason": reason})
    return Choice(chosen, candidates, pd.DataFrame(rows), reason, facts)


def _objections(
    row: Mapping[str, Any], n_layers: int, refused: float, sufficient: str, options: ChoiceOptions
) -> list[str]:
    """Why a candidate is not to be chosen."""
    why = []
    if not row["layer"] < options.deepest * n_layers:
        why.append(f"layer {row['layer']} is not below {options.deepest:g} of {n_layers} layers")
    if not row["kl"] <= options.kl_budget:
        why.append(f"KL {row['kl']:.3f} is above {options.kl_budget:g}")
    if not row[sufficient] >= 0:
        why.append(f"adding it leaves {sufficient} at {row[sufficient]:.2f}, below 0")
    if not row["bypass"] < refused:
        why.append(f"ablating it does not lower the refusal logit ({refused:.2f})")
    return why


def _reason(
    rows: Sequence[Mapping[str, Any]],
    best: int | None,
    before: Mapping[str, float],
    sufficient: str,
    options: ChoiceOptions,
) -> str:
    """The choice in words."""
    real = [row for row in rows if row["control"] == "real"]
    eligible = sum(row["eligible"] for row in real)
    budget = (
        f"KL ≤ {options.kl_budget:g}, layer < {options.deepest:g} of all, {sufficient} ≥ 0, ablation lowers refusal"
    )
    if best is None:
        nearest = min(real, key=lambda row: (row["why"].count(";"), row["bypass"]))
        return (
            f"none of the {len(real)} candidates is within the budget ({budget}), so none is chosen. The nearest is "
            f"layer {nearest['layer']} at {nearest['position']}: {nearest['why']}. Raise the budget, or give another "
            "contrast, method or position."
        )
    row = rows[best]
    outcome, change = MEASURED_ON[sufficient], "benign" if sufficient == "induce" else "answered harmful"
    told = (
        f"layer {row['layer']} at {row['position']} has the lowest bypass of the {eligible} of {len(real)} candidates "
        f"within the budget ({budget}): ablated, it takes the refusal logit of refused rollouts from "
        f"{before['refused']:.2f} to {row['bypass']:.2f} with KL {row['kl']:.3f} on benign ones; added once, it takes "
        f"that of {change} rollouts from {before[outcome]:.2f} to {row[sufficient]:.2f}."
    )
    controls = [row for row in rows if row["control"] == "random"]
    if controls:
        lowest, highest = min(r["bypass"] for r in controls), max(r[sufficient] for r in controls)
        told += f" Of {len(controls)} random directions bypass is at least {lowest:.2f} and"
        told += f" {sufficient} at most {highest:.2f}."
    return told
