"""`cliffscope judge`: each judge through the command, stopped and run again, and bad input."""

import json
import shlex
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from interp.judges import KeywordJudge
from interp.rollouts import read_rollouts, write_rollouts
from tests.cli.forks import Done, Forks
from tests.cli.material import rollouts
from tests.interp.judges.rigged_classifiers import HARM, rigged
from tests.interp.judges.test_endpoint_judge import verdict
from tests.interp.rollouts.test_endpoint import Serve, serve

__all__ = ["serve"]  # the fixture

MADE = rollouts()[:24]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rollouts(tmp_path / "rollouts.jsonl", MADE)
    return tmp_path


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, path = rigged(), tmp_path_factory.mktemp("guard")
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


def judge(forks: Forks, folder: Path, options: str, out: str = "out.jsonl") -> Done:
    words = shlex.split(f"judge run --rollouts rollouts.jsonl --out {out} {options}")
    return forks.run(*words, cwd=folder)


def payload(done: Done) -> dict[str, Any]:
    assert done.code == 0 and done.stderr == "", done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def verdicts(path: Path) -> list[bool | None]:
    return [rollout.refused for rollout in read_rollouts(path)]


def reasons(folder: Path, out: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{out}.why.jsonl").read_text(encoding="utf-8").splitlines()]


def test_keywords(forks: Forks, folder: Path) -> None:
    found = payload(judge(forks, folder, "--judge keyword --json"))
    expected = KeywordJudge().judge(MADE)
    assert verdicts(folder / "out.jsonl") == [judgement.refused for judgement in expected]
    assert [(row["id"], row["reason"]) for row in reasons(folder)] == [
        (rollout.id, judgement.reason) for rollout, judgement in zip(MADE, expected, strict=True)
    ]
    assert found["judge"] == KeywordJudge().name and found["rollouts"] == 24 and found["not_judged"] == 0
    assert found["refused"] == sum(bool(judgement.refused) for judgement in expected)
    text = judge(forks, folder, "--judge keyword").stdout
    assert text.startswith("Judged\n") and "Written to out.jsonl." in text


def test_the_refusal_logit_of_a_model(forks: Forks, folder: Path, checkpoint: Path) -> None:
    found = payload(judge(forks, folder, f"--judge refusal-logit --judge-model {checkpoint} --device cpu --json"))
    assert found["judge"].startswith("refusal-logit") and found["not_judged"] == 0
    assert all(isinstance(row["score"], float) for row in reasons(folder))


def test_a_classifier(forks: Forks, folder: Path, guard: Path) -> None:
    made = [*MADE[:3], *[rollout for rollout in MADE if rollout.harmful is False][:2]]
    made[1] = replace(made[1], response=f"Sure, {HARM}.")
    write_rollouts(folder / "rollouts.jsonl", made)
    options = f"--judge classifier --judge-model {guard} --form llama-guard --device cpu --json"
    found = payload(judge(forks, folder, options))
    assert verdicts(folder / "out.jsonl") == [True, False, True, None, None]
    assert found["why_not_judged"] == {"not asked: to a harmless prompt a safe response may be an answer": 2}
    payload(judge(forks, folder, f"{options} --benign-judge keyword"))
    assert verdicts(folder / "out.jsonl") == [True, False, True, False, False]


def test_a_server_with_a_cap_and_again_without(forks: Forks, folder: Path, serve: Serve) -> None:
    server = serve(lambda body, number: verdict(body))
    options = f"--judge llm --endpoint {server.url} --json"
    capped = payload(judge(forks, folder, f"{options} --max-calls 2"))
    unjudged = capped["not_judged"]
    assert len(server.requests) == 2 and unjudged > 0
    assert capped["why_not_judged"] == {"not judged: the cap of 2 calls is reached": unjudged}
    whole = payload(judge(forks, folder, options))
    # Equal prompts with equal responses are asked about once.
    assert len(server.requests) == len({(rollout.prompt, rollout.response) for rollout in MADE})
    assert whole["not_judged"] == 0 and whole["judge"].startswith("llm:only-model:")
    again = folder / "again.jsonl"
    payload(judge(forks, folder, f"{options} --cache out.jsonl.cache.jsonl", "again.jsonl"))
    assert again.read_bytes() == (folder / "out.jsonl").read_bytes()
    assert len(server.requests) == len({(rollout.prompt, rollout.response) for rollout in MADE})


def test_a_server_that_fails_half_way(forks: Forks, folder: Path, serve: Serve) -> None:
    server = serve(lambda body, number: (404, "gone") if number == 5 else verdict(body))
    options = f"--judge llm --endpoint {server.url} --judge-model m --concurrency 1 --cache kept/cache.jsonl"
    done = judge(forks, folder, options)
    assert done.code == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "answered 404 (gone)" in done.stderr and "5 of 24 judgements are kept in kept/cache.jsonl" in done.stderr
    assert not (folder / "out.jsonl").exists()
    assert judge(forks, folder, options).code == 0
    assert len(server.requests) == 25 and None not in verdicts(folder / "out.jsonl")


def test_agreement(forks: Forks, folder: Path) -> None:
    flipped = [MADE[n].id for n in (1, 4, 20)]
    other = [replace(r, refused=r.refused is not True) if r.id in flipped else r for r in MADE[::-1]]
    write_rollouts(folder / "other.jsonl", [replace(other[0], refused=None), *other[1:]])
    found = payload(forks.run("judge", "agree", "rollouts.jsonl", "other.jsonl", "--json", cwd=folder))
    assert found["disagreements"] == flipped and found["n"] == 23
    assert found["accuracy"] == pytest.approx(20 / 23)
    assert found["unjudged"] == {"only_first": 0, "only_second": 1, "both": 0}
    shown = forks.run("judge", "agree", "rollouts.jsonl", "other.jsonl", cwd=folder).stdout
    assert "Cohen's κ" in shown and shown.startswith("rollouts.jsonl and other.jsonl\n")
    assert ", ".join(flipped) in shown


RUN = "judge run --rollouts rollouts.jsonl --out out.jsonl --judge"
DEAD = "--endpoint http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"{RUN} keyword".replace("rollouts.jsonl", "no.jsonl"), ["no.jsonl: no such file"]),
        (f"{RUN} keyword".replace("out.jsonl", "rollouts.jsonl"), ["rollouts.jsonl: is an input"]),
        (f"{RUN} keyword".replace("out.jsonl", "/proc/none/out.jsonl"), ["/proc/none", "cannot be written"]),
        (f"{RUN} keyword --form harmbench", ["judge keyword: has no form", "classifier"]),
        (f"{RUN} keyword --max-calls 3", ["judge keyword: has no max-calls", "llm"]),
        (f"{RUN} classifier", ["judge classifier: give the classifier's model"]),
        (f"{RUN} classifier --judge-model ./none", ["'./none': no such folder"]),
        (f"{RUN} classifier --judge-model {{tiny}} --raw", ["for the harmbench form"]),
        (f"{RUN} classifier --judge-model {{tiny}} --form harmbench --template no.txt", ["no.txt: no such file"]),
        (f"{RUN} refusal-logit", ["judge refusal-logit: give the model"]),
        (f"{RUN} llm", ["judge llm: give the endpoint"]),
        (f"{RUN} llm --endpoint localhost", ["'localhost': expected a URL"]),
        (f"{RUN} llm {DEAD}", ["http://127.0.0.1:", "cannot be reached"]),
        (f"{RUN} llm {DEAD} --cache rollouts.jsonl", ["rollouts.jsonl: is an input"]),
        (f"{RUN} llm {DEAD} --cache out.jsonl", ["out.jsonl: --cache and --out would be the same"]),
        (f"{RUN} llm {DEAD} --cache other.jsonl", ["other.jsonl: is no cache of judgements"]),
        (f"{RUN} llm {DEAD} --template other.jsonl", ["other.jsonl: the text has no place {{prompt}}"]),
        ("judge agree rollouts.jsonl no.jsonl", ["no.jsonl: no such file"]),
        ("judge agree rollouts.jsonl other.jsonl", ["agreement: both must have judged the same rollouts"]),
    ],
)
def test_bad_input(command: str, says: Sequence[str], forks: Forks, folder: Path, checkpoint: Path) -> None:
    write_rollouts(folder / "other.jsonl", MADE[:3])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        names = {"port": free.getsockname()[1], "tiny": checkpoint}
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    done = forks.run(*shlex.split(command.format(**names)), cwd=folder)
    assert done.code == 2 and done.stdout == ""
    assert done.stderr.startswith("cliffscope: error: ") and done.stderr.count("\n") == 1, done.stderr
    for piece in says:
        assert piece.format(**names) in done.stderr, done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*")} == before


def test_usage(forks: Forks, folder: Path) -> None:
    for command in (f"{RUN} oracle", f"{RUN} llm --max-calls -1", "judge run --judge keyword", "judge agree one.jsonl"):
        done = forks.run(*shlex.split(command), cwd=folder)
        assert done.code == 2 and "--help" in done.stderr and "Traceback" not in done.stderr
