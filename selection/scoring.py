"""Scoring a pool's examples: the model's own rollout on each prompt, and the cliff in it.

For each example the model's rollout is taken from the pool or generated greedily, judged by keywords, and measured:
plateau, edge, cliff and fall (`probes.cliff`). A rollout without an edge (thinking absent, empty or never closed) is
kept with the reason and ranked nowhere.

Labels play no part in it: a pool may be benign, refused and complied prompts mixed as they were found. Benign prompts
have no plateau to fall from and refused ones keep theirs at the edge, so the cliff ranks them low by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from interp.errors import CliffscopeError
from interp.judges import Judge, KeywordJudge, judged
from interp.judges.useless import is_useless
from interp.models.capture import BATCH_TOKENS
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.transcripts import Transcript, TranscriptBuilder
from probes.cliff import Plateau, measure
from probes.linear import LinearProbe
from probes.trajectory import check_probe, score_trajectories
from selection.loss import mean_loss
from selection.pool import PoolExample
from selection.targets import Target, has_target, make_target

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured on one example's rollout.

    Attributes:
        id: The example's.
        harmful, category: As the pool says.
        outcome: `complied`, `refused`, `benign`, …, by keywords; see `Rollout.outcome`.
        refused: Whether the response refuses, by keywords; `None` if there is none to judge.
        judged: The same by the judge that was asked beside the keywords; `None` without one.
        answered: Whether the response does not refuse, by keywords, and is not blank or looping.
        plateau, edge, cliff: As in `RolloutCliff`; `None` without an edge.
        fall: The cliff in log-odds.
        n_tokens: Of the whole transcript; `None` if there is none.
        loss: Mean loss of the target response in nats a token; `None` if it was not asked for.
        own: Whether the rollout came with the pool.
        given: Whether the pool gives a target response.
        unscorable: Why there is no cliff; `None` if there is one.
    """

    id: str
    harmful: bool | None
    category: str | None
    outcome: str
    refused: bool | None
    judged: bool | None
    answered: bool
    plateau: float | None
    edge: float | None
    cliff: float | None
    fall: float | None
    n_tokens: int | None
    loss: float | None
    own: bool
    given: bool
    unscorable: str | None


SCORE_FIELDS = tuple(field.name for field in fields(Score))


@dataclass(frozen=True)
class Scored:
    """An example's score, with the rollout that it was measured on."""

    score: Score
    rollout: Rollout

    def as_row(self) -> dict[str, Any]:
        """One line of a file of scores; `score_from_row` and `rollout_from_score_row` read it."""
        texts = {"prompt": self.rollout.prompt, "thinking": self.rollout.thinking, "response": self.rollout.response}
        return {**asdict(self.score), **texts, "model": self.rollout.model}


@dataclass(frozen=True)
class Scorer:
    """Scores examples with a model and a probe.

    Attributes:
        model: The model.
        probe: A refusal probe of the model.
        max_new_tokens: Most tokens to generate, thinking included.
        plateau: `mean` or `max` over the second half of the thinking.
        judge: Asked beside the keywords, for selection by judge.
        loss_target: Measures the loss of the target response, made in this way; `None` for no loss.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If the probe was made for another model, or the loss of answers is asked for that a server
            would have to give first.
    """

    model: "HookedModel"
    probe: LinearProbe
    max_new_tokens: int = 512
    plateau: Plateau = "mean"
    judge: Judge | None = None
    loss_target: Target | None = None
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        check_probe(self.model, self.probe)
        if self.loss_target == "endpoint":
            raise CliffscopeError(
                "ranking by loss needs a target for the whole pool, and an endpoint is asked only for what is chosen; "
                "use --target pool or own-thinking."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on, beside the pool and the probe."""
        return {
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_new_tokens": self.max_new_tokens,
            "plateau": self.plateau,
            "keywords": KeywordJudge().name,
            "judge": self.judge.name if self.judge else None,
            "loss_target": self.loss_target,
        }

    def score(self, examples: Sequence[PoolExample]) -> list[Scored]:
        """One result for each example, in their order.

        Raises:
            CliffscopeError: If the model's activations are NaN or infinite, or the judge fails.
        """
        rollouts, problems = self._rollouts(examples)
        rollouts = judged(rollouts, KeywordJudge())
        verdicts = [rollout.refused for rollout in judged(rollouts, self.judge)] if self.judge else []
        transcripts, more = self._transcripts(rollouts, problems)
        problems |= more
        scorable = [index for index in range(len(examples)) if index not in problems]
        measured = self._measure(rollouts, transcripts, scorable)
        losses = self._losses(examples, rollouts, scorable)
        return [
            Scored(
                Score(
                    id=example.id,
                    harmful=example.harmful,
                    category=example.category,
                    outcome=rollout.outcome,
                    refused=rollout.refused,
                    judged=verdicts[index] if verdicts else None,
                    answered=rollout.refused is False and not is_useless(rollout),
                    **measured.get(index, dict.fromkeys(("plateau", "edge", "cliff", "fall"))),
                    n_tokens=len(transcripts[index]) if index in transcripts else None,
                    loss=losses.get(index),
                    own=example.rollout is not None,
                    given=example.target_response is not None,
                    unscorable=problems.get(index),
                ),
                rollout,
            )
            for index, (example, rollout) in enumerate(zip(examples, rollouts, strict=True))
        ]

    def _rollouts(self, examples: Sequence[PoolExample]) -> tuple[list[Rollout], dict[int, str]]:
        """The model's own rollouts, given or generated, and why some cannot be."""
        builder = self._builder()
        missing: list[int] = []
        problems: dict[int, str] = {}
        for index, example in enumerate(examples):
            if example.rollout is not None:
                continue
            try:
                fits = len(builder.prompt(example.prompt, example.id)) < self.model.n_ctx
            except CliffscopeError:
                problems[index] = "prompt does not fit the chat template"
                continue
            if fits:
                missing.append(index)
            else:
                problems[index] = "prompt longer than the context"
        generator = ModelGenerator(self.model, self.max_new_tokens)
        made = dict(zip(missing, generator.generate([examples[i].as_prompt() for i in missing]), strict=True))
        empty = [example.as_prompt().rollout(None, None) for example in examples]
        return [example.rollout or made.get(i) or empty[i] for i, example in enumerate(examples)], problems

    def _transcripts(
        self, rollouts: Sequence[Rollout], problems: dict[int, str]
    ) -> tuple[dict[int, Transcript], dict[int, str]]:
        """The rollouts as tokens by index, and why some have no edge to measure at."""
        builder = self._builder()
        transcripts: dict[int, Transcript] = {}
        more: dict[int, str] = {}
        for index, rollout in enumerate(rollouts):
            if index in problems:
                continue
            try:
                transcripts[index] = builder.build(rollout)
            except CliffscopeError:
                absent = rollout.thinking is None
                more[index] = "thinking absent" if absent else "rollout does not fit the chat template"
                continue
            if reason := self._no_edge(transcripts[index]):
                more[index] = reason
        return transcripts, more

    def _no_edge(self, transcript: Transcript) -> str | None:
        if transcript.thinking_state != "closed":
            return f"thinking {transcript.thinking_state}"
        if "close" not in transcript.segments or "thinking" not in transcript.segments:
            return "thinking or close without a token of its own"
        return "longer than the context" if len(transcript) > self.model.n_ctx else None

    def _builder(self) -> TranscriptBuilder:
        """One without a limit: what is too long is a result here, not an error."""
        return TranscriptBuilder(self.model.tokenizer, chat=self.model.chat)

    def _measure(
        self, rollouts: Sequence[Rollout], transcripts: dict[int, Transcript], scorable: Sequence[int]
    ) -> dict[int, dict[str, Any]]:
        # What follows the edge cannot matter to what is read up to it.
        cut = [transcripts[index].until_edge() for index in scorable]
        measured: dict[int, dict[str, Any]] = {}
        for row, trajectory in score_trajectories(self.model, self.probe, cut, batch_tokens=self.batch_tokens):
            index = scorable[row]
            found = measure(trajectory, rollouts[index].outcome, rollouts[index].category, self.plateau)
            measured[index] = {name: getattr(found, name) for name in ("plateau", "edge", "cliff", "fall")}
        return measured

    def _losses(
        self, examples: Sequence[PoolExample], rollouts: Sequence[Rollout], scorable: Sequence[int]
    ) -> dict[int, float]:
        """The loss of the target response by index, for those that have a target which fits the context."""
        if self.loss_target is None:
            return {}
        builder = self._builder()
        targets: dict[int, Transcript] = {}
        for index in scorable:
            example, rollout = examples[index], rollouts[index]
            answered = rollout.refused is False and not is_useless(rollout)
            if not has_target(example.harmful, example.target_response is not None, answered, self.loss_target):
                continue
            made = make_target(example, rollout, self.loss_target)
            transcript = builder.build(made.as_rollout())
            if len(transcript) <= self.model.n_ctx:
                targets[index] = transcript
        losses = mean_loss(self.model, list(targets.values()), batch_tokens=self.batch_tokens)
        return {index: loss for index, loss in zip(targets, losses, strict=True) if not math.isnan(loss)}


def score_from_row(row: dict[str, Any]) -> Score:
    """The score of one line of a file of scores."""
    return Score(**{name: row[name] for name in SCORE_FIELDS})


def rollout_from_score_row(row: dict[str, Any]) -> Rollout:
    """The rollout of one line of a file of scores."""
    texts = {key: row[key] for key in ("prompt", "thinking", "response", "model")}
    return Rollout(id=row["id"], harmful=row["harmful"], category=row["category"], refused=row["refused"], **texts)
