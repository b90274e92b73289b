"""The job of `cliffscope sae steer`: rollouts with latents changed, or an error where that changed nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.rollouts import Rollout
    from interp.rollouts.job import Generate
    from interp.rollouts.prompts import Prompt, PromptSet
    from interventions.latents.changes import LatentChange


def steered_rollouts(
    generator: Any, prompts: "PromptSet", out: Path, change: "LatentChange", batch_size: int, restart: bool
) -> Any:
    """The job, in which a change that changes nothing is an error before OUT is written."""
    from interp.judges import KeywordJudge
    from interp.rollouts.job import run
    from interp.rollouts.job_log import JobLog
    from interventions.latents.acting import LatentsIdleError

    settings = {**generator.settings, "latents": change.summary()}
    generate = _watched(generator.generate, prompts, change)
    try:
        with generator.model.intervene(change):
            return run(prompts, generate, out, settings, batch_size=batch_size, judge=KeywordJudge(), restart=restart)
    except LatentsIdleError:
        # Else a later run would go on from rollouts that nothing was done to.
        with JobLog.open(out.with_name(f".{out.name}.partial"), out) as log:
            log.discard()
        raise


def _watched(generate: "Generate", prompts: "PromptSet", change: "LatentChange") -> "Generate":
    """Raises with the last batch of a job if the change has changed nothing by then.

    A job takes prompts longest first, so the shortest one is in its last batch. What an earlier run, killed before its
    end, had changed is not known; then too nothing is taken on trust.
    """
    from interventions.latents.acting import require_acted

    last = sorted(prompts, key=lambda prompt: len(prompt.text), reverse=True)[-1].id

    def watched(batch: "Sequence[Prompt]") -> "Sequence[Rollout]":
        rollouts = generate(batch)
        if any(prompt.id == last for prompt in batch):
            require_acted(change)
        return rollouts

    return watched
