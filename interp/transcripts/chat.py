"""How one model's conversations look as text: prompt, thinking and response, and back again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.transcripts.chat_quirks import (
    Opening,
    find_opening,
    find_quirks,
    find_thinking,
    template_writes_bos,
    tokenizer_adds_bos,
)
from interp.transcripts.chat_template import ChatTemplate, RenderedPrompt, thinking_switch
from interp.transcripts.thinking import ThinkingFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ChatFormat", "RolloutText", "ThinkingFormat"]


@dataclass(frozen=True)
class RolloutText:
    """A rollout as one text.

    Attributes:
        text: The whole text.
        spans: `(segment, start, stop)` in characters, in order, without gaps, none of them empty.
        prompt_stop: Where the rendered prompt with its generation prompt ends, in characters.
        thinking_state: `closed`, `empty`, `unclosed` or `absent`.
    """

    text: str
    spans: tuple[tuple[str, int, int], ...]
    prompt_stop: int
    thinking_state: str


class ChatFormat:
    """How one model's conversations look as text. Made by `ChatFormat.of`.

    Attributes:
        template: The chat template with its options.
        thinking: The tags around the thinking.
        tags_told: Whether the tags come from the template or the user, as opposed to the default.
        opening: How the generation prompt leaves the thinking, without a system prompt.
    """

    def __init__(self, template: ChatTemplate, thinking: ThinkingFormat, tags_told: bool, opening: Opening) -> None:
        self.template = template
        self.thinking = thinking
        self.tags_told = tags_told
        self.opening = opening

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        thinking: ThinkingFormat | None = None,
        enable_thinking: bool | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> "ChatFormat":
        """The format of a tokenizer.

        Args:
            tokenizer: With or without a chat template; without one the prompt's text is the whole prompt.
            thinking: The tags; `None` finds them in the template, and assumes `<think>` where it shows none.
            enable_thinking: Given on to the template; `None` leaves the template's default.
            options: More variables for the template, such as `{"reasoning_effort": "high"}`.

        Raises:
            CliffscopeError: If the template cannot be rendered or does not write the user's message once.
        """
        # The tags are the same with thinking switched off, but only the default shows them.
        found = thinking or find_thinking(ChatTemplate(tokenizer, options))
        switch = {} if enable_thinking is None else thinking_switch(enable_thinking)
        template = ChatTemplate(tokenizer, {**(options or {}), **switch})
        tags = found or ThinkingFormat()
        after = template.frame()[1] if template.source else ""
        return cls(template, tags, found is not None, find_opening(after, tags))

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(self.template.source)

    def require_template(self) -> None:
        """Raises `CliffscopeError` if the tokenizer has no chat template."""
        if not self.has_template:
            raise CliffscopeError(
                f"{self.template.name}: the tokenizer has no chat template: set tokenizer.chat_template, or use the "
                "instruction-tuned model."
            )

    @cached_property
    def quirks(self) -> tuple[str, ...]:
        """Sentences on what a user of this tokenizer should know."""
        return find_quirks(self.template, self.thinking, self.tags_told)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether a BOS is still to be put before the text: the tokenizer wants one, the template writes none."""
        return tokenizer_adds_bos(self.template) and not template_writes_bos(self.template)

    def render(self, prompt: str, system: str | None = None) -> RenderedPrompt:
        """The prompt with its template, and where system prompt and instruction are in it.

        Raises:
            CliffscopeError: If the template refuses it, or there is a system prompt and no place for it.
        """
        return self.template.prompt(prompt, system)

    def prompt_text(self, prompt: str, system: str | None = None) -> str:
        """The prompt with its template and generation prompt; raises as `render`."""
        return self.render(prompt, system).text

    def rollout_text(self, rollout: Rollout, system: str | None = None) -> RolloutText:
        """The whole text of a rollout with the characters of each segment.

        Line breaks around thinking and response are replaced by the canonical ones (see `interp.transcripts.thinking`).

        Raises:
            CliffscopeError: If the rollout does not fit the format: it has no thinking but the template opens it, or
                it has thinking but the template switches it off; or as `render`.
        """
        try:
            prompt = self.render(rollout.prompt, system)
        except CliffscopeError as error:
            raise CliffscopeError(f"rollout {rollout.id!r}: {error}") from error
        # Asked for each prompt: some templates read a switch in the system prompt or in the prompt itself.
        after = prompt.text[prompt.instruction[1] :] if self.has_template else ""
        state, tail = self._tail(rollout, find_opening(after, self.thinking))
        pieces = [*_prompt_pieces(prompt), *tail]
        spans, stop = [], 0
        for segment, piece in pieces:
            if piece:
                spans.append((segment, stop, stop + len(piece)))
                stop += len(piece)
        return RolloutText("".join(piece for _, piece in pieces), tuple(spans), len(prompt.text), state)

    def _tail(self, rollout: Rollout, opening: Opening) -> tuple[str, list[tuple[str, str]]]:
        """The thinking's state, and `(segment, text)` of what follows the prompt."""
        tags = self.thinking
        response = None if rollout.response is None else tags.trim_response(rollout.response)
        answer = [("response", response)] if response is not None else []
        if rollout.thinking is None:
            if opening.opened and response is not None:
                raise CliffscopeError(
                    f"rollout {rollout.id!r}: it has no thinking, but the chat template of {self.template.name} opens "
                    f'the thinking: set its thinking to "" if the model closed it at once.'
                )
            return "absent", answer
        thinking = tags.trim_thinking(rollout.thinking, closed=response is not None)
        if opening.finished:
            if thinking or response is None:
                raise CliffscopeError(
                    f"rollout {rollout.id!r}: it has thinking, but the chat template of {self.template.name} "
                    "switches thinking off: leave enable_thinking as it was when the rollout was generated."
                )
            return "absent", answer
        state = "unclosed" if response is None else "closed" if thinking else "empty"
        close = [] if response is None else [("close", tags.close)]
        return state, [("template", opening.rest), ("thinking", thinking), *close, *answer]

    def split(self, generated: str) -> tuple[str | None, str | None]:
        """`(thinking, response)` of what the model wrote after the prompt; see `ThinkingFormat.split`."""
        return self.thinking.split(generated, self.opening.opened, self.opening.finished)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids up to the first special token that is not part of a thinking tag.

        Special tokens are kept while decoding: in some models the thinking tags are special tokens, and
        `skip_special_tokens=True` would make the thinking a part of the response.
        """
        tokenizer = self.template.tokenizer
        tags = self.thinking.open + self.thinking.close
        special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        ends = {i for i, token in special.items() if token not in tags and i != tokenizer.unk_token_id}
        length = next((n for n, i in enumerate(ids) if i in ends), len(ids))
        return str(tokenizer.decode(list(ids[:length]), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _prompt_pieces(prompt: RenderedPrompt) -> Iterator[tuple[str, str]]:
    """`(segment, text)` of the rendered prompt, in order, with the template in between."""
    stop = 0
    for segment, (start, end) in sorted(
        [("system", prompt.system), ("instruction", prompt.instruction)], key=lambda item: item[1]
    ):
        if end > start:
            yield "template", prompt.text[stop:start]
            yield segment, prompt.text[start:end]
            stop = end
    yield "template", prompt.text[stop:]
