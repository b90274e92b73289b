"""The endpoint against real HTTP servers: a scripted one in this process, and `transformers serve`."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from interp.errors import CliffscopeError
from interp.rollouts import read_rollouts
from interp.rollouts.endpoint import Endpoint
from interp.rollouts.job import run
from interp.rollouts.prompts import Prompt, PromptSet
from interp.transcripts.thinking import ThinkingFormat

PROMPTS = [Prompt(f"p{i}", f"prompt {i}", harmful=True, category="c", source="s") for i in range(6)]

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


def chat(content: str | None, finish: str = "stop", **message: Any) -> Answer:
    return 200, {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


class Server:
    """An HTTP server on loopback whose answer to each chat request is given by `script(body, number)`."""

    def __init__(self, script: Callable[[dict[str, Any], int], Answer]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.models: Answer = (200, {"data": [{"id": "only-model"}]})
        self.at_once = self.most_at_once = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                assert self.path == "/v1/models"
                self.send(server.models)

            def do_POST(self) -> None:
                assert self.path == "/v1/chat/completions"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(server.requests)
                    server.requests.append(body)
                    server.headers.append(dict(self.headers))
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                answer = script(body, number)
                with lock:
                    server.at_once -= 1
                self.send(answer)

            def send(self, answer: Answer) -> None:
                status, content, *headers = answer
                data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[dict[str, Any], int], Answer]], Server]]:
    servers: list[Server] = []

    def start(script: Callable[[dict[str, Any], int], Answer]) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


Serve = Callable[[Callable[[dict[str, Any], int], Answer]], Server]


def test_rollouts_come_in_order_with_all_that_is_known_of_the_prompt(serve: Serve) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        text = body["messages"][-1]["content"]
        time.sleep(0.2 if text == "prompt 0" else 0.05)  # The first is the last to be answered.
        return chat(f"<think>\nabout {text}\n</think>\n\nSorry: {text}")

    server = serve(script)
    with Endpoint(server.url, concurrency=3, temperature=0.5, max_tokens=77, seed=1, system="Be kind.") as endpoint:
        rollouts = endpoint.generate(PROMPTS)
        settings = endpoint.settings
    assert [(r.id, r.prompt, r.thinking, r.response) for r in rollouts] == [
        (p.id, p.text, f"about {p.text}", f"Sorry: {p.text}") for p in PROMPTS
    ]
    assert {(r.harmful, r.category, r.source, r.model, r.refused) for r in rollouts} == {
        (True, "c", "s", "only-model", None)
    }
    assert server.most_at_once == 3
    body = server.requests[0]
    assert body["model"] == "only-model" and body["messages"][0] == {"role": "system", "content": "Be kind."}
    assert (body["temperature"], body["max_tokens"]) == (0.5, 77)
    # Every prompt has a seed of its own, which depends on nothing else.
    seeds = {body["messages"][-1]["content"]: body["seed"] for body in server.requests}
    assert len(set(seeds.values())) == len(PROMPTS)
    with Endpoint(server.url, model="only-model", seed=1) as endpoint:
        endpoint.generate(PROMPTS[3:4])
    assert server.requests[-1]["seed"] == seeds["prompt 3"]
    assert settings["model"] == "only-model" and server.url not in json.dumps(settings)


@pytest.mark.parametrize(
    ("answer", "thinking", "response"),
    [
        (chat("<think>\nhm\n</think>\n\nSorry."), "hm", "Sorry."),
        (chat("hm\n</think>\n\nSorry."), "hm", "Sorry."),
        (chat("<think>\n\n</think>\n\nSorry."), "", "Sorry."),
        (chat("Sorry."), None, "Sorry."),
        (chat(""), None, ""),
        (chat(None), None, ""),
        (chat("<think>\nhm, well", "length"), "hm, well", None),
        (chat("<think>\nhm\n</think>\n\nSorry, I", "length"), "hm", "Sorry, I"),
        (chat("Sorry.", reasoning_content="hm"), "hm", "Sorry."),
        (chat("\n\nSorry.", reasoning="\nhm\n"), "hm", "Sorry."),
        (chat("Sorry.", reasoning_content=None, reasoning="hm"), "hm", "Sorry."),
        (chat("<think>\nhm\n</think>\n\nSorry.", reasoning_content=None), "hm", "Sorry."),
        (chat(None, "length", reasoning_content="hm, well"), "hm, well", None),
        (chat("", "length", reasoning_content="hm"), "hm", None),
        (chat("", "stop", reasoning_content="hm"), "hm", ""),
        (chat("Sorry, I", "length", reasoning_content="hm"), "hm", "Sorry, I"),
        (chat("<think>\nhm\n</think>\n\nSorry.<|im_end|>\n"), "hm", "Sorry."),
        (chat("Sorry.</s></s>", reasoning_content="hm"), "hm", "Sorry."),
        (chat("<|end|>", reasoning_content="hm"), "hm", ""),
        (chat("An </s> within. "), None, "An </s> within. "),
        (chat("half \ud83d"), None, "half \ufffd"),
        (chat("whole \U0001f600"), None, "whole \U0001f600"),
    ],
)
def test_thinking_and_response(serve: Serve, answer: Answer, thinking: str | None, response: str | None) -> None:
    server = serve(lambda body, number: answer)
    with Endpoint(server.url, model="m") as endpoint:
        (rollout,) = endpoint.generate(PROMPTS[:1])
    assert (rollout.thinking, rollout.response) == (thinking, response)


def test_other_tags_and_another_split(serve: Serve) -> None:
    server = serve(lambda body, number: chat("[T]hm[/T]Sorry.", "length"))
    with Endpoint(server.url, model="m", thinking=ThinkingFormat("[T]", "[/T]")) as endpoint:
        assert endpoint.generate(PROMPTS[:1])[0].response == "Sorry."
    with Endpoint(server.url, model="m", split=lambda text: (text, None)) as endpoint:
        assert endpoint.generate(PROMPTS[:1])[0].thinking == "[T]hm[/T]Sorry."


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_urls(serve: Serve, suffix: str) -> None:
    server = serve(lambda body, number: chat("x"))
    with Endpoint(server.url + suffix) as endpoint:
        assert endpoint.generate(PROMPTS[:1])[0].response == "x"


def test_what_fails_for_a_while_is_tried_again(serve: Serve) -> None:
    failures: list[Answer] = [(500, "oops"), (429, {}, {"Retry-After": "0.01"}), (503, {"error": {"message": "busy"}})]
    server = serve(lambda body, number: failures[number] if number < 3 else chat("at last"))
    with Endpoint(server.url, model="m", retries=3, backoff=0.01) as endpoint:
        assert endpoint.generate(PROMPTS[:1])[0].response == "at last"
    assert len(server.requests) == 4


def test_backoff_doubles_and_the_server_may_ask_for_more(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    real = threading.Event.wait

    def wait(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout is not None and timeout >= 7:
            waits.append(timeout)
            return False
        return real(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", wait)
    answers: list[Answer] = [(500, ""), (500, ""), (429, "", {"Retry-After": "33"}), (429, "", {"Retry-After": "9999"})]
    server = serve(lambda body, number: answers[number] if number < 4 else chat("x"))
    with Endpoint(server.url, model="m", backoff=7) as endpoint:
        endpoint.generate(PROMPTS[:1])
    assert waits == [7, 14, 33, 60]


@pytest.mark.parametrize(
    ("answer", "requests", "message"),
    [
        ((500, {"error": {"message": "out of\nmemory"}}), 3, "answered 500 (out of memory), after 3 tries"),
        ((400, {"error": {"message": "no such field"}}), 1, "answered 400 (no such field)"),
        ((404, {"detail": "Not Found"}), 1, "answered 404 (Not Found)"),
        ((422, "x" * 5000), 1, "..."),
        ((401, {}), 1, "set OPENAI_API_KEY"),
        ((200, "<html>hello</html>"), 1, "its answer is not JSON"),
        ((200, [1]), 1, "its answer is not a JSON object"),
        ((200, {"choices": []}), 1, "its answer is no chat completion (prompt 'p0')"),
        ((200, {"error": "x"}), 1, "its answer is no chat completion"),
        ((200, {"choices": [{"message": None}]}), 1, "its answer is no chat completion"),
        (chat(["x"]), 1, "has content that is not text"),  # type: ignore[arg-type]
        (chat("", "content_filter"), 1, "its content filter stopped the answer to prompt 'p0'"),
    ],
)
def test_failures_are_one_line(serve: Serve, answer: Answer, requests: int, message: str) -> None:
    server = serve(lambda body, number: answer)
    with Endpoint(server.url, model="m", retries=2, backoff=0.01) as endpoint:
        with pytest.raises(CliffscopeError) as caught:
            endpoint.generate(PROMPTS[:1])
    assert str(caught.value).startswith(f"endpoint {server.url}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert len(server.requests) == requests


def test_a_slow_server_and_no_server(serve: Serve) -> None:
    server = serve(lambda body, number: (time.sleep(0.5), chat("x"))[1])  # type: ignore[func-returns-value]
    with Endpoint(server.url, model="m", timeout=0.1, retries=1, backoff=0.01) as endpoint:
        with pytest.raises(CliffscopeError, match=r"no answer within 0\.1 s, after 2 tries"):
            endpoint.generate(PROMPTS[:1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Endpoint(f"http://127.0.0.1:{port}", retries=0) as endpoint:
        with pytest.raises(CliffscopeError, match=r"cannot be reached \(.*\), at the first try"):
            endpoint.generate(PROMPTS[:1])


def test_after_a_failure_nothing_more_is_begun(serve: Serve) -> None:
    server = serve(lambda body, number: (400, "no") if number == 0 else (time.sleep(0.3), chat("x"))[1])  # type: ignore[func-returns-value]
    with Endpoint(server.url, model="m", concurrency=2) as endpoint:
        with pytest.raises(CliffscopeError, match="answered 400"):
            endpoint.generate([Prompt(f"q{i}", "x") for i in range(50)])
    time.sleep(0.5)
    assert len(server.requests) <= 4


def test_after_a_failure_the_program_can_end(serve: Serve) -> None:
    server = serve(lambda body, number: (400, "no") if number == 1 else (time.sleep(20), chat("x"))[1])  # type: ignore[func-returns-value]
    script = (
        "import sys; from interp.rollouts.endpoint import Endpoint; from interp.rollouts.prompts import Prompt\n"
        "with Endpoint(sys.argv[1], model='m') as e: e.generate([Prompt(str(i), 'x') for i in range(3)])"
    )
    started = time.monotonic()
    job = subprocess.run([sys.executable, "-c", script, server.url], capture_output=True, text=True, check=False)
    assert "answered 400" in job.stderr
    assert time.monotonic() - started < 10


def test_after_a_failure_nothing_is_tried_again(serve: Serve) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        if body["messages"][-1]["content"] == "prompt 1":
            return 500, "busy"
        time.sleep(0.15)
        return 400, "no"

    server = serve(script)
    with Endpoint(server.url, model="m", concurrency=2, backoff=0.4) as endpoint:
        with pytest.raises(CliffscopeError, match="answered 400"):
            endpoint.generate(PROMPTS[:2])
        time.sleep(0.6)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((200, {"data": [{"id": "a"}, {"id": "b"}]}), r"serves 2 models \(a, b\); give the name of one"),
        ((200, {"data": []}), r"serves 0 models \(none\)"),
        ((200, {}), "its list of models makes no sense"),
        ((404, {}), "answered 404"),
    ],
)
def test_models_that_cannot_be_guessed(serve: Serve, models: Answer, message: str) -> None:
    server = serve(lambda body, number: chat("x"))
    server.models = models
    with Endpoint(server.url) as endpoint, pytest.raises(CliffscopeError, match=message):
        endpoint.generate(PROMPTS[:1])
    assert server.requests == []


def test_the_key_is_sent_and_never_recorded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda body, number: chat("x"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Endpoint(server.url) as endpoint:
        endpoint.generate(PROMPTS[:1])
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with Endpoint(server.url) as endpoint:
        endpoint.generate(PROMPTS[:1])
        assert "secret-key" not in json.dumps(endpoint.settings) + repr(endpoint)
    assert "Authorization" not in server.headers[0]
    assert server.headers[1]["Authorization"] == "Bearer secret-key"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "localhost:8000"}, "expected a URL"),
        ({"url": "ftp://x"}, "expected a URL"),
        ({"url": "http://host:port"}, "expected a URL"),
        ({"url": "http://"}, "expected a URL"),
        ({"url": "http://me:secret@host"}, "put the key into OPENAI_API_KEY"),
        ({"url": "http://x", "concurrency": 0}, "need concurrency and max_tokens >= 1"),
        ({"url": "http://x", "temperature": -1}, "temperature and retries >= 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CliffscopeError, match=message) as caught:
        Endpoint(**arguments)
    assert "secret" not in str(caught.value)


def test_a_job_by_an_endpoint_goes_on_after_a_failure(serve: Serve, tmp_path: Path) -> None:
    broken = True

    def script(body: dict[str, Any], number: int) -> Answer:
        return (400, "broken") if broken and number >= 4 else chat(body["messages"][-1]["content"])

    server, prompts = serve(script), PromptSet(tuple(PROMPTS))
    with Endpoint(server.url) as endpoint:
        with pytest.raises(CliffscopeError, match="broken"):
            run(prompts, endpoint.generate, tmp_path / "r.jsonl", endpoint.settings, batch_size=2)
        broken = False
        result = run(prompts, endpoint.generate, tmp_path / "r.jsonl", endpoint.settings, batch_size=2)
    assert (result.resumed, result.generated) == (4, 2)
    assert [r.response for r in read_rollouts(tmp_path / "r.jsonl")] == [p.text for p in PROMPTS]


PIECES = ["<think>\n", "I should ", "refuse.", "\n</think>\n\n", "Sorry, ", "no.", "<eos>"]


def save_reciter(folder: Path) -> None:
    """Saves a model that recites `PIECES` after any prompt: its blocks write nothing, its head is a table."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<unk>", "<user>", "<assistant>", *PIECES]
    core = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    core.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = (
        "{% for message in messages %}<user>{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    size = 16
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=size,
        intermediate_size=size,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(tokens), size))
        # After token i comes token i + 1.
        model.lm_head.weight.copy_(torch.eye(len(tokens), size).roll(1, 0))
    model.save_pretrained(folder)


@pytest.mark.slow
def test_transformers_serve(tmp_path: Path) -> None:
    save_reciter(tmp_path / "reciter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = str(tmp_path / "reciter")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", name, "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, env=environment
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "log", seconds=300)
            url = f"http://127.0.0.1:{port}"
            with Endpoint(url, model=name, max_tokens=20, timeout=30, retries=0) as endpoint:
                run(PromptSet(tuple(PROMPTS)), endpoint.generate, tmp_path / "r.jsonl", endpoint.settings)
            rollouts = read_rollouts(tmp_path / "r.jsonl")
            assert [r.id for r in rollouts] == [p.id for p in PROMPTS]
            assert {(r.thinking, r.response) for r in rollouts} == {("I should refuse.", "Sorry, no.")}
            with Endpoint(url, model=name, max_tokens=2, timeout=30, retries=0) as endpoint:
                (cut,) = endpoint.generate(PROMPTS[:1])
            assert cut.thinking is not None and cut.thinking.strip() == "I should" and cut.response is None
            with Endpoint(url, model=name, options={"nonsense": 2}, timeout=30, retries=0) as endpoint:
                with pytest.raises(CliffscopeError, match=r"answered 4\d\d"):
                    endpoint.generate(PROMPTS[:1])
            # This server lists what is in the cache, not what it serves: the name must be given.
            with Endpoint(url, timeout=30, retries=0) as endpoint:
                with pytest.raises(CliffscopeError, match="model's name; you can also give that"):
                    endpoint.generate(PROMPTS[:1])
        finally:
            server.kill()
            server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        assert server.poll() is None, f"the server ended:\n{log.read_text()[-2000:]}"
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"the server did not start within {seconds} s:\n{log.read_text()[-2000:]}")
