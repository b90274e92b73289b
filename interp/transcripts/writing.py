r"""The segments of tokens while a model writes them, when what follows is not known yet.

A token's label is what can be known when the model has read it, so three things differ from a transcript of the whole
text. Line breaks before the closing tag, and the first tokens of a tag of several, still count as thinking. A thinking
that no opening tag announced counts as response until its closing tag comes. And where the model writes other white
space after the tag than is canonical, the edge shows only when the response has begun: it is told one token late.
"""

from typing import TYPE_CHECKING

from interp.transcripts.chat_quirks import find_opening

if TYPE_CHECKING:
    from interp.transcripts.chat import ChatFormat
    from interp.transcripts.transcript import Transcript


class SegmentWriter:
    """Labels the tokens that follow one prompt, one by one.

    Args:
        chat: The thinking tags, and the tokenizer.
        prompt: The prompt's transcript.

    Attributes:
        labels: The segment of each token so far.
        edge: The token index of the edge, counted from the start of the prompt; `None` until it is reached.
    """

    def __init__(self, chat: "ChatFormat", prompt: "Transcript") -> None:
        self._tags = chat.thinking
        self._tokenizer = chat.template.tokenizer
        self._start = len(prompt)
        instruction = prompt.segments.get("instruction", (0, 0))
        opening = find_opening("".join(prompt.tokens[instruction[1] :]), self._tags)
        self._state = "thinking" if opening.opened else "response" if opening.finished else "unknown"
        self._may_close = not opening.finished
        self._ids: list[int] = []
        self.labels: list[str] = []
        self.edge: int | None = None

    def read(self, token: int) -> str:
        """The segment of the next token."""
        self._ids.append(token)
        if self._state == "unknown":
            label = self._before_thinking()
        elif self._state == "close":
            label = self._after_tag()
        elif self._may_close and self._tags.close_tag in self._tail():
            # Only what is written from here on can be the space after the tag.
            self._ids = self._ids[-len(self._tags.close_tag) :]
            self._state, self._may_close = "close", False
            label = self._after_tag()
        else:
            label = self._state
        self.labels.append(label)
        return label

    def _before_thinking(self) -> str:
        text = self._text(self._ids)
        rest = text.lstrip()
        if rest.startswith(self._tags.open_tag):
            if not rest.removeprefix(self._tags.open_tag).strip(self._tags.breaks):
                return "template"
            self._state = "thinking"
        elif not self._tags.open_tag.startswith(rest):
            self._state = "response"
        else:
            return "template"
        return self._state

    def _after_tag(self) -> str:
        """A token of the closing tag or of the space after it, or the first one of the response."""
        after = self._text(self._ids).partition(self._tags.close_tag)[2]
        canonical = self._tags.close.partition(self._tags.close_tag)[2]
        here = self._start + len(self.labels)
        if not after.strip(self._tags.breaks):
            if after.startswith(canonical):
                self._end_at(here)
            return "close"
        self._end_at(here - 1)
        return "response"

    def _end_at(self, edge: int) -> None:
        self.edge = edge
        self._state = "response"

    def _tail(self) -> str:
        # A token has at least one character of the tag.
        return self._text(self._ids[-len(self._tags.close_tag) :])

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
