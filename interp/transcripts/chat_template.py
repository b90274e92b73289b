"""Rendering one prompt through a tokenizer's chat template, and finding the user's text in the result.

The place is found by rendering the template once around a marker: what stands before and after the marker stands
before and after every prompt. So a prompt may be empty, may hold the template's own tags, and may occur in the system
prompt as well, and a template may trim it, without the place being mistaken.

Only the prompt is ever rendered: templates drop or rewrite the thinking of assistant turns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]

# Letters only: nothing that a template would trim, escape or take for a tag.
USER_MARK = "cliffscopeusertext"
SYSTEM_MARK = "cliffscopesystemtext"


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt with its template and generation prompt.

    Attributes:
        text: The whole text.
        system: Characters `[start, stop)` of the system prompt, the template's default one included; empty if none.
        instruction: Characters `[start, stop)` of the user's instruction.
    """

    text: str
    system: Span
    instruction: Span


class ChatTemplate:
    """The chat template of one tokenizer with fixed options.

    Args:
        tokenizer: Any Hugging Face tokenizer.
        options: Variables for the template, such as `{"enable_thinking": False}`.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", options: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.options = dict(options or {})
        self._frames: dict[str | None, tuple[str, str, Span]] = {}

    @property
    def name(self) -> str:
        """The tokenizer's name, for messages."""
        return str(getattr(self.tokenizer, "name_or_path", "") or "tokenizer")

    @property
    def source(self) -> str:
        """The Jinja text of the template that is used; `""` if there is none."""
        try:
            return str(self.tokenizer.get_chat_template()) if self.tokenizer.chat_template else ""
        except ValueError as error:  # several named templates and none called "default"
            raise CliffscopeError(f"{self.name}: no default chat template ({error}).") from error

    def render(self, messages: Sequence[Mapping[str, Any]], generation: bool = True) -> str:
        """The text of a conversation.

        Args:
            messages: `role` and `content` each, in order.
            generation: Whether to end with the header of the assistant's next turn.

        Raises:
            CliffscopeError: If the template refuses the messages, with its own words.
        """
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=generation,
                **self.options,
            )
        except Exception as error:  # the template is foreign code: it may fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CliffscopeError(f"{self.name}: the chat template cannot be rendered ({reason}).") from error
        return str(text)

    def prompt(self, prompt: str, system: str | None = None) -> RenderedPrompt:
        """Renders a prompt with the generation prompt; without a chat template the prompt is the whole text.

        Raises:
            CliffscopeError: If the template refuses the messages, ignores one of them, or changes the user's text so
                that its place cannot be told; or if a system prompt is given and there is no template for it.
        """
        if not self.source:
            if system is not None:
                raise CliffscopeError(
                    f"{self.name}: no chat template, so no place for a system prompt: put it into the prompts."
                )
            return RenderedPrompt(prompt, (0, 0), (0, len(prompt)))
        before, after, system_span = self.frame(system)
        text = self.render(_messages(prompt, system))
        return RenderedPrompt(text, system_span, self._locate(prompt, text, before, after))

    def frame(self, system: str | None = None) -> tuple[str, str, Span]:
        """What stands before and after every user's text, and where the system prompt is in the former.

        Raises:
            CliffscopeError: As `prompt`.
        """
        if system not in self._frames:
            mark = USER_MARK
            while system is not None and mark in system:
                mark += "x"
            parts = self.render(_messages(mark, system)).split(mark)
            if len(parts) != 2:
                raise CliffscopeError(
                    f"{self.name}: the chat template writes the user's message {len(parts) - 1} times, not once: "
                    "set tokenizer.chat_template to one that writes it once."
                )
            before, after = parts
            self._frames[system] = before, after, self._locate_system(before, system)
        return self._frames[system]

    def switched(self, thinking: bool) -> str:
        """What stands after the user's text with thinking switched on or off; `""` if that cannot be rendered."""
        try:
            return ChatTemplate(self.tokenizer, {**self.options, **thinking_switch(thinking)}).frame()[1]
        except CliffscopeError:
            return ""

    def _locate(self, prompt: str, text: str, before: str, after: str) -> Span:
        start, stop = len(before), len(text) - len(after)
        begins, ends = text.startswith(before), text.endswith(after)
        framed = begins and ends and start <= stop
        if framed and text[start:stop] in (prompt, prompt.strip()):
            return start, stop
        # A template that looks at the prompt (or at the clock) changes one side: go by the other one.
        for shown in (prompt, prompt.strip()):
            if begins and text.startswith(shown, start):
                return start, start + len(shown)
            if ends and text.endswith(shown, 0, stop):
                return stop - len(shown), stop
        if framed:
            return start, stop
        raise CliffscopeError(
            f"{self.name}: the chat template changes the user's text {prompt[:40]!r}, so its place cannot be told."
        )

    def _locate_system(self, before: str, system: str | None) -> Span:
        """Where the system prompt is in `before`; for `None`, where the template's default one is."""
        try:
            head, found, rest = self.render(_messages(USER_MARK, SYSTEM_MARK)).partition(SYSTEM_MARK)
        except CliffscopeError:
            if system is not None:
                raise
            return 0, 0  # no system role
        if not found:
            if system is not None:
                raise CliffscopeError(
                    f"{self.name}: the chat template ignores a system prompt: put it into the prompts."
                )
            return 0, 0
        tail = rest.partition(USER_MARK)[0]
        if before.startswith(head) and before.endswith(tail) and len(before) >= len(head) + len(tail):
            return len(head), len(before) - len(tail)
        if system is None:
            return 0, 0  # without a system prompt the template writes no system turn at all
        start = before.find(system.strip())
        if start < 0:
            raise CliffscopeError(
                f"{self.name}: the chat template changes the system prompt, so its place cannot be told."
            )
        return start, start + len(system.strip())


def thinking_switch(thinking: bool) -> dict[str, Any]:
    """The template variables that switch thinking on or off: most families read the first, some the second."""
    return {"enable_thinking": thinking, "thinking": thinking}


def _messages(prompt: str, system: str | None) -> list[dict[str, str]]:
    user = {"role": "user", "content": prompt}
    return [user] if system is None else [{"role": "system", "content": system}, user]
