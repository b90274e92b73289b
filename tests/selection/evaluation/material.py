"""What the tests of evaluations work on: outcomes by hand, and the prompts of the organisms."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from interp.judges import Judgement
from interp.organisms.prompt_set import as_prompt_set
from interp.organisms.prompts import sample_prompts
from interp.rollouts import Rollout
from interp.rollouts.prompts import PromptSet
from selection.evaluation import Estimate, Evaluation, PromptOutcome

PLANTED = [(3, 1), (4, 5)]
SETTINGS = {"seed": 0, "temperature": 0.0, "max_new_tokens": 300, "dtype": "float32"}


@cache
def prompts(kind: str, n: int) -> PromptSet:
    """Prompts of one kind that no organism was trained on."""
    return as_prompt_set(sample_prompts(kind, n, seed=5))


def outcome(id: str, set: str, refused: bool | None, response: str | None = "Text.", **changed: Any) -> PromptOutcome:
    """The outcome of a judged rollout whose prompt is its id, as text."""
    rollout = Rollout(id, f"prompt {id}", "So.", response, set == "harmful", changed.pop("category", None))
    made = PromptOutcome.of(set, rollout, Judgement(refused, None, ""), lambda text: len(text.split()))
    return replace(made, **changed)


def outcomes(set: str, verdicts: Sequence[bool | None] | Mapping[str, bool | None]) -> list[PromptOutcome]:
    """One a verdict (whether it refused); ids are numbers if there are none."""
    named = verdicts if isinstance(verdicts, Mapping) else {str(i): v for i, v in enumerate(verdicts)}
    return [outcome(id, set, refused) for id, refused in named.items()]


def evaluation(made: Sequence[PromptOutcome], label: str = "base", **changed: Any) -> Evaluation:
    """An evaluation with these outcomes."""
    sets = {o.set for o in made}
    plain = Evaluation(
        label=label,
        model="some/model",
        fingerprint={"architecture": "Any", "weights": "0" * 16},
        interventions=(),
        reference={"model": "some/model", "fingerprint": {}, "weights": "0" * 16, "rollouts": "f" * 64},
        judge="keyword:cliffscope:v1",
        settings=SETTINGS,
        prompts={
            name: {"source": f"{name}.csv", "count": sum(o.set == name for o in made), "sha256": "a" * 64}
            for name in ("harmful", "benign", "traps")
            if name in sets
        },
        outcomes=tuple(made),
        kl=Estimate(0.01, 0.008, 0.012, 5),
        perplexity=Estimate(3.5, 3.1, 3.9, 5),
    )
    return replace(plain, **changed)
