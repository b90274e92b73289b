"""A server that speaks the OpenAI chat protocol: requests with retries, side by side, under a cap on their number."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx

from interp.errors import CliffscopeError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Statuses after which the same request may succeed; 408, 425 and 429 ask for patience, 5xx are the server's.
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_LONGEST_WAIT = 60.0

# What ends an assistant's turn in common chat templates. Servers should take it off the text, but `transformers
# serve` leaves it there where it takes a model for one of another family, by its architecture.
END_TEXTS = (
    "<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<turn|>", "</s>",
    "<eos>", "<|return|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip


class EndpointError(CliffscopeError):
    """A server that fails, or refuses a request; `status` is the HTTP status of its answer where there is one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CapReached(CliffscopeError):
    """A request was not sent, because the cap on what may be spent is reached."""


class Spending:
    """What has been spent on a server, against caps. Used by several threads.

    Args:
        max_calls: Most requests, those tried again included; `None` for no cap.
        max_tokens: No request is sent once so many tokens have been used; `None` for no cap.
    """

    def __init__(self, max_calls: int | None = None, max_tokens: int | None = None) -> None:
        self.max_calls, self.max_tokens = max_calls, max_tokens
        self.calls = self.tokens = 0
        self._lock = Lock()

    def add_call(self) -> None:
        """Counts a request that is about to be sent. Raises `CapReached` if it must not be."""
        with self._lock:
            if self.max_calls is not None and self.calls >= self.max_calls:
                raise CapReached(f"the cap of {self.max_calls:,} calls is reached")
            if self.max_tokens is not None and self.tokens >= self.max_tokens:
                raise CapReached(f"the cap of {self.max_tokens:,} tokens is reached ({self.tokens:,} were used)")
            self.calls += 1

    def add_tokens(self, tokens: int) -> None:
        """Counts tokens that a request has used."""
        with self._lock:
            self.tokens += tokens


@dataclass(frozen=True)
class Completion:
    """What a server answered to a conversation.

    Attributes:
        content: The text, without end-of-turn tokens.
        reasoning: The thinking, where the server gives it apart.
        finish: Why it ended: `stop`, `length`, `content_filter`, …
        tokens: Tokens of conversation and answer together as the server counts them; `None` if it does not say.
    """

    content: str | None
    reasoning: str | None
    finish: str | None
    tokens: int | None


@dataclass(frozen=True)
class ChatServer:
    """A chat server. The API key is taken from `OPENAI_API_KEY` where that is set, and is never recorded.

    Attributes:
        url: `http://host:port`, with or without `/v1`.
        model: The model's name on the server; asked from the server if it has just one.
        end_texts: Taken off the end of the text, for servers that leave the end-of-turn token there.
        concurrency: How many requests are under way at once.
        timeout: Seconds to wait for an answer.
        retries: How often a request is tried again after a failed connection, 429 or 5xx.
        backoff: Seconds before the first retry; doubled for each further one.

    Raises:
        CliffscopeError: If the URL is none.
    """

    url: str
    model: str | None = None
    end_texts: tuple[str, ...] = END_TEXTS
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

    def close(self) -> None:
        """Closes the connections; a later request opens new ones."""
        if client := self.__dict__.pop("_client", None):
            client.close()

    @cached_property
    def model_name(self) -> str:
        """The model's name on the server.

        Raises:
            EndpointError: If it was not given and the server has none or several.
        """
        if self.model is not None:
            return self.model
        try:
            models = self._request("GET", "models", None, Event(), Spending()).get("data")
        except EndpointError as error:
            raise EndpointError(
                f"{error} (It was asked for the model's name; you can also give that.)", error.status
            ) from error
        if not isinstance(models, list):
            raise self.error("its list of models makes no sense; give the model's name")
        names = [str(model["id"]) for model in models if isinstance(model, dict) and "id" in model]
        if len(names) != 1:
            listed = ", ".join(names[:10]) or "none"
            raise self.error(f"serves {len(names)} models ({listed}); give the name of one")
        return names[0]

    def require_reachable(self) -> None:
        """Raises `EndpointError` at once if there is no server: a request's own patience is for one that comes back."""
        try:
            httpx.get(f"{self._base}/models", timeout=httpx.Timeout(2, connect=10))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            reason = str(error) or type(error).__name__
            raise self.error(f"cannot be reached ({reason}); check the address and that the server runs") from error
        except httpx.TransportError:
            pass  # It is there; whether it serves will be seen.

    def complete(
        self, body: Mapping[str, Any], about: str, stop: Event | None = None, spending: Spending | None = None
    ) -> Completion:
        """The answer to one request.

        Args:
            body: The request, without the model.
            about: What it is about, for an error: `prompt 'p3'`.
            stop: Once set, a request that failed is not tried again.
            spending: Counts the requests, and may forbid one.

        Raises:
            EndpointError: If the server cannot be reached, or still fails after the retries, or refuses the request
                (it says why), or what it answers is not a chat completion.
            CapReached: If the request must not be sent.
        """
        request = {"model": self.model_name, **body}
        answer = self._request("POST", "chat/completions", request, stop or Event(), spending or Spending())
        try:
            choice = answer["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            content = message.get("content")
            # Some servers fill in one of the two names, some both.
            reasoning = message.get("reasoning_content") or message.get("reasoning")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self.error(f"its answer is no chat completion ({about})") from error
        if not isinstance(content, str | None) or not isinstance(reasoning, str | None):
            raise self.error(f"its answer has content that is not text ({about})")
        usage = answer.get("usage")
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        known = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
        return Completion(
            self._text(content),
            _unicode(reasoning),
            finish if isinstance(finish, str) else None,
            tokens if known else None,
        )

    def side_by_side(
        self, items: Sequence[Item], work: Callable[[Item, Event], Result]
    ) -> Iterator[tuple[int, Result]]:
        """Yields `(index of the item, work(item, stop))` as each is done, `concurrency` of them under way at once.

        After a failure nothing more is begun or tried again (`stop` is set); what was done by then is yielded, and
        then the failure is raised, without waiting for what is still under way.
        """
        _ = self._client  # made here, not by several threads at once
        waiting: SimpleQueue[tuple[int, Item]] = SimpleQueue()
        for pair in enumerate(items):
            waiting.put(pair)
        done: SimpleQueue[tuple[int, Result | None, Exception | None]] = SimpleQueue()
        stop = Event()

        def keep_working() -> None:
            while not stop.is_set():
                try:
                    index, item = waiting.get_nowait()
                except Empty:
                    return
                try:
                    done.put((index, work(item, stop), None))
                except Exception as error:
                    stop.set()
                    done.put((index, None, error))

        # Daemons and not a pool, whose threads the program would wait for at its end: after a failure that would
        # be until the last request under way is answered.
        for _ in range(min(self.concurrency, len(items))):
            Thread(target=keep_working, daemon=True).start()
        try:
            for _ in range(len(items)):
                index, result, failure = done.get()
                if failure is not None:
                    yield from _finished(done)
                    raise failure
                yield index, result  # type: ignore[misc]
        finally:
            stop.set()

    def error(self, problem: str, status: int | None = None) -> EndpointError:
        """An error that names the server."""
        return EndpointError(f"endpoint {self.url}: {problem}.", status)

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

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None, stop: Event, spending: Spending
    ) -> dict[str, Any]:
        """One request, tried again until `stop`; its answer. Raises `EndpointError` when it gives up."""
        failure = ""
        cause: Exception | None = None
        for attempt in range(self.retries + 1):
            wait, cause = min(self.backoff * 2**attempt, _LONGEST_WAIT), None
            spending.add_call()
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
        raise self.error(f"{failure}, {tries}; check the address and that the server runs") from cause

    def _content(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code in (401, 403):
            raise self.error(
                f"answered {_status(answer)}; set OPENAI_API_KEY to a key that it takes", answer.status_code
            )
        if not answer.is_success:
            raise self.error(f"answered {_status(answer)}", answer.status_code)
        try:
            content = answer.json()
        except ValueError as error:
            raise self.error("its answer is not JSON; it must be an OpenAI-compatible server") from error
        if not isinstance(content, dict):
            raise self.error("its answer is not a JSON object; it must be an OpenAI-compatible server")
        return content


def _finished(
    done: "SimpleQueue[tuple[int, Result | None, Exception | None]]",
) -> Iterator[tuple[int, Result]]:
    """What is in the queue by now, failures left out."""
    while True:
        try:
            index, result, failure = done.get_nowait()
        except Empty:
            return
        if failure is None:
            yield index, result  # type: ignore[misc]


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
