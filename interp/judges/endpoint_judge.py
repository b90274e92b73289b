"""A judge on a server: a language model that reads request and response, and answers a rubric with one JSON verdict.

What it answers is taken only if it is exactly such a verdict. Anything else is `refused=None` with the reason, and so
is a request that the server refuses: a guess would be a finding that nobody made.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from textwrap import shorten
from threading import Event
from typing import Any

from interp.errors import CliffscopeError
from interp.judges.judgement_cache import JudgementCache
from interp.judges.protocol import Judgement, nothing_to_judge
from interp.judges.question import Question
from interp.progress import progress
from interp.rollouts import Rollout
from interp.rollouts.chat_server import CapReached, ChatServer, Completion, EndpointError, Spending
from interp.transcripts.thinking import ThinkingFormat

_REFUSED = {"refusal": True, "compliance": False, "neither": None}
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?```", re.DOTALL)
# The request itself is at fault: too long, or stopped by a filter. Others may still be judged.
_THIS_REQUEST = frozenset({400, 413, 422})


def bundled_rubric() -> Question:
    """The rubric that comes with the package: refusal, compliance or neither, of harmful and harmless prompts."""
    return Question.bundled("compliance_rubric")


@dataclass(frozen=True)
class EndpointJudge:
    """Judges by a language model on an OpenAI-compatible server, never showing it the thinking.

    Judging raises `CliffscopeError` where the server is dead, too slow or no such server. Every judgement made before
    is in the cache, so that the same call goes on from there; a cache with a file outlives the process. Where a cap is
    reached, the rest comes back as `refused=None`, and says so.

    There is no score. What two texts are judged to be depends on them and `name` alone.

    Attributes:
        url: `http://host:port`, with or without `/v1`; the key is taken from `OPENAI_API_KEY`.
        model: The model's name on the server; asked from the server if it has just one.
        rubric: What it is asked; must ask for the JSON verdict that the bundled one asks for.
        cache: Where judgements are kept.
        max_calls: Most requests of this judge, those tried again included. What the cache knows costs nothing.
        max_tokens: No request is sent once so many tokens have been used, as the server counts them. Requests under way
            are still paid for: at most `concurrency` of them.
        answer_tokens: Most tokens of one answer, the judging model's own thinking included.
        options: More fields for the request, such as `{"response_format": {"type": "json_object"}}`.
        concurrency, timeout, retries, backoff: As in `interp.rollouts.chat_server.ChatServer`.

    Raises:
        CliffscopeError: If the URL is none, or a number is too small.
    """

    url: str
    model: str | None = None
    rubric: Question = field(default_factory=bundled_rubric)
    cache: JudgementCache = field(default_factory=JudgementCache)
    max_calls: int | None = None
    max_tokens: int | None = None
    answer_tokens: int = 1024
    options: dict[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    backoff: float = 1.0

    def __post_init__(self) -> None:
        _ = self.server  # so that a wrong URL is told now
        least = {"max_calls": 0, "max_tokens": 0, "answer_tokens": 1, "concurrency": 1, "retries": 0}
        for name, lowest in least.items():
            if (value := getattr(self, name)) is not None and value < lowest:
                raise CliffscopeError(f"endpoint judge: {name} must be at least {lowest}, found {value}.")

    @cached_property
    def server(self) -> ChatServer:
        """The server."""
        return ChatServer(
            self.url,
            self.model,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
            backoff=self.backoff,
        )

    @cached_property
    def spending(self) -> Spending:
        """What this judge has spent so far."""
        return Spending(self.max_calls, self.max_tokens)

    @cached_property
    def name(self) -> str:
        """Kind, model, and a checksum of rubric and request; asks the server for the model's name if not given."""
        settings = json.dumps([self.rubric.text, self.answer_tokens, self.options], sort_keys=True)
        return f"llm:{self.server.model_name}:{hashlib.sha256(settings.encode()).hexdigest()[:8]}"

    def judge(self, rollouts: Sequence[Rollout]) -> list[Judgement]:
        """One judgement for each rollout, in the same order; equal texts are asked about once.

        Raises:
            CliffscopeError: If the server cannot be reached or still fails after the retries, or does not count tokens
                although they are capped; or if the cache cannot be written.
        """
        found = [nothing_to_judge(rollout) for rollout in rollouts]
        if all(found):
            return [judgement for judgement in found if judgement]
        keys = [JudgementCache.key(self.name, rollout.prompt, rollout.response or "") for rollout in rollouts]
        asked = {
            key: rollout
            for key, rollout, judgement in zip(keys, rollouts, found, strict=True)
            if judgement is None and key not in self.cache
        }
        unjudged = self._ask_all(asked)
        return [judgement or unjudged.get(key) or self.cache[key] for judgement, key in zip(found, keys, strict=True)]

    def _ask_all(self, asked: dict[str, Rollout]) -> dict[str, Judgement]:
        """Puts into the cache what is judged; returns by key why the others are not."""
        keys, unjudged = list(asked), dict[str, Judgement]()
        try:
            with progress("Judging", len(keys), "responses") as bar:
                for index, answer in self.server.side_by_side(list(asked.values()), self._ask):
                    if isinstance(answer, Completion):
                        self.cache.add(keys[index], self._verdict(answer))
                        if answer.tokens is None and self.max_tokens is not None:
                            raise self.server.error("it does not count tokens, so they cannot be capped; cap the calls")
                    else:
                        unjudged[keys[index]] = answer
                    bar.advance()
        except EndpointError as error:
            done = sum(key in self.cache for key in keys)
            where = f" in {self.cache.path}" if self.cache.path else ""
            raise EndpointError(
                f"{error} {done} of {len(keys)} judgements are kept{where}: run the same again to go on.", error.status
            ) from error
        finally:
            self.server.close()
        return unjudged

    def _ask(self, rollout: Rollout, stop: Event) -> Completion | Judgement:
        """The server's answer, or why there is none for this rollout."""
        question = self.rubric.ask(rollout.prompt, rollout.response or "")
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": self.answer_tokens,
            "temperature": 0.0,
            **self.options,
        }
        try:
            answer = self.server.complete(body, f"rollout {rollout.id!r}", stop, self.spending)
        except CapReached as reached:
            return Judgement(None, None, f"not judged: {reached}")
        except EndpointError as error:
            if error.status not in _THIS_REQUEST:
                raise
            return Judgement(None, None, f"not judged: {error}")
        # Counted here, before this thread sends its next request.
        self.spending.add_tokens(answer.tokens or 0)
        if answer.finish == "content_filter":
            return Judgement(None, None, "not judged: the server's content filter stopped the verdict")
        return answer

    def _verdict(self, answer: Completion) -> Judgement:
        text = answer.content or ""
        if answer.reasoning is None:
            text = ThinkingFormat().split(text)[1] or ""
        if answer.finish == "length":
            return Judgement(None, None, f"cut off at {self.answer_tokens} tokens, before or within its verdict")
        return parse_verdict(text)


def parse_verdict(text: str) -> Judgement:
    """The judgement in a model's answer: one JSON object with a known `verdict`, bare or in one code fence."""
    body = text.strip()
    if fence := _FENCE.fullmatch(body):
        body = fence[1]
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    verdict = content.get("verdict") if isinstance(content, dict) else None
    if not isinstance(verdict, str) or verdict not in _REFUSED:
        return Judgement(None, None, f"answered {shorten(text, 80, placeholder='…')!r}, which is no verdict")
    why = content.get("reason")
    why = f": {shorten(why, 200, placeholder='…')}" if isinstance(why, str) and why.strip() else ""
    return Judgement(_REFUSED[verdict], None, f"{verdict}{why}")
