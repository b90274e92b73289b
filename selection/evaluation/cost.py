"""What a change costs where nothing should have changed: KL to the base, and the perplexity of benign thinking."""

from collections.abc import Sequence

import numpy as np

from interp.rollouts import Rollout
from interp.transcripts import TranscriptBuilder
from interventions.behaviour import drift
from selection.evaluation.estimate import Estimate
from selection.evaluation.subject import EvaluationOptions, Subject
from selection.loss import mean_loss


def measure_kl(subject: Subject, reference: Subject, benign: Sequence[Rollout], options: EvaluationOptions) -> Estimate:
    """KL(reference ‖ subject) on the reference's benign answers: see `interventions.behaviour.drift`.

    Args:
        subject: The changed model.
        reference: The unchanged one; the same model without interventions, or another with the same tokens.
        benign: Rollouts of the reference; those without an edge or a response are left out.
        options: Seed of the interval, token budget.
    """
    closed = [r for r in _that_fit(subject, reference, benign) if r.thinking is not None and r.response]
    if not closed:
        return Estimate.undefined("no benign rollout of the base has thinking that ends and a response")
    changes = tuple(subject.interventions.values())
    values = drift(subject.model, closed, changes, base=reference.model, batch_tokens=options.batch_tokens)
    return Estimate.of(values.astype(np.float64), np.ones(len(values)), seed=options.seed)


def measure_perplexity(
    subject: Subject, reference: Subject, benign: Sequence[Rollout], options: EvaluationOptions
) -> Estimate:
    """The perplexity of the thinking in rollouts, to a model: exp of its mean loss over all their thinking tokens.

    Args:
        subject: Whose perplexity.
        reference: Whose rollouts.
        benign: The rollouts; those without thinking are left out.
        options: Seed of the interval, token budget.
    """
    builder = reference.model.transcripts()
    transcripts = [t for t in builder.build_all(_that_fit(subject, reference, benign)) if "thinking" in t.segments]
    if not transcripts:
        return Estimate.undefined("no benign rollout of the base has thinking")
    with subject.active() as model:
        losses = np.array(mean_loss(model, transcripts, "thinking", batch_tokens=options.batch_tokens))
    sizes = np.array([float(len(t.indices("thinking"))) for t in transcripts])
    return Estimate.of(losses * sizes, sizes, exponential=True, seed=options.seed)


def _that_fit(subject: Subject, reference: Subject, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Rollouts that the context of both models holds: text cut off there may be written in more tokens when read."""
    builder = TranscriptBuilder(reference.model.tokenizer, chat=reference.model.chat)
    longest = min(subject.model.n_ctx, reference.model.n_ctx)
    transcripts = builder.build_all(rollouts)
    return [rollout for rollout, t in zip(rollouts, transcripts, strict=True) if len(t) <= longest]
