"""Rollouts: one prompt with the thinking and the response that a model gave, and their JSON Lines files."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from interp.errors import CliffscopeError
from interp.files import read_jsonl, write_jsonl


@dataclass(frozen=True)
class Rollout:
    """One prompt with the thinking and the response that a model gave.

    Attributes:
        id: Unique in its file.
        prompt: The user's instruction, without any template.
        thinking: The text between the thinking tags, without them and without the line breaks that belong
            to them; `""` if the model closed the tags at once; `None` if it wrote no thinking at all.
        response: The text after the thinking; `None` if the thinking was never closed (the token limit came
            first), so that there is no response to judge.
        harmful: Whether the prompt asks for something harmful; `None` if unknown.
        category: A label of the prompt's kind, for held-out splits; `None` if there is none.
        refused: Whether the response refuses; `None` if not judged or if there is no response.
        source: Where the prompt came from.
        model: What generated the rollout.
    """

    id: str
    prompt: str
    thinking: str | None
    response: str | None
    harmful: bool | None = None
    category: str | None = None
    refused: bool | None = None
    source: str | None = None
    model: str | None = None

    @property
    def outcome(self) -> str:
        """`complied`, `refused` (both of harmful prompts), `benign`, `benign_refused` or `unknown`."""
        if self.harmful is None or self.refused is None:
            return "unknown"
        if self.harmful:
            return "refused" if self.refused else "complied"
        return "benign_refused" if self.refused else "benign"
