"""Docstrings may say one thing of several attributes (`plateau, edge: In [0, 1].`); the reference wants one each."""

import re
from typing import Any

import griffe

_SEVERAL = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>\S.*(?:\n(?P=indent) +\S.*)*)$", re.MULTILINE)


class SeveralNames(griffe.Extension):
    """Gives each name a line of its own."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites an object's docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = _SEVERAL.sub(_one_each, obj.docstring.value)


def _one_each(found: re.Match[str]) -> str:
    return "\n".join(f"{found['indent']}{name}: {found['text']}" for name in found["names"].split(", "))
