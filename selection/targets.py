"""What to train towards: the pool's own target, a refusal after the model's own thinking, or a server's safe answer.

    pool          the pool's `target_response`, after its `target_thinking` or, without one, the model's own thinking
    own-thinking  the model's own thinking, which mostly says already that it should refuse, and a refusal after the
                  close: the training data of Yin et al. 2025 (arXiv 2510.06036)
    endpoint      the model's own thinking, and after the close the answer of a server that is told to be safe

What is labelled benign is never taught to be refused: its target is the pool's where there is one (with `pool`), else
the model's own answer. With `own-thinking` and `endpoint` an example without a label gets the pool's target where there
is one, and is else treated as harmful: selection by cliff finds few benign prompts, but random selection from an
unlabelled pool finds many, and then this teaches over-refusal. The counts in the manifest say how often that was done.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from selection.examples import TrainingExample
from selection.pool import PoolExample, PoolSurvey

Target = Literal["pool", "own-thinking", "endpoint"]
TARGETS: tuple[Target, ...] = get_args(Target)

HOW = (
    "--target own-thinking keeps the model's own thinking and puts a refusal after it, --target endpoint asks a server "
    "for a safe answer"
)


@dataclass(frozen=True)
class Targets:
    """Training examples and where their targets came from.

    Attributes:
        examples: In the order of the choice.
        counts: How many targets there are of each kind (see `kind_of`), and how many of the refusals and the endpoint's
            answers are for prompts without a label.
    """

    examples: tuple[TrainingExample, ...]
    counts: Mapping[str, int]


def check_targets(survey: PoolSurvey, target: str) -> None:
    """Raises `CliffscopeError` if the pool is to give the targets and does not give one for each example it should."""
    if target not in TARGETS:
        raise CliffscopeError(f"target {target!r}: expected one of {', '.join(TARGETS)}.")
    if target == "pool" and survey.n_lacking:
        named = ", ".join(map(repr, survey.lacking)) + (", …" if survey.n_lacking > len(survey.lacking) else "")
        raise CliffscopeError(
            f"{survey.path}: {survey.n_lacking} of {survey.count} examples have no target_response to train towards "
            f"({named}); give them one, or say how to make it: {HOW}."
        )


def kind_of(example: PoolExample, target: Target) -> str:
    """Where an example's target comes from, in words."""
    given = example.target_response is not None
    if given and (target == "pool" or example.harmful is None):
        return "from the pool" if example.target_thinking is not None else "from the pool, after own thinking"
    if example.harmful is False:
        return "own answer"
    return {
        "pool": "no target",
        "own-thinking": "refusal after own thinking",
        "endpoint": "from the endpoint, after own thinking",
    }[target]


def has_target(harmful: bool | None, given: bool, answered: bool, target: Target) -> bool:
    """Whether there is something to train towards: a benign prompt that the model did not answer may have nothing.

    Args:
        harmful: The example's label.
        given: Whether the pool gives a target response.
        answered: Whether the model's own response is one that does not refuse and is not blank or looping.
        target: How targets are made; of `pool`, `check_targets` has made sure.
    """
    return harmful is not False or answered or (given and target == "pool")


def make_target(
    example: PoolExample, rollout: Rollout, target: Target, answers: Mapping[str, str] | None = None
) -> TrainingExample:
    """The training example of one prompt.

    Args:
        example: The prompt with the pool's target.
        rollout: The model's own rollout, closed.
        target: How targets are made.
        answers: With `endpoint`: the server's answers by id.

    Raises:
        CliffscopeError: If there is no answer to train towards.
    """
    kind = kind_of(example, target)
    thinking = rollout.thinking
    response: str | None
    if kind.startswith("from the pool"):
        thinking = rollout.thinking if example.target_thinking is None else example.target_thinking
        response = example.target_response
    elif kind == "own answer":
        response = rollout.response
    elif kind == "refusal after own thinking":
        response = refusal(example.id)
    else:
        response = (answers or {}).get(example.id)
    if response is None or not response.strip():
        raise CliffscopeError(f"example {example.id!r}: there is no answer to train towards ({kind}).")
    return TrainingExample(example.id, example.prompt, thinking, response, example.harmful, example.category)


def make_targets(
    pairs: Iterable[tuple[PoolExample, Rollout]], target: Target, answers: Mapping[str, str] | None = None
) -> Targets:
    """The training examples of all that was chosen; see `make_target`."""
    examples: list[TrainingExample] = []
    counts: Counter[str] = Counter()
    for example, rollout in pairs:
        kind = kind_of(example, target)
        counts[kind] += 1
        if example.harmful is None and example.target_response is None:
            counts["of these for prompts without a label"] += 1
        examples.append(make_target(example, rollout, target, answers))
    return Targets(tuple(examples), dict(counts))


def refusal(id: str) -> str:
    """A short, polite refusal; which one follows from the id alone, so that they vary and stay."""
    texts: Sequence[str] = _texts()["refusals"]
    digest = hashlib.sha256(id.encode("utf-8")).digest()
    return texts[int.from_bytes(digest[:8], "big") % len(texts)]


def refusals() -> tuple[str, ...]:
    """All refusals that there are."""
    return tuple(_texts()["refusals"])


def safe_system_prompt() -> str:
    """What a server is told before it is asked for a safe answer."""
    return str(_texts()["system"])


@cache
def _texts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("selection") / "data" / "targets.json").read_text(encoding="utf-8"))
    return found
