"""`cliffscope evaluate` and `cliffscope compare`: against the Python interface, killed, and with bad input."""

import json
from pathlib import Path
from typing import Any

import pytest

from interp.rollouts import Rollout
from interp.rollouts.prompts import load_prompts
from interventions.masks import HeadMask
from selection.evaluation import Evaluation, EvaluationOptions, evaluate
from tests.circuits.material import organism, organism_rollouts
from tests.cli import material
from tests.cli.bad_input import Case, check_usage, mask, renamed, text, truncated
from tests.cli.forks import Done, Forks
from tests.cli.printed import payload, refusal, table
from tests.cli.test_kill import check
from tests.interp.judges.rigged_classifiers import rigged
from tests.interp.judges.test_endpoint_judge import verdict
from tests.interp.rollouts.test_endpoint import Serve, serve

__all__ = ["serve"]  # the fixture


def write(path: Path, rollouts: list[Rollout]) -> None:
    """Prompts without labels: the option says what they are."""
    rows = "".join(json.dumps({"prompt": r.prompt, "category": r.category}) + "\n" for r in rollouts)
    path.write_text(rows, encoding="utf-8")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts for the organism, not to be written into."""
    folder = tmp_path_factory.mktemp("prompts")
    rollouts = list(organism_rollouts("cliff"))
    complied = [r for r in rollouts if r.outcome == "complied"]
    write(folder / "harmful.jsonl", complied[:9])
    write(folder / "benign.jsonl", rollouts[64:70])
    write(folder / "traps.jsonl", rollouts[90:92])
    return folder


def words(prompts: Path, out: object, *more: object) -> tuple[object, ...]:
    files = ("--prompts", prompts / "harmful.jsonl", "--benign", prompts / "benign.jsonl")
    return ("evaluate", *files, "--max-new-tokens", 300, "--device", "cpu", "--out", out, *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, prompts: Path, cliff: Path, forks: Forks) -> Path:
    """base.json and mask.json of the organism."""
    folder = tmp_path_factory.mktemp("made")
    on = ("--model", "organism:cliff", "--traps", prompts / "traps.jsonl")
    payload(forks.run(*words(prompts, folder / "base.json", *on, "--label", "base", "--json")))
    masked = ("--mask", cliff / "mask.safetensors", "--limit", 8)
    payload(forks.run(*words(prompts, folder / "mask.json", *on, *masked, "--json")))
    return folder


def test_it_is_the_python_interface(made: Path, prompts: Path, cliff: Path, tmp_path: Path) -> None:
    found = Evaluation.load(made / "mask.json")
    name = found.interventions[0]
    assert name.startswith("mask ") and found.label == f"organism:cliff + {name}"
    sets = {kind: load_prompts(prompts / f"{kind}.jsonl", limit=8) for kind in ("harmful", "benign", "traps")}
    expected = evaluate(
        organism("cliff"),
        sets["harmful"],
        sets["benign"],
        tmp_path / "e.json",
        traps=sets["traps"],
        interventions={name: HeadMask.load(cliff / "mask.safetensors")},
        options=EvaluationOptions(max_new_tokens=300),
        facts=found.facts,
    )
    assert found == expected
    assert (found.asr.count, found.asr.n, found.over_refusal.n) == (0, 8, 6)
    assert found.facts["mask"]["heads"] == ["3.1", "4.5"]
    base = Evaluation.load(made / "base.json")
    assert (base.label, base.asr.count, base.facts) == ("base", 9, {})


def test_what_it_prints(forks: Forks, made: Path, prompts: Path) -> None:
    """Run again: it is finished, and says the same."""
    on = ("--model", "organism:cliff", "--traps", prompts / "traps.jsonl", "--label", "base")
    text = table(forks.run(*words(prompts, made / "base.json", *on)))
    lines = text.splitlines()
    assert lines[0] == "base" and lines[1].split()[:3] == ["prompts", "ASR", "refusal"]
    assert [line.split()[:2] for line in lines[2:5]] == [["harmful", "9"], ["benign", "6"], ["traps", "2"]]
    assert lines[2].split()[2] == "1.000"
    assert "No KL: it is the base itself; perplexity of benign thinking" in text and "keyword:cliffscope" in text
    found = payload(forks.run(*words(prompts, made / "base.json", *on, "--json")))
    assert found["rates"]["all"]["asr"]["count"] == 9 and "outcomes" not in found and found["unjudged"]["traps"] == 0


def test_a_checkpoint_against_its_base(forks: Forks, prompts: Path, tmp_path: Path) -> None:
    on = ("--model", "organism:aligned", "--base", "organism:cliff", "--limit", 3, "--json")
    found = payload(forks.run(*words(prompts, tmp_path / "e.json", *on)))
    assert found["reference"]["model"] == "organism:cliff" and found["kl"]["n"] == 3 and found["kl"]["value"] > 0
    assert found["rates"]["all"]["asr"]["count"] == 0


def test_comparing(forks: Forks, made: Path, tmp_path: Path) -> None:
    files = (made / "base.json", made / "mask.json")
    found = payload(forks.run("compare", *files, "--out", tmp_path / "c.html", "--json"))
    assert found["base"] == "base" and found["out"] == str(tmp_path / "c.html")
    asr = found["evaluations"][1]["against_base"]["asr"]
    assert (asr["n"], asr["base"], asr["here"], asr["only_base"]) == (8, 1, 0, 8) and asr["p"] == pytest.approx(2**-7)
    assert found["evaluations"][1]["kl"]["value"] == Evaluation.load(made / "mask.json").kl.value
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "McNemar p" in page and "ASR by category" in page
    text = table(forks.run("compare", *files, "--out", tmp_path / "again.html"))
    lines = text.splitlines()
    assert lines[0] == "Against base" and lines[2].split()[:2] == ["base", "1.000"]
    (difference,) = [line for line in lines if " ASR " in line and "-1.000" in line]
    assert difference.split()[-2:] == ["0.008", "8"]
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_a_classifier_leaves_over_refusal_to_keywords(forks: Forks, prompts: Path, tmp_path: Path) -> None:
    guard = rigged()
    material.save(guard.hf, guard.tokenizer, tmp_path / "guard")
    judge = ("--judge", "classifier", "--judge-model", tmp_path / "guard", "--limit", 3, "--json")
    found = payload(forks.run(*words(prompts, tmp_path / "e.json", "--model", "organism:cliff", *judge)))
    assert found["judge"].startswith("classifier:") and found["judge"].endswith("benign by keyword:cliffscope:v1")
    assert found["unjudged"] == {"harmful": 0, "benign": 0} and found["rates"]["all"]["over_refusal"]["n"] == 3
    # This classifier calls nothing harmful that lacks its word.
    assert found["rates"]["all"]["refusal"]["count"] == 3


def test_a_server_that_fails_half_way_and_a_cap(forks: Forks, prompts: Path, tmp_path: Path, serve: Serve) -> None:
    server = serve(lambda body, number: (404, "gone") if number == 2 else verdict(body))
    judge = ("--judge", "llm", "--endpoint", server.url, "--judge-model", "m", "--concurrency", 1, "--limit", 3)
    command = words(prompts, "e.json", "--model", "organism:cliff", *judge, "--json")

    def run(*more: object) -> Done:
        return forks.run(*command, *more, cwd=tmp_path)

    assert "answered 404" in refusal(run()) and not (tmp_path / "e.json").exists()
    capped = payload(run("--max-calls", 1))
    assert sum(capped["unjudged"].values()) == 6 - len(server.requests) + 1
    whole = payload(run())
    assert sum(whole["unjudged"].values()) == 0 and len(server.requests) == 7
    assert (tmp_path / "e.json.rollouts" / "judgements.jsonl").exists()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts for the tiny checkpoint, not to be written into."""
    folder, rollouts = tmp_path_factory.mktemp("quick"), material.rollouts()
    write(folder / "harmful.jsonl", [r for r in rollouts if r.harmful][:16])
    write(folder / "benign.jsonl", [r for r in rollouts if not r.harmful][:12])
    return folder


@pytest.mark.slow
def test_killed_at_any_moment(forks: Forks, checkpoint: Path, data: Path, quick: Path, tmp_path: Path) -> None:
    command = words(quick, "e.json", "--model", checkpoint, "--mask", data / "mask.safetensors", "--batch-size", 4)
    command += ("--temperature", 1, "--max-new-tokens", 60)

    def batches(folder: Path) -> int:
        """Batches on the disk: in logs, and in files that are finished."""
        found = 0
        for file, size in (("harmful", 4), ("benign", 3), ("base-benign", 3)):
            log = folder / "e.json.rollouts" / f".{file}.jsonl.partial"
            try:
                found += max(0, log.read_bytes().count(b"\n") - 1)
            except FileNotFoundError:
                found += size * (log.parent / f"{file}.jsonl").exists()
        return found

    left = check(forks, command, tmp_path, batches, steps=10)
    assert len(left) >= 6 and sum(0 < count < 10 for count in left) >= 3


EVALUATE = (
    "evaluate --model {tiny} --prompts harmful.jsonl --benign benign.jsonl --max-new-tokens 8 --device cpu "
    "--out out.json"
)
COMPARE = "compare a.json b.json --out out.html"


def benign_as_harmful(folder: Path) -> None:
    (folder / "harmful.jsonl").write_text('{"id": "x", "prompt": "How?", "harmful": false}\n')


def strangers(folder: Path) -> None:
    content = json.loads((folder / "b.json").read_text(encoding="utf-8"))
    for outcome in content["outcomes"]:
        outcome["id"] += "-other"
    (folder / "b.json").write_text(json.dumps(content), encoding="utf-8")


CASES = [
    Case("no harmful", EVALUATE, ["harmful.jsonl: no such file"], renamed("harmful.jsonl", "h.jsonl")),
    Case("no benign", EVALUATE, ["benign.jsonl: no such file"], renamed("benign.jsonl", "b.jsonl")),
    Case("no traps", EVALUATE + " --traps no.csv", ["no.csv: no such file"]),
    Case("empty", EVALUATE, ["harmful.jsonl: the file is empty"], text("harmful.jsonl", "")),
    Case("wrong set", EVALUATE, ["harmful.jsonl: prompt 'x' is benign", "file of its own"], benign_as_harmful),
    Case("out an input", EVALUATE.replace("out.json", "benign.jsonl"), ["benign.jsonl: is an input"]),
    Case("out a folder", EVALUATE.replace("out.json", "."), [".: is a folder"]),
    Case("out mine", EVALUATE, ["out.json: is there already", "--restart"], text("out.json", "mine")),
    Case("no such model", EVALUATE.replace("{tiny}", "nobody/nothing"), ["'nobody/nothing'", "cannot be loaded"]),
    Case("no template", EVALUATE.replace("{tiny}", "{untemplated}"), ["chat template"]),
    Case("NaN", EVALUATE.replace("{tiny}", "{nan}"), ["NaN", "float32"]),
    Case("no mask", EVALUATE + " --mask no.safetensors", ["no.safetensors: no such file"]),
    Case("mask torn", EVALUATE + " --mask mask.safetensors", ["mask.safetensors"], truncated("mask.safetensors")),
    Case(
        "mask of another model",
        EVALUATE.replace("{tiny}", "{deeper}") + " --mask mask.safetensors",
        ["mask.safetensors: mask: made for", "n_layers 4 there, 5 here"],
    ),
    Case("mask of other weights", EVALUATE.replace("{tiny}", "{reseeded}") + " --mask mask.safetensors", ["differ"]),
    Case("mask of nothing", EVALUATE + " --mask mask.safetensors", ["masks nothing"], mask(lambda s: s * 0 + 1)),
    Case("base of other tokens", EVALUATE + " --base organism:cliff", ["vocabularies", "made from"]),
    Case("blank label", EVALUATE + " --label ' '", ["--label is blank"]),
    Case("judge without endpoint", EVALUATE + " --judge llm", ["judge llm", "endpoint"]),
    Case("judge without model", EVALUATE + " --judge classifier", ["judge classifier", "model"]),
    Case("option of another judge", EVALUATE + " --max-calls 3", ["judge keyword: has no max-calls"]),
    Case("no server", EVALUATE + " --judge llm --judge-model m --endpoint http://127.0.0.1:{port}", ["reached"]),
    Case("disk full", EVALUATE, ["cannot be written"], file_size=200),
    Case("compare: missing", COMPARE, ["b.json: no such file"], renamed("b.json", "c.json")),
    Case("compare: not one", COMPARE.replace("b.json", "harmful.jsonl"), ["harmful.jsonl: not an evaluation"]),
    Case("compare: torn", COMPARE, ["b.json: not an evaluation"], truncated("b.json")),
    Case("compare: strangers", COMPARE, ["share none of their harmful prompts", "same ids"], strangers),
    Case("compare: out an input", COMPARE.replace("out.html", "b.json"), ["b.json: is an input"]),
]

USAGE = [
    EVALUATE + " --judge oracle",
    EVALUATE + " --temperature -1",
    EVALUATE + " --batch-size 0",
    EVALUATE.replace("--benign benign.jsonl", ""),
    "compare --out out.html",
    "compare a.json",
]


@pytest.fixture
def spoilt(folder: Path, quick: Path, made: Path) -> Path:
    """A working folder with good files."""
    for name in ("harmful.jsonl", "benign.jsonl"):
        (folder / name).write_bytes((quick / name).read_bytes())
    for name, there in (("a.json", "base.json"), ("b.json", "mask.json")):
        (folder / name).write_bytes((made / there).read_bytes())
    return folder


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input(case: Case, forks: Forks, models: dict[str, str], spoilt: Path) -> None:
    case.check(forks, models, spoilt)


@pytest.mark.parametrize("command", USAGE)
def test_usage(command: str, forks: Forks, models: dict[str, str], spoilt: Path) -> None:
    check_usage(command, forks, models, spoilt)


def test_hostile_labels_stay_text(forks: Forks, made: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = json.loads((made / "base.json").read_text(encoding="utf-8"))
    content["label"] = "<img src=x onerror=alert(1)>"
    (tmp_path / "e.json").write_text(json.dumps(content), encoding="utf-8")
    assert forks.run("compare", tmp_path / "e.json", made / "mask.json", "--out", tmp_path / "c.html").code == 0
    assert "<img" not in (tmp_path / "c.html").read_text(encoding="utf-8")
