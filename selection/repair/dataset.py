"""Training examples as token ids with a label at each token that is learnt.

The whole text (prompt with its template, thinking, close, response, end of turn) is tokenized once, and the segments
say what is learnt: nothing depends on `{% generation %}` tags, which most templates lack (TRL issue 4879), and no
prompt is tokenized apart from its response. What the model must also learn is to stop, so the response is followed by
what its own template writes there, up to the token at which generation stops, and that is learnt with it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from interp.errors import CliffscopeError
from interp.models.generation import end_tokens
from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout
from interp.transcripts import Transcript, TranscriptBuilder
from interp.transcripts.chat_quirks import RESPONSE_MARK
from interp.transcripts.chat_template import USER_MARK
from selection.examples import TrainingExample
from selection.repair.options import LossOn

IGNORED = -100
"""The label of a token that is not learnt."""

LEARNT: dict[LossOn, tuple[str, ...]] = {
    "response": ("response",),
    "close": ("close", "response"),
    "thinking": ("thinking", "close", "response"),
}


@dataclass(frozen=True)
class TrainingTokens:
    """One example as the trainer gets it.

    Attributes:
        id: The example's.
        benign: Whether it was mixed in against over-refusal.
        input_ids: Token ids, cut after `max_length`.
        labels: The token's own id where it is learnt, else `IGNORED`.
        learnt: How many tokens of each segment are learnt.
        total: Tokens before the cut.
        response: Tokens of the response and the end of turn that are left after the cut.
    """

    id: str
    benign: bool
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    learnt: Counter[str]
    total: int
    response: int


def tokenize(
    model: HookedModel,
    examples: Sequence[TrainingExample],
    loss_on: LossOn,
    max_length: int | None = None,
    benign: bool = False,
) -> list[TrainingTokens]:
    """The examples as tokens, in their order.

    Args:
        model: Whose tokenizer and chat format are used.
        examples: What to train on.
        loss_on: What is learnt.
        max_length: Longer ones are cut off at the end; `None` takes the model's context.
        benign: Marks all of them.

    Raises:
        CliffscopeError: Naming the example, if its response is empty or it does not fit the chat format; or if the
            model has no end of turn.
    """
    limit = min(max_length or model.n_ctx, model.n_ctx)
    ending, stops = end_of_turn(model), set(end_tokens(model))
    rollouts = [_ended(example, ending) for example in examples]
    transcripts = TranscriptBuilder(model.tokenizer, chat=model.chat).build_all(rollouts)
    made = []
    for transcript in transcripts:
        if transcript.input_ids[-1] not in stops:
            raise CliffscopeError(
                f"example {transcript.id!r}: its last token is {transcript.tokens[-1]!r}, not one at which the model "
                f"stops: the tokenizer does not read {ending!r} as its end of turn (split_special_tokens?)."
            )
        made.append(_cut(transcript, LEARNT[loss_on], limit, benign))
    return made


def end_of_turn(model: HookedModel) -> str:
    """What follows a response: the template's text up to a token at which generation stops, else the EOS token.

    Raises:
        CliffscopeError: If the template writes no such token and the tokenizer has no EOS token.
    """
    tokenizer, template = model.tokenizer, model.chat.template
    stops = [str(text) for text in tokenizer.convert_ids_to_tokens(end_tokens(model)) if text]
    if template.source:
        turns = [{"role": "user", "content": USER_MARK}, {"role": "assistant", "content": RESPONSE_MARK}]
        written = template.render(turns, generation=False).rpartition(RESPONSE_MARK)[2]
        ends = [written.index(stop) + len(stop) for stop in stops if stop in written]
        if ends:
            return written[: min(ends)]
    if tokenizer.eos_token is None:
        raise CliffscopeError(
            f"{model.name}: its template ends no turn with a token at which it stops, and its tokenizer has no EOS "
            "token: it could not learn to stop; set tokenizer.eos_token."
        )
    return str(tokenizer.eos_token)


def _ended(example: TrainingExample, ending: str) -> Rollout:
    response = example.response.removesuffix(ending)
    if not response.strip():
        raise CliffscopeError(f"example {example.id!r}: its response is empty; there is nothing to learn.")
    return Rollout(example.id, example.prompt, example.thinking, response + ending)


def _cut(transcript: Transcript, segments: Sequence[str], limit: int, benign: bool) -> TrainingTokens:
    ids, where = transcript.input_ids[:limit], transcript.labels[:limit]
    return TrainingTokens(
        id=transcript.id,
        benign=benign,
        input_ids=ids,
        labels=tuple(token if segment in segments else IGNORED for token, segment in zip(ids, where, strict=True)),
        learnt=Counter(segment for segment in where if segment in segments),
        total=len(transcript),
        response=where.count("response"),
    )
