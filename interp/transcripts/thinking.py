"""The tags around a model's thinking, and cutting generated text into thinking and response at them.

Models close their thinking with slightly different white space from one answer to the next, and servers hand out the
thinking with or without it. One rule makes all of these the same text again: the line breaks around a tag
belong to the tag. They are taken off when text is split, and `open` and `close` put the canonical ones back.
"""

from dataclasses import dataclass

from interp.errors import CliffscopeError


@dataclass(frozen=True)
class ThinkingFormat:
    """The canonical texts that open and close the thinking, with the line breaks that belong to them.

    Attributes:
        open: What stands between the assistant's header and the thinking.
        close: What stands between the thinking and the response.

    Raises:
        CliffscopeError: If either is blank, or both have the same tag.
    """

    open: str = "<think>\n"
    close: str = "\n</think>\n\n"

    def __post_init__(self) -> None:
        if not self.open_tag or not self.close_tag:
            raise CliffscopeError(
                f"thinking tags {self.open!r} and {self.close!r}: a tag must hold more than white space."
            )
        if self.open_tag == self.close_tag:
            raise CliffscopeError(f"thinking tags: open and close must differ, both are {self.open_tag!r}.")

    @property
    def open_tag(self) -> str:
        """The opening tag without white space around it."""
        return self.open.strip()

    @property
    def close_tag(self) -> str:
        """The closing tag without white space around it."""
        return self.close.strip()

    @property
    def breaks(self) -> str:
        r"""The characters that belong to a tag when they stand beside it.

        Line breaks, and whatever other white space the canonical tags carry. A space is not among them as a rule:
        in `</think> Sure` it is part of the first word's token.
        """
        around = self.open.replace(self.open_tag, "", 1) + self.close.replace(self.close_tag, "", 1)
        return "".join(sorted(set("\r\n" + around)))

    def trim_thinking(self, thinking: str, closed: bool = True) -> str:
        """The thinking without the line breaks that belong to the tags; `""` if it is blank.

        Args:
            thinking: The text between the tags.
            closed: Whether a closing tag follows; if not, the end is kept as it was cut off.
        """
        if not thinking.strip():
            return ""
        return thinking.strip(self.breaks) if closed else thinking.lstrip(self.breaks)

    def trim_response(self, response: str) -> str:
        """The response without the line breaks before it, which belong to the closing tag."""
        return response.lstrip(self.breaks)

    def split(self, generated: str, opened: bool = False, finished: bool = False) -> tuple[str | None, str | None]:
        """Cuts what a model wrote after its prompt into `(thinking, response)`.

        Everything before the first closing tag is thinking, also when the model left the opening tag out. Line
        breaks beside the tags are taken off, so that `open + thinking + close + response` is the canonical text
        whatever white space the model used; canonical text comes back character for character.

        Args:
            generated: The text after the prompt, decoded without dropping special tokens.
            opened: Whether the prompt itself ends with the opening tag.
            finished: Whether the prompt itself opens and closes the thinking (thinking switched off).

        Returns:
            `(thinking, response)`; `(thinking, None)` if the thinking is never closed; `(None, response)` if there
            is none.
        """
        body, text, wrote_open = generated, generated.lstrip(), False
        while text.startswith(self.open_tag):  # some models write it after a prompt that wrote it, too
            body, wrote_open = text[len(self.open_tag) :], True
            text = body.lstrip()
        if finished and not wrote_open:
            return None, self.trim_response(generated)
        thinking, closed, response = body.partition(self.close_tag)
        if closed:
            return self.trim_thinking(thinking), self.trim_response(response)
        if opened or wrote_open:
            return self.trim_thinking(body, closed=False), None
        return None, self.trim_response(generated)
