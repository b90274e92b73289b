"""Generating rollouts by a server that speaks the OpenAI chat protocol (vLLM, SGLang, `transformers serve`, ...)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event
from typing import Any

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.rollouts.chat_server import END_TEXTS, ChatServer
from interp.rollouts.job import prompt_seed
from interp.rollouts.prompts import Prompt
from interp.transcripts.thinking import ThinkingFormat

Split = Callable[[str], tuple[str | None, str | None]]


@dataclass(frozen=True)
class Endpoint:
    """A chat server to generate with. Its `generate` is what `interp.rollouts.job.run` asks for.

    The API key is taken from the environment variable `OPENAI_API_KEY` where it is set, and is never
    recorded. Close it, or use it as a context, when done.

    Attributes:
        url: `http://host:port`, with or without `/v1`.
        model: The model's name on the server; asked from the server if it has just one.
        max_tokens: Most tokens to generate, thinking included.
        temperature: 0 for the most probable token.
        seed: Each prompt is sampled with its own seed, made from this one and its id. Not every server is
            deterministic even so.
        system: A system prompt, if any.
        thinking: The tags around the thinking, for servers that do not split it off themselves.
        split: Splits the generated text instead of `thinking.split`; `ChatFormat.split` knows whether the
            template opens the thinking in the prompt, so that cut-off thinking is recognized without a tag.
        end_texts: Taken off the end of the text, for servers that leave the end-of-turn token there.
        options: More fields for the request, such as `{"chat_template_kwargs": {"enable_thinking": true}}`.
        concurrency: How many requests are under way at once.
        timeout: Seconds to wait for an answer.
        retries: How often a request is tried again after a failed connection, 429 or 5xx.
        backoff: Seconds before the first retry; doubled for each further one.
    """

    url: str
    model: str | None = None
    max_tokens: int = 2048
    temperature: float = 0.0
    seed: int = 0
    system: str | None = None
    thinking: ThinkingFormat = field(default_factory=ThinkingFormat)
    split: Split | None = None
    end_texts: tuple[str, ...] = END_TEXTS
    options: dict[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    timeout: float = 600.0
    retries: int = 5
    backoff: float = 1.0

    def __post_init__(self) -> None:
        _ = self._server  # so that a wrong URL is told now
        if self.concurrency < 1 or self.max_tokens < 1 or self.temperature < 0 or self.retries < 0:
            raise CliffscopeError(
                f"endpoint: need concurrency and max_tokens >= 1, temperature and retries >= 0; found "
                f"{self.concurrency}, {self.max_tokens}, {self.temperature:g}, {self.retries}."
            )

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._server.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What the rollouts depend on, for `interp.rollouts.job.run`; asks the server for the model's name.

        The address is not part of it: the same model may be served elsewhere when a job goes on.
        """
        return {
            "generator": "endpoint",
            "model": self.model_name,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "system": self.system,
            "thinking": [self.thinking.open, self.thinking.close],
            "end_texts": list(self.end_texts),
            "options": self.options,
        }

    @property
    def model_name(self) -> str:
        """The model's name on the server.

        Raises:
            CliffscopeError: If it was not given and the server has none or several.
        """
        return self._server.model_name

    def generate(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """One rollout for each prompt, in the same order; the requests run side by side.

        Where the server gives the thinking apart (`reasoning_content` or `reasoning`), that is used; else the
        text is split at the tags. `response` is `None` if the token limit came before the thinking ended.

        Raises:
            CliffscopeError: If the server cannot be reached, or still fails after the retries, or refuses a
                request (it says why), or what it answers is not a chat completion.
        """
        _ = self.model_name  # asked here, not by several threads at once
        rollouts = dict(self._server.side_by_side(prompts, self._complete))
        return [rollouts[index] for index in range(len(prompts))]

    def _complete(self, prompt: Prompt, stop: Event) -> Rollout:
        messages = [{"role": "system", "content": self.system}] if self.system is not None else []
        body = {
            "messages": [*messages, {"role": "user", "content": prompt.text}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": prompt_seed(self.seed, prompt.id),
            **self.options,
        }
        answer = self._server.complete(body, f"prompt {prompt.id!r}", stop)
        if answer.finish == "content_filter":
            raise self._server.error(
                f"its content filter stopped the answer to prompt {prompt.id!r}; what is measured must be the "
                "model, so switch the filter off"
            )
        thinking, response = self._split(answer.content, answer.reasoning, answer.finish == "length")
        return prompt.rollout(thinking, response, model=self.model_name)

    def _split(self, content: str | None, reasoning: str | None, cut: bool) -> tuple[str | None, str | None]:
        if reasoning is None:
            return (self.split or self.thinking.split)(content or "")
        if not content:
            # Nothing after the thinking: cut off within it, or an answer that is really empty.
            closed = not cut
            return self.thinking.trim_thinking(reasoning, closed), "" if closed else None
        return self.thinking.trim_thinking(reasoning), self.thinking.trim_response(content)

    @cached_property
    def _server(self) -> ChatServer:
        return ChatServer(
            self.url, self.model, self.end_texts, self.concurrency, self.timeout, self.retries, self.backoff
        )
