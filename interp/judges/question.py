"""What a judging model is asked: a text with places for the prompt and the response, bundled or the user's own file."""

import hashlib
import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from interp.errors import CliffscopeError

# Two names for each place, because published texts of the HarmBench form use the second.
_PROMPT, _RESPONSE = ("prompt", "behavior"), ("response", "generation")
_PLACE = re.compile(r"\{(prompt|behavior|response|generation|mark)\}")


@dataclass(frozen=True)
class Question:
    """A text with a place for the prompt and one for the response.

    The places are `{prompt}` or `{behavior}`, and `{response}` or `{generation}`; other braces stand for themselves.
    `{mark}`, where there is one, becomes a word that depends on both texts: a response cannot know it, and so cannot
    pretend to end where the text says that a response ends.

    Attributes:
        name: What to call it in results.
        text: The text.

    Raises:
        CliffscopeError: If a place is missing.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        found = set(_PLACE.findall(self.text))
        for names in (_PROMPT, _RESPONSE):
            if not found & set(names):
                raise CliffscopeError(f"{self.name}: the text has no place {' or '.join(f'{{{n}}}' for n in names)}.")

    @classmethod
    def bundled(cls, name: str) -> "Question":
        """A text that comes with the package."""
        return cls(name, (files("interp.judges.data") / f"{name}.txt").read_text(encoding="utf-8").strip())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Question":
        """The user's own text.

        Raises:
            CliffscopeError: If there is no such file, or it lacks a place.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CliffscopeError(f"{os.fspath(path)}: no such file.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise CliffscopeError(f"{os.fspath(path)}: cannot be read as text ({error}).") from error
        return cls(os.fspath(path), text)

    @property
    def fingerprint(self) -> str:
        """The beginning of the text's SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    def ask(self, prompt: str, response: str) -> str:
        """The text with both put in, each once and as it is, whatever braces it has."""
        mark = hashlib.sha256(f"{prompt}\x00{response}".encode()).hexdigest()[:8]
        values = {**dict.fromkeys(_PROMPT, prompt), **dict.fromkeys(_RESPONSE, response), "mark": mark}
        return _PLACE.sub(lambda place: values[place[1]], self.text)
