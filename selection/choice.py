"""Choosing the few examples that matter: by cliff, and by the baselines that it is compared with at equal budget.

    cliff     the largest cliff: Cliff-as-a-Judge (Yin et al. 2025, arXiv 2510.06036)
    edge      the smallest score at the edge, by which that paper's code ranks
    plateau   the largest plateau
    loss      the largest loss of the target response
    random    at random
    keyword   at random among those that the model answered, by keywords
    judge     the same by another judge
    length    at random, with as many rollouts of each length as the choice by cliff has

Every method chooses from the same examples: those with an edge to measure at and something to train towards, whatever
their label; `harmful_only` leaves out what is labelled benign. Ties are broken, and random choices made, by a hash of
the seed and the id, so that the order of the pool does not matter.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import numpy as np

from interp.errors import CliffscopeError
from selection.scoring import Score
from selection.spread import NearDuplicates, round_robin
from selection.targets import Target, has_target

Method = Literal["cliff", "random", "edge", "plateau", "keyword", "judge", "loss", "length"]
METHODS: tuple[Method, ...] = get_args(Method)

_SCORED: Mapping[str, tuple[str, bool]] = {
    "cliff": ("cliff", True),
    "edge": ("edge", False),
    "plateau": ("plateau", True),
    "loss": ("loss", True),
}
"""Methods that rank by a score: its field, and whether the largest comes first."""

LENGTH_BINS = 10
"""Most bins of rollout length, of equally many examples of the choice by cliff each."""


@dataclass(frozen=True)
class ChoiceOptions:
    """What is chosen, and how much of it.

    Attributes:
        method: One of `METHODS`.
        fraction: Of the whole pool, unscorable examples included, so that all methods get the same number.
        count: Examples.
        threshold: Takes what is at least (by edge: at most) so large; for methods that rank by a score.
        spread: Takes categories in turns.
        deduplicate: Leaves out prompts this similar to one taken before; Jaccard similarity in (0, 1].
        harmful_only: Leaves out what is labelled benign.
        seed: Of random choices and ties.

    Raises:
        CliffscopeError: If a value is out of range, not just one of the three budgets is given, or options do not go
            together.
    """

    method: Method = "cliff"
    fraction: float | None = None
    count: int | None = None
    threshold: float | None = None
    spread: bool = False
    deduplicate: float | None = None
    harmful_only: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_method(self.method)
        budgets = [value for value in (self.fraction, self.count, self.threshold) if value is not None]
        if len(budgets) != 1:
            raise CliffscopeError(f"give one of fraction, count and threshold, found {len(budgets)} of them.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise CliffscopeError(f"fraction must be above 0 and at most 1, found {self.fraction:g}.")
        if self.count is not None and self.count < 1:
            raise CliffscopeError(f"count must be at least 1, found {self.count}.")
        if self.threshold is not None and self.method not in _SCORED:
            raise CliffscopeError(
                f"threshold: {self.method} has no score to compare it with; give a fraction or a count, or use one of "
                f"{', '.join(_SCORED)}."
            )
        if self.spread and (self.threshold is not None or self.method == "length"):
            raise CliffscopeError("spread: it goes with a fraction or a count, and not with the method length.")
        if self.deduplicate is not None and not 0 < self.deduplicate <= 1:
            raise CliffscopeError(f"deduplicate must be above 0 and at most 1, found {self.deduplicate:g}.")

    def budget(self, pool: int) -> int | None:
        """How many to choose from a pool of so many examples; `None` with a threshold."""
        if self.fraction is not None:
            return max(1, round(self.fraction * pool))
        return self.count


def check_method(method: str) -> None:
    """Raises `CliffscopeError` if there is no such method."""
    if method not in METHODS:
        raise CliffscopeError(f"method {method!r}: expected one of {', '.join(METHODS)}.")


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        scores: Best first.
        reasons: Why each was, in a few words.
        asked: The budget; `None` with a threshold.
        eligible: How many there were to choose from, by this method.
        left_out: How many examples were not, by reason.
        near_duplicates: How many were passed over for being too similar to one taken before.
    """

    scores: tuple[Score, ...]
    reasons: tuple[str, ...]
    asked: int | None
    eligible: int
    left_out: Mapping[str, int]
    near_duplicates: int


def choose(
    scores: Sequence[Score],
    options: ChoiceOptions,
    *,
    target: Target = "own-thinking",
    prompt_of: Callable[[str], str] | None = None,
) -> Choice:
    """Chooses by one method.

    Args:
        scores: Of the whole pool.
        options: What and how much.
        target: How targets will be made: a benign prompt without an answer of the model's own may have none.
        prompt_of: Gives an example's prompt by its id; needed to find near-duplicates.

    Raises:
        CliffscopeError: If the method needs a judge's verdicts or losses that were not measured, or nothing can be
            chosen.
    """
    eligible, left_out = _eligible(scores, options, target)
    budget = options.budget(len(scores))
    same = NearDuplicates(options.deduplicate) if options.deduplicate is not None else None
    if options.method == "length":
        taken = _length_matched(eligible, options, budget or 0, same, prompt_of)
    else:
        ordered: Iterable[Score] = _ordered(eligible, options)
        if options.threshold is not None:
            ordered = _above(ordered, options.method, options.threshold)
        ordered = _distinct(ordered, same, prompt_of)
        if options.spread:
            ordered = round_robin(ordered, lambda score: score.category)
        taken = list(islice(ordered, budget))
    if not taken:
        shown = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none left out"
        raise CliffscopeError(
            f"nothing to choose by {options.method}: {len(eligible)} of {len(scores)} examples can be chosen ({shown})"
            + ("; lower the threshold." if options.threshold is not None and eligible else ".")
        )
    reasons = tuple(_reason(score, options.method) for score in taken)
    return Choice(tuple(taken), reasons, budget, len(eligible), left_out, same.found if same else 0)


def _eligible(scores: Sequence[Score], options: ChoiceOptions, target: Target) -> tuple[list[Score], dict[str, int]]:
    """What a method may choose, and how many examples it may not, by reason."""
    if options.method == "judge" and all(score.judged is None for score in scores):
        raise CliffscopeError("method judge: the scores hold no judge's verdict; score the pool with a judge.")
    if options.method == "loss" and all(score.loss is None for score in scores):
        raise CliffscopeError("method loss: the scores hold no losses; score the pool with them.")
    left_out: Counter[str] = Counter()
    eligible: list[Score] = []
    for score in scores:
        reason = _why_not(score, options, target)
        if reason is None:
            eligible.append(score)
        else:
            left_out[reason] += 1
    return eligible, dict(sorted(left_out.items()))


def _why_not(score: Score, options: ChoiceOptions, target: Target) -> str | None:
    if score.unscorable is not None:
        return score.unscorable
    if options.harmful_only and score.harmful is False:
        return "labelled benign"
    if not has_target(score.harmful, score.given, score.answered, target):
        return "benign without an answer to train towards"
    if options.method == "keyword" and score.refused is not False:
        return "not answered, by keywords"
    if options.method == "judge" and score.judged is not False:
        return "not answered, by the judge"
    return "without a loss" if options.method == "loss" and score.loss is None else None


def _ordered(eligible: Iterable[Score], options: ChoiceOptions) -> list[Score]:
    """Best first."""
    if options.method not in _SCORED:
        return sorted(eligible, key=lambda score: _draw(options.seed, score.id))
    field, largest = _SCORED[options.method]
    sign = -1.0 if largest else 1.0
    return sorted(eligible, key=lambda score: (sign * getattr(score, field), _draw(options.seed, score.id)))


def _draw(seed: int, id: str) -> bytes:
    """A random number of one example, which depends on the seed and the id alone."""
    return hashlib.sha256(f"{seed}\x00{id}".encode()).digest()


def _above(ordered: Iterable[Score], method: str, threshold: float) -> Iterator[Score]:
    field, largest = _SCORED[method]
    for score in ordered:
        value = getattr(score, field)
        if value >= threshold if largest else value <= threshold:
            yield score


def _distinct(
    ordered: Iterable[Score], same: NearDuplicates | None, prompt_of: Callable[[str], str] | None
) -> Iterator[Score]:
    """The scores without near-duplicates of earlier ones; lazily, as few are taken of many."""
    if same is None:
        yield from ordered
        return
    if prompt_of is None:
        raise CliffscopeError("deduplicate: give prompt_of, which tells an example's prompt.")
    for score in ordered:
        if same.is_new(prompt_of(score.id)):
            yield score


def _length_matched(
    eligible: Sequence[Score],
    options: ChoiceOptions,
    budget: int,
    same: NearDuplicates | None,
    prompt_of: Callable[[str], str] | None,
) -> list[Score]:
    """As many examples at random from each bin of length as the choice by cliff has in it."""
    by_cliff = sorted(eligible, key=lambda score: (-(score.cliff or 0.0), _draw(options.seed, score.id)))[:budget]
    lengths = np.array([score.n_tokens for score in by_cliff], dtype=np.float64)
    if not len(lengths):
        return []
    inner = np.unique(np.quantile(lengths, np.linspace(0, 1, min(LENGTH_BINS, len(lengths)) + 1)[1:-1]))
    room = Counter(np.searchsorted(inner, lengths, side="right").tolist())
    drawn = sorted(
        (score for score in eligible if lengths.min() <= (score.n_tokens or 0) <= lengths.max()),
        key=lambda score: _draw(options.seed, score.id),
    )

    def fitting() -> Iterator[Score]:
        for score in drawn:
            bin = int(np.searchsorted(inner, score.n_tokens or 0, side="right"))
            if room[bin]:
                yield score

    taken: list[Score] = []
    for score in _distinct(fitting(), same, prompt_of):
        room[int(np.searchsorted(inner, score.n_tokens or 0, side="right"))] -= 1
        taken.append(score)
    return taken


def _reason(score: Score, method: str) -> str:
    values = {name: f"{name} {getattr(score, name):.2f}" for name in ("cliff", "plateau", "edge")}
    if method in values:
        rest = ", ".join(value for name, value in values.items() if name != method)
        return f"{values[method]}: {rest}"
    return {
        "loss": f"loss {score.loss if score.loss is not None else float('nan'):.2f} nats a token",
        "random": "at random",
        "keyword": "answered, by keywords; at random among these",
        "judge": "answered, by the judge; at random among these",
        "length": f"at random among rollouts as long ({score.n_tokens} tokens)",
    }[method]
