"""Generating rollouts by a server that speaks the OpenAI chat protocol (vLLM, SGLang, `transformers serve`, ...)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.rollouts.job import prompt_seed
from interp.rollouts.prompts import Prompt
from interp.transcripts.thinking import ThinkingFormat

Split = Callable[[str], tuple[str | None, str | None]]

# Statuses after which the same request may succeed; 408, 425 and 429 ask for patience, 5xx are the server's.
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT = 60.0

# What ends an assistant's turn in common chat templates. Servers should take it off the text, but `transformers
# serve` leaves it there where it takes a model for one of another family, by its architecture.
END_TEXTS = (
    "<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<turn|>", "</s>",
    "<eos>", "<|return|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip


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
        parts = urlsplit(self.url)
        try:
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # The port is not a number.
            usable = False
        if not usable:
            raise CliffscopeError(f"endpoint {self.url!r}: expected a URL such as http://localhost:8000.")
        if parts.username or parts.password:
            raise CliffscopeError("endpoint: put the key into OPENAI_API_KEY, not into the URL.")
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
        self._client.close()

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

    @cached_property
    def model_name(self) -> str:
        """The model's name on the server.

        Raises:
            CliffscopeError: If it was not given and the server has none or several.
        """
        if self.model is not None:
            return self.model
        try:
            models = self._request("GET", "models", None, Event()).get("data")
        except CliffscopeError as error:
            raise CliffscopeError(f"{error} (It was asked for the model's name; you can also give that.)") from error
        if not isinstance(models, list):
            raise self._error("its list of models makes no sense; give the model's name")
        names = [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]
        if len(names) != 1:
            listed = ", ".join(names[:10]) or "none"
            raise self._error(f"serves {len(names)} models ({listed}); give the name of one")
        return names[0]

    def generate(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """One rollout for each prompt, in the same order; the requests run side by side.

        Where the server gives the thinking apart (`reasoning_content` or `reasoning`), that is used; else the
        text is split at the tags. `response` is `None` if the token limit came before the thinking ended.

        Raises:
            CliffscopeError: If the server cannot be reached, or still fails after the retries, or refuses a
                request (it says why), or what it answers is not a chat completion.
        """
        name, _ = self.model_name, self._client  # made here, not by several threads at once
        waiting: SimpleQueue[tuple[int, Prompt]] = SimpleQueue()
        for item in enumerate(prompts):
            waiting.put(item)
        answered: SimpleQueue[tuple[int, Rollout | Exception]] = SimpleQueue()
        stop = Event()

        def work() -> None:
            while not stop.is_set():
                try:
                    index, prompt = waiting.get_nowait()
                except Empty:
                    return
                try:
                    answered.put((index, self._complete(prompt, name, stop)))
                except Exception as error:
                    answered.put((index, error))

        # Daemons and not a pool, whose threads the program would wait for at its end: after a failure that would
        # be until the last request under way is answered.
        for _ in range(min(self.concurrency, len(prompts))):
            Thread(target=work, daemon=True).start()
        rollouts: dict[int, Rollout] = {}
        try:
            while len(rollouts) < len(prompts):
                index, outcome = answered.get()
                if isinstance(outcome, Exception):
                    raise outcome
                rollouts[index] = outcome
        finally:
            # After a failure nothing more is begun or tried again, and it is reported at once.
            stop.set()
        return [rollouts[index] for index in range(len(prompts))]

    def _complete(self, prompt: Prompt, model: str, stop: Event) -> Rollout:
        messages = [{"role": "system", "content": self.system}] if self.system is not None else []
        body = {
            "model": model,
            "messages": [*messages, {"role": "user", "content": prompt.text}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": prompt_seed(self.seed, prompt.id),
            **self.options,
        }
        answer = self._request("POST", "chat/completions", body, stop)
        try:
            choice = answer["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            content = message.get("content")
            # Some servers fill in one of the two names, some both.
            reasoning = message.get("reasoning_content") or message.get("reasoning")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._error(f"its answer is no chat completion (prompt {prompt.id!r})") from error
        if not isinstance(content, str | None) or not isinstance(reasoning, str | None):
            raise self._error(f"its answer has content that is not text (prompt {prompt.id!r})")
        if finish == "content_filter":
            raise self._error(
                f"its content filter stopped the answer to prompt {prompt.id!r}; what is measured must be the "
                "model, so switch the filter off"
            )
        thinking, response = self._split(self._text(content), _unicode(reasoning), finish == "length")
        return prompt.rollout(thinking, response, model=model)

    def _split(self, content: str | None, reasoning: str | None, cut: bool) -> tuple[str | None, str | None]:
        if reasoning is None:
            return (self.split or self.thinking.split)(content or "")
        if not content:
            # Nothing after the thinking: cut off within it, or an answer that is really empty.
            closed = not cut
            return self.thinking.trim_thinking(reasoning, closed), "" if closed else None
        return self.thinking.trim_thinking(reasoning), self.thinking.trim_response(content)

    def _text(self, content: str | None) -> str | None:
        text = _unicode(content)
        while text and (end := next((end for end in self.end_texts if text.rstrip().endswith(end)), None)):
            text = text.rstrip().removesuffix(end)
        return text

    @cached_property
    def _client(self) -> httpx.Client:
        key = os.environ.get("OPENAI_API_KEY")
        return httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            limits=httpx.Limits(max_connections=self.concurrency),
        )

    @cached_property
    def _base(self) -> str:
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
        return urlunsplit((parts.scheme, parts.netloc, path if path.endswith("/v1") else f"{path}/v1", "", ""))

    def _request(self, method: str, path: str, body: dict[str, Any] | None, stop: Event) -> dict[str, Any]:
        """One request, tried again until `stop`; its answer. Raises `CliffscopeError` when it gives up."""
        failure = ""
        cause: Exception | None = None
        for attempt in range(self.retries + 1):
            wait, cause = min(self.backoff * 2**attempt, _LONGEST_WAIT), None
            try:
                answer = self._client.request(method, f"{self._base}/{path}", json=body)
            except httpx.TimeoutException as error:
                failure, cause = f"no answer within {self.timeout:g} s", error
            except httpx.TransportError as error:
                failure, cause = f"cannot be reached ({error or type(error).__name__})", error
            else:
                if answer.status_code not in _TRY_AGAIN:
                    return self._content(answer)
                failure = f"answered {_status(answer)}"
                wait = min(_retry_after(answer) or wait, _LONGEST_WAIT)
            if attempt == self.retries or stop.wait(wait):
                break
        tries = f"after {self.retries + 1} tries" if self.retries else "at the first try"
        raise self._error(f"{failure}, {tries}; check the address and that the server runs") from cause

    def _content(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code in (401, 403):
            raise self._error(f"answered {_status(answer)}; set OPENAI_API_KEY to a key that it takes")
        if not answer.is_success:
            raise self._error(f"answered {_status(answer)}")
        try:
            content = answer.json()
        except ValueError as error:
            raise self._error("its answer is not JSON; it must be an OpenAI-compatible server") from error
        if not isinstance(content, dict):
            raise self._error("its answer is not a JSON object; it must be an OpenAI-compatible server")
        return content

    def _error(self, problem: str) -> CliffscopeError:
        return CliffscopeError(f"endpoint {self.url}: {problem}.")


def _unicode(text: str | None) -> str | None:
    """The text with lone surrogates replaced: a server may cut an emoji in two and still escape its half."""
    return text and text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _status(answer: httpx.Response) -> str:
    """The status with the server's own explanation, on one line."""
    try:
        content = answer.json()
        error = content.get("error", content)
        text = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = answer.text
    text = " ".join(str(text or answer.reason_phrase).split())
    return f"{answer.status_code} ({text if len(text) <= 200 else text[:197] + '...'})"


def _retry_after(answer: httpx.Response) -> float | None:
    try:
        return max(0.0, float(answer.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
