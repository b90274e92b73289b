"""What a classifier model reads of a rollout: its own chat template around the conversation, or one text with both."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from interp.errors import CliffscopeError
from interp.judges.question import Question
from interp.rollouts import Rollout
from interp.transcripts import Transcript
from interp.transcripts.chat_quirks import tokenizer_adds_bos
from interp.transcripts.chat_template import SYSTEM_MARK, USER_MARK, ChatTemplate
from interp.transcripts.offsets import Encoder

FORMS = ("llama-guard", "harmbench")


@dataclass(frozen=True)
class ClassifierInput:
    """Makes a classifier's input of a rollout; the thinking is never part of it.

    Attributes:
        tokenizer: The classifier's.
        form: `llama-guard`: prompt and response as a conversation. `harmbench`: `question` with both in it.
        question: The text of the `harmbench` form; the bundled one if not given.
        raw: Whether `question` is the whole input, with its own marks of roles. Otherwise it is put into the chat
            template as the user's message, where there is a template.

    Raises:
        CliffscopeError: If the form is unknown, a question is given where the form has none, or the chat template is
            missing or does not show the conversation.
    """

    tokenizer: Any
    form: str = "llama-guard"
    question: Question | None = None
    raw: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise CliffscopeError(f"classifier form {self.form!r}: expected one of {', '.join(FORMS)}.")
        if self.form == "llama-guard" and (self.question is not None or self.raw):
            raise CliffscopeError("a text of one's own is for the harmbench form; llama-guard brings its template.")
        _ = self._as_parts  # so that a template that cannot be used is told now

    @property
    def fingerprint(self) -> str:
        """The form, and a checksum of the question."""
        return f"harmbench:{self._text.fingerprint}{':raw' * self.raw}" if self.form == "harmbench" else self.form

    def of(self, rollout: Rollout) -> Transcript:
        """The tokens, with one BOS if the tokenizer wants one."""
        response = rollout.response or ""
        if self.form == "llama-guard":
            text = self._render(rollout.prompt, response)
        else:
            text = self._text.ask(rollout.prompt, response)
            if self._template.source and not self.raw:
                text = self._render(text)
        ids = self._encoder.encode_all([text])[0][0]
        bos = self.tokenizer.bos_token_id
        return Transcript.from_ids(rollout.id, [bos, *ids] if self._adds_bos and ids[:1] != [bos] else ids)

    def _render(self, *turns: str, as_parts: bool | None = None) -> str:
        """The chat template around turns of user and assistant, ending where the classifier is to write."""
        parts = self._as_parts if as_parts is None else as_parts
        contents = [[{"type": "text", "text": turn}] if parts else turn for turn in turns]
        roles = ("user", "assistant")
        return self._template.render([{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)])

    @cached_property
    def _as_parts(self) -> bool:
        """Whether the template wants a message as a list of parts; the wrong form it may leave out without a word."""
        name = self._template.name
        if not self._template.source and self.form == "llama-guard":
            raise CliffscopeError(
                f"{name}: the tokenizer has no chat template, through which the llama-guard form is asked; use the "
                "harmbench form, or another classifier."
            )
        if not self._template.source or self.raw:
            return False
        marks = (USER_MARK, SYSTEM_MARK) if self.form == "llama-guard" else (USER_MARK,)
        refusal: CliffscopeError | None = None
        for parts in (False, True):
            try:
                text = self._render(*marks, as_parts=parts)
            except CliffscopeError as error:
                refusal = error
                continue
            if all(text.count(mark) == 1 for mark in marks):
                return parts
        raise refusal or CliffscopeError(
            f"{name}: the chat template does not show each text once; is it a classifier of the {self.form} form?"
        )

    @cached_property
    def _text(self) -> Question:
        return self.question or Question.bundled("behaviour_question")

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer)

    @cached_property
    def _adds_bos(self) -> bool:
        return tokenizer_adds_bos(self._template)
