"""Steers along harmfulness and along refusal and shows what each moves: what the model does, says, and thinks.

1. *refusal*: the share of prompts that it refuses after its thinking.
2. *judgment*: reply inversion (`interventions.inversion`): whether it says, asked, that the request could cause harm.
3. *thinking*: what its own thinking concludes (`interventions.thinking_readout`).

Harmfulness is added to the instruction, where it is read and where the model makes up its mind, refusal to every token:
so the finding that it leaves the thinking as it was is no matter of course. What is quoted of a direction is the dose
that moves its own reading most (harmfulness: benign prompts whose thinking concludes to refuse, or that are called
harmful; refusal: harmful prompts refused) among those that break nothing; it was chosen, and random directions with the
same step are tried at that very dose. Where the unsteered model cannot be asked, the inversion says nothing, and is not
quoted.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.errors import CliffscopeError
from interp.judges import Judge
from interp.models.capture import BATCH_TOKENS
from interp.models.intervening import NothingChangedWarning
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.statistics import proportion_interval
from interventions.behaviour import answer
from interventions.directions.direction import Direction
from interventions.inversion import Answers, InversionQuestion, ask, moved
from interventions.scope import Scope
from interventions.steering.along_direction import AddDirection
from interventions.thinking_readout import ThinkingReadout

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

UNSTEERED = "unsteered"
BROKEN = 0.05
"""More unclosed thinking than this, beyond the unsteered model's: the dose breaks the model."""

SCOPES = {"harmfulness": "instruction", "refusal": "all"}
"""Where a direction is added, by its kind."""


@dataclass(frozen=True)
class SteeringOptions:
    """How the directions are steered along.

    Attributes:
        alphas: Doses, in steps of each direction's own: 1 is the distance of its classes' means.
        scopes: Where in the text, by the direction's kind: see `interventions.scope.Scope`.
        controls: Random directions, with the same step, tried at the dose that is quoted.
        max_new_tokens: Of an answer, thinking included.
        system: A system prompt.
        seed: Of random directions and intervals.

    Raises:
        CliffscopeError: If there is no dose above 0, or no such scope.
    """

    alphas: tuple[float, ...] = (1.0, 2.0, -2.0)
    scopes: Mapping[str, str] = field(default_factory=lambda: dict(SCOPES))
    controls: int = 3
    max_new_tokens: int = 512
    system: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not any(alpha > 0 for alpha in self.alphas):
            raise CliffscopeError("alphas: give at least one dose above 0.")
        for scope in self.scopes.values():
            Scope(scope)


@dataclass(frozen=True, eq=False)
class Steered:
    """What steering did.

    Attributes:
        table: One row for each condition and class of prompts. `direction` (`unsteered`, a direction's name, or
            `random like NAME`), draw, layer, alpha, harmful, n; `refused`, `thinks_refuse`, `thinks_harmful` and
            `says_harmful` as shares with `_low` and `_high` (Wilson 95 %); `log_odds_moved` of the inversion against
            the unsteered model, in nats, with a bootstrap 95 % interval; `unclosed`, a share.
        unsteered: The answers of the unsteered model, which say whether it can be asked at all.
        quoted: For each direction the layer and the dose that moved its own reading most; `None` where all broke it.
    """

    table: pd.DataFrame
    unsteered: Answers
    quoted: Mapping[str, tuple[int, float] | None]

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """Whether the model can be asked, and what each direction moved: one sentence each."""
        return (self.unsteered.verdict, *(self._verdict(name, cell) for name, cell in self.quoted.items()))

    def _verdict(self, name: str, cell: tuple[int, float] | None) -> str:
        if cell is None:
            return f"Adding {name}: every dose leaves more thinking unclosed; try smaller ones."
        layer, alpha = cell
        told = [self._told(name, layer, alpha, harmful) for harmful in (True, False)]
        sentence = f"Adding {alpha:g} × {name} at layer {layer}: {'; '.join(told)}."
        control = self.table[self.table["direction"] == f"random like {name}"]
        if len(control):
            means = [
                f"{words} prompts refused {rows['refused'].mean():.2f}, thinking {rows['thinks_refuse'].mean():.2f}"
                for words, rows in (
                    ("harmful", control[control["harmful"]]),
                    ("benign", control[~control["harmful"].astype(bool)]),
                )
            ]
            sentence += f" {control['draw'].nunique()} random directions with that step: {'; '.join(means)}."
        return sentence

    def _told(self, name: str, layer: int, alpha: float, harmful: bool) -> str:
        before = _find(self.table, UNSTEERED, None, 0.0, harmful)
        after = _find(self.table, name, layer, alpha, harmful)
        readings = {"refused": "refused", "thinks_refuse": "thinking concludes to refuse"}
        if self.unsteered.can_be_asked:
            readings["says_harmful"] = "says that it could cause harm"
        parts = [f"{words} {before[key]:.2f} → {after[key]:.2f}" for key, words in readings.items()]
        return f"{'harmful' if harmful else 'benign'} prompts: {', '.join(parts)}"


def steer_each(
    model: "HookedModel",
    directions: Mapping[str, Sequence[Direction]],
    prompts: Sequence[Prompt],
    options: SteeringOptions | None = None,
    *,
    judge: Judge | None = None,
    question: InversionQuestion | None = None,
    readout: ThinkingReadout | None = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda amount: None,
) -> Steered:
    """Answers and asks about the prompts under every condition.

    Args:
        model: The model.
        directions: By name, one for each layer to try; each acts at its own site.
        prompts: Harmful and benign ones, best other than the directions were fitted on.
        options: See `SteeringOptions`.
        judge: Of the answers; by keywords if `None`.
        question: Of the inversion; the bundled one if `None`.
        readout: Of the thinking; the bundled phrases if `None`.
        batch_tokens: Token budget of a batch.
        advance: Called with the number of conditions that were just finished; there are `n_conditions` of them.

    Raises:
        CliffscopeError: If a class of prompts is missing, or a direction does not fit the model.
    """
    options = options or SteeringOptions()
    known = [prompt for prompt in prompts if prompt.harmful is not None]
    bench = _Bench(model, known, options, judge, question, readout or ThinkingReadout.bundled(), batch_tokens)
    unsteered, rows = bench.measure(UNSTEERED, None, 0.0, None)
    advance(1)
    for name, at_layers in directions.items():
        for direction in at_layers:
            for alpha in options.alphas:
                rows += bench.measure(name, direction, alpha, unsteered)[1]
                advance(1)
    table = pd.DataFrame(rows)
    quoted: dict[str, tuple[int, float] | None] = {}
    for name, at_layers in directions.items():
        quoted[name] = cell = _strongest(table, name, at_layers[0].kind)
        if cell is None:
            advance(options.controls)
            continue
        direction = next(one for one in at_layers if one.layer == cell[0])
        for draw in range(options.controls):
            control = direction.random_like(options.seed + draw).at(kind=direction.kind)
            rows += bench.measure(f"random like {name}", control, cell[1], unsteered, draw)[1]
            advance(1)
    return Steered(pd.DataFrame(rows).astype({"draw": "Int64", "layer": "Int64"}), unsteered, quoted)


def n_conditions(directions: Mapping[str, Sequence[Direction]], options: SteeringOptions) -> int:
    """How many conditions `steer_each` measures."""
    return 1 + sum(len(found) * len(options.alphas) + options.controls for found in directions.values())


@dataclass(frozen=True, eq=False)
class _Bench:
    """The prompts, and how they are answered, asked about and read."""

    model: "HookedModel"
    prompts: Sequence[Prompt]
    options: SteeringOptions
    judge: Judge | None
    question: InversionQuestion | None
    readout: ThinkingReadout
    batch_tokens: int

    def measure(
        self, name: str, direction: Direction | None, alpha: float, before: Answers | None, draw: int | None = None
    ) -> tuple[Answers, list[dict[str, Any]]]:
        """The answers to the question, and a row for each class."""
        options = self.options
        change = []
        if direction is not None:
            change = [AddDirection(direction, alpha, scope=options.scopes.get(direction.kind, "all"))]
        with warnings.catch_warnings():
            # A dose that reaches no token of these prompts is a result, and shows in the figures.
            warnings.simplefilter("ignore", NothingChangedWarning)
            answers = ask(
                self.model,
                self.prompts,
                change,
                self.question,
                system=options.system,
                seed=options.seed,
                batch_tokens=self.batch_tokens,
            )
        generator = ModelGenerator(self.model, options.max_new_tokens, seed=options.seed, system=options.system)
        rollouts = answer(generator, self.prompts, change, self.judge)
        change_of = moved(before or answers, answers)
        rows = []
        for harmful, side in ((True, "harmful"), (False, "benign")):
            mine = [rollout for rollout in rollouts if rollout.harmful is harmful]
            row = {"direction": name, "draw": draw, "layer": direction.layer if direction else None, "alpha": alpha}
            row |= {"harmful": harmful, **_shares(mine, self.readout)}
            share, interval = answers.says_harmful(harmful)
            row |= _bounds("says_harmful", share, interval.low, interval.high)
            row |= _bounds("log_odds_moved", *change_of[side].values())
            rows.append(row)
        return answers, rows


def _strongest(table: pd.DataFrame, name: str, kind: str) -> tuple[int, float] | None:
    """The layer and the dose above 0 that move a direction's own reading most and break nothing; the smallest dose."""
    allowed = float(table.loc[table["direction"] == UNSTEERED, "unclosed"].max()) + BROKEN
    mine = table[(table["direction"] == name) & (table["alpha"] > 0)]
    broken = {(row["layer"], row["alpha"]) for row in mine.to_dict("records") if row["unclosed"] > allowed}
    reading = "refused" if kind == "refusal" else "thinks_refuse" if _thinks(table) else "says_harmful"
    cells = [
        (float(row[reading]), -float(row["alpha"]), -int(row["layer"]))
        for row in mine[mine["harmful"] == (kind == "refusal")].to_dict("records")
        if (row["layer"], row["alpha"]) not in broken
    ]
    if not cells:
        return None
    best = max(cells)
    return -best[2], -best[1]


def _thinks(table: pd.DataFrame) -> bool:
    """Whether the unsteered model's thinking concludes anything about harmful prompts."""
    return float(_find(table, UNSTEERED, None, 0.0, True)["thinks_refuse"]) > 0


def _find(table: pd.DataFrame, direction: str, layer: int | None, alpha: float, harmful: bool) -> "pd.Series[Any]":
    rows = table[(table["direction"] == direction) & (table["alpha"] == alpha) & (table["harmful"] == harmful)]
    return (rows if layer is None else rows[rows["layer"] == layer]).iloc[0]


def _shares(rollouts: Sequence[Rollout], readout: ThinkingReadout) -> dict[str, Any]:
    n = len(rollouts)
    refused = sum(rollout.refused is True for rollout in rollouts)
    interval = proportion_interval(refused, n)
    row = {"n": n, **_bounds("refused", refused / n, interval.low, interval.high)}
    for name, (share, bounds) in readout.shares(rollouts).items():
        row |= _bounds(name, share, bounds.low, bounds.high)
    return {**row, "unclosed": sum(rollout.response is None for rollout in rollouts) / n}


def _bounds(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}
