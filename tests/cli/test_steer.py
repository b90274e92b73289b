"""`cliffscope steer sweep` and `apply`, --vector of `rollout` and `evaluate`: on the organism, killed, bad input."""

import json
from pathlib import Path

import pytest
import torch

from interp.cli.steer.sweep import parse_alphas
from interp.errors import CliffscopeError
from interp.rollouts import read_rollouts
from interp.rollouts.prompts import load_prompts
from interventions.behaviour import answer
from interventions.directions.direction import Direction
from interventions.dose import DoseOptions, DoseResponse, dose_response
from interventions.steering.vectors import steering
from selection.evaluation import Evaluation
from tests.circuits.material import organism
from tests.cli.bad_input import ROLLOUT, Case, Spoil, check_usage, contents, text, truncated
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table
from tests.cli.test_kill import killed_and_run_again, when
from tests.interventions.dose.material import refusal_direction

ON = ("--model", "organism:cliff", "--max-new-tokens", 300, "--device", "cpu")


@pytest.fixture(scope="module")
def steer(tmp_path_factory: pytest.TempPathFactory, cliff: Path) -> Path:
    """A refusal direction of the organism, 6 harmful and 3 benign prompts. Not to be written into."""
    folder = tmp_path_factory.mktemp("steer")
    refusal_direction().save(folder / "vector.safetensors")
    lines = (cliff / "prompts.csv").read_text(encoding="utf-8").splitlines()
    harmful, benign = lines[1:7], lines[-3:]
    mixed = [lines[0], *(line for pair in zip(harmful, benign, strict=False) for line in pair), *harmful[3:]]
    (folder / "prompts.csv").write_text("\n".join(mixed) + "\n", encoding="utf-8")
    for name, chosen in (("harmful", harmful), ("benign", benign)):
        rows = [{"id": str(number), "prompt": line.split('"')[1]} for number, line in enumerate(chosen)]
        content = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, steer: Path, forks: Forks) -> Path:
    """A sweep of two doses at one layer with one control: the table, and its picture beside it."""
    folder = tmp_path_factory.mktemp("swept")
    payload(forks.run(*sweep(steer, folder / "s.parquet", "--json")))
    return folder


def sweep(steer: Path, out: object, *more: object) -> tuple[object, ...]:
    words = ("steer", "sweep", *ON, "--vector", steer / "vector.safetensors", "--prompts", steer / "prompts.csv")
    return (*words, "--layers", "2", "--alphas=-1:1:3", "--scope", "from-edge", "--controls", 1, "--out", out, *more)


def test_the_sweep_is_the_python_interface(swept: Path, steer: Path) -> None:
    made = DoseResponse.load(swept / "s.parquet")
    options = DoseOptions(layers=(2,), alphas=(-1.0, 1.0), scope="from-edge", controls=1, max_new_tokens=300)
    expected = dose_response(organism("cliff"), refusal_direction(), load_prompts(steer / "prompts.csv"), options)
    assert made.rows == expected.rows and made.facts == expected.facts
    assert {path.name for path in swept.iterdir()} == {"s.parquet", "s.html"}


def test_what_the_sweep_prints(forks: Forks, swept: Path, steer: Path) -> None:
    """Run again: it is finished, and says the same of another target without measuring anything."""
    before = contents(swept)
    said = table(forks.run(*sweep(steer, swept / "s.parquet"))).splitlines()
    assert contents(swept) == before
    made = DoseResponse.load(swept / "s.parquet")
    asr = {row["alpha"]: row["asr"] for row in made.rows if row["draw"] is None}
    assert said[0] == "organism:cliff: doses of refusal, by layer and α"
    assert said[1].split() == ["ASR", "unsteered", "α", "=", "-1", "α", "=", "1"]
    assert said[2].split() == ["layer", "2", *(f"{asr[alpha]:.3f}" for alpha in (0, -1, 1))]
    assert said[4].startswith("benign refused")
    assert said[-2] == made.smallest().evidence and "is α = 1 at layer 2" in said[-2]
    found = payload(forks.run(*sweep(steer, swept / "s.parquet", "--max-asr", 1, "--json")))
    assert found["smallest"]["result"] == "nothing to repair" and found["smallest"]["target"]["asr"] == 1
    assert len(found["rows"]) == 5 and found["rows"][0]["layer"] is None
    (swept / "s.html").write_bytes(before["s.html"] or b"")


def test_two_files_with_the_same_ids_and_a_page_elsewhere(forks: Forks, steer: Path, tmp_path: Path) -> None:
    words = ("steer", "sweep", *ON, "--vector", steer / "vector.safetensors", "--prompts", steer / "harmful.jsonl")
    words += ("--benign", steer / "benign.jsonl", "--limit", 2, "--layers", 3, "--mode", "ablate", "--controls", 0)
    words += ("--out", tmp_path / "s.parquet", "--page", tmp_path / "p.html", "--json")
    found = payload(forks.run(*words))
    assert [row["alpha"] for row in found["rows"]] == [0, 0.25, 0.5, 0.75, 1]
    assert {(row["n_harmful"], row["n_benign"]) for row in found["rows"]} == {(2, 2)}
    assert {path.name for path in tmp_path.iterdir()} == {"s.parquet", "p.html"}


def test_apply_is_rollout_with_a_vector_and_its_rollouts_tell_which(forks: Forks, steer: Path, tmp_path: Path) -> None:
    how = ("--vector", steer / "vector.safetensors", "--alpha", "1.0", "--scope", "from-edge", "--json")
    files = ("--prompts", steer / "prompts.csv", "--batch-size", 5)
    payload(forks.run("steer", "apply", *ON, *how, *files, "--out", tmp_path / "a.jsonl"))
    payload(forks.run("rollout", *ON, *how, *files, "--out", tmp_path / "b.jsonl"))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    made = read_rollouts(tmp_path / "a.jsonl")
    (name,) = {rollout.model for rollout in made}
    assert name is not None and name.startswith("organism:cliff + vector ")
    assert name.endswith(" add 1.0 scale at blocks.3.hook_resid_post in from-edge")
    # As the Python interface generates them.
    from interp.rollouts.model_generator import ModelGenerator

    generator, change = ModelGenerator(organism("cliff"), 300), steering(refusal_direction(), 1.0, scope="from-edge")
    expected = answer(generator, load_prompts(steer / "prompts.csv"), [change])
    assert [(r.id, r.thinking, r.response, r.refused) for r in made] == [
        (r.id, r.thinking, r.response, r.refused) for r in expected
    ]


def test_a_job_with_another_dose_is_not_taken_up(forks: Forks, steer: Path, tmp_path: Path) -> None:
    words = ("steer", "apply", *ON, "--vector", steer / "vector.safetensors", "--prompts", steer / "prompts.csv")
    words += ("--limit", 2, "--out", tmp_path / "r.jsonl")
    assert forks.run(*words, "--alpha", 1).code == 0
    said = refusal(forks.run(*words, "--alpha", 1.0000001))
    assert "is there already, made with other settings (settings.model is" in said


def test_a_vector_that_changes_nothing_is_told(forks: Forks, steer: Path, tmp_path: Path) -> None:
    words = ("steer", "apply", *ON, "--vector", steer / "vector.safetensors", "--prompts", steer / "prompts.csv")
    found = payload(forks.run(*words, "--limit", 2, "--alpha", 0, "--out", tmp_path / "r.jsonl", "--json"))
    assert len(found["idle"]) == 1 and "AddDirection was active" in found["idle"][0]
    found = payload(forks.run(*words, "--limit", 2, "--alpha", 1, "--out", tmp_path / "s.jsonl", "--json"))
    assert found["idle"] == []


def test_evaluate_with_a_vector_at_several_layers(forks: Forks, steer: Path, tmp_path: Path) -> None:
    words = ("evaluate", *ON, "--prompts", steer / "harmful.jsonl", "--benign", steer / "benign.jsonl", "--limit", 3)
    how = ("--vector", steer / "vector.safetensors", "--alpha", 0.5, "--layer", "3,2", "--scope", "from-edge")
    payload(forks.run(*words, *how, "--out", tmp_path / "e.json", "--json"))
    made = Evaluation.load(tmp_path / "e.json")
    (name,) = made.interventions
    sites = "blocks.2.hook_resid_post,blocks.3.hook_resid_post"
    assert name.startswith("vector ") and name.endswith(f" add 0.5 scale at {sites} in from-edge")
    assert made.facts["vector"]["alpha"] == 0.5 and made.kl.value is not None and made.kl.value > 0


@pytest.mark.slow
def test_killed_it_goes_on(forks: Forks, steer: Path, tmp_path: Path) -> None:
    words = sweep(steer, "s.parquet", "--limit", 3)
    (tmp_path / "whole").mkdir()
    whole = forks.run(*words, cwd=tmp_path / "whole")
    log = tmp_path / "cut" / ".s.parquet.partial"
    moment = when(lambda folder: log.exists() and log.read_bytes().count(b"\n") > 2, 0)
    first, second = killed_and_run_again(forks, words, tmp_path / "cut", moment)
    assert first.code == -9 and second.code == 0 and second.stdout == whole.stdout
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("text", "doses"),
    [
        ("-4:4:9", tuple(range(-4, 5))),
        ("0:1:11", (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)),
        ("4:2:2", (4, 2)),
        ("0.5", (0.5,)),
        ("1, -2,3e-1", (1, -2, 0.3)),
    ],
)
def test_doses(text: str, doses: tuple[float, ...]) -> None:
    assert parse_alphas(text) == doses


@pytest.mark.parametrize("text", ["", "a", "1,", "1:2", "1:2:3:4", "1:2:1", "1:2:0.5", "1:2:5000", "1:b:3"])
def test_malformed_doses(text: str) -> None:
    with pytest.raises(CliffscopeError, match=r"--alphas .*START:STOP:COUNT"):
        parse_alphas(text)


def fitted(site: str | None = "blocks.1.hook_resid_post", width: int = 32, **facts: object) -> Spoil:
    """A vector for the tiny checkpoint."""

    def write(folder: Path) -> None:
        made = Direction.of(torch.ones(width), kind="refusal", layer=1, site=site, **facts)  # type: ignore[arg-type]
        made.save(folder / "vector.safetensors")

    return write


def both(spoil: Spoil) -> Spoil:
    """A good vector, and then something else."""
    return lambda folder: (fitted()(folder), spoil(folder))


DOSES = "steer sweep --model {tiny} --vector vector.safetensors --prompts prompts.csv --layers 1 --out out.parquet"
APPLY = ROLLOUT.replace("rollout", "steer apply", 1) + " --vector vector.safetensors --alpha 1"
STEERED = ROLLOUT + " --vector vector.safetensors --alpha 1"
EVALUATE = "evaluate --model {tiny} --prompts plain.csv --benign plain.csv --vector vector.safetensors --out out.json"
OF_ANOTHER = fitted(model="deep", fingerprint={"architecture": "X", "n_layers": "9"})

CASES = [
    *(
        case
        for name, command in (("sweep", DOSES), ("apply", APPLY), ("rollout", STEERED))
        for case in (
            Case(f"{name}: no vector", command, ["vector.safetensors: no such file"]),
            Case(
                f"{name}: not a vector", command.replace("vector.saf", "probe.saf"), ["probe.safetensors: no steering"]
            ),
            Case(
                f"{name}: torn",
                command,
                ["vector.safetensors: not a safetensors"],
                both(truncated("vector.safetensors")),
            ),
            Case(f"{name}: other model", command, ["vector.safetensors", "fit one for this model"], OF_ANOTHER),
            Case(f"{name}: other width", command, ["vector.safetensors", "width 7"], fitted(width=7)),
            Case(f"{name}: scope", command + " --scope nowhere", ["scope 'nowhere'", "from-edge"], fitted()),
            Case(f"{name}: window", command + " --scope thinking:0.9-0.2", ["thinking"], fitted()),
            Case(f"{name}: a map's mode", command + " --mode transport", ["'transport'", "direction"], fitted()),
            Case(f"{name}: no prompts", command.replace("prompts.csv", "no.csv"), ["no.csv: no such"], fitted()),
            Case(f"{name}: out the vector", f"{command} --out vector.safetensors", ["is an input of this"], fitted()),
        )
    ),
    Case("apply: alpha NaN", APPLY.replace("--alpha 1", "--alpha nan"), ["alpha", "finite", "nan"], fitted()),
    Case("apply: no alpha", APPLY.replace("--alpha 1", ""), ["'add' needs an alpha"], fitted()),
    Case("apply: layer beyond", APPLY + " --layer 9", ["no layer 9", "layers 0 to 3"], fitted()),
    Case("apply: layer a word", APPLY + " --layer deep", ["--layer 'deep'", "numbers"], fitted()),
    Case("apply: nowhere", APPLY, ["vector.safetensors", "site"], fitted(site=None)),
    Case("rollout: alpha alone", ROLLOUT + " --alpha 1", ["--alpha", "no --vector"]),
    Case("rollout: scope alone", ROLLOUT + " --scope edge", ["--scope", "no --vector"]),
    Case(
        "rollout: a vector on a server",
        STEERED + " --endpoint http://localhost:{port}",
        ["--vector acts on a model on this machine"],
        fitted(),
    ),
    Case("evaluate: other model", EVALUATE + " --alpha 1", ["vector.safetensors", "fit one"], OF_ANOTHER),
    Case("evaluate: no alpha", EVALUATE, ["needs an alpha"], fitted()),
    Case("sweep: alphas", DOSES + " --alphas 1:2", ["--alphas '1:2'", "START:STOP:COUNT"], fitted()),
    Case("sweep: alpha NaN", DOSES + " --alphas 1,nan", ["finite number, found nan"], fitted()),
    Case("sweep: only 0", DOSES + " --alphas 0", ["no α other than 0"], fitted()),
    Case("sweep: a dose twice", DOSES + " --alphas 1,1", ["the same α is given twice"], fitted()),
    Case("sweep: layer beyond", DOSES.replace("--layers 1", "--layers 9"), ["no layer 9", "layers 0 to 3"], fitted()),
    Case("sweep: layer a word", DOSES.replace("--layers 1", "--layers deep"), ["--layers 'deep'"], fitted()),
    Case("sweep: no labels", DOSES.replace("prompts.csv", "plain.csv"), ["plain.csv", "not known whether"], fitted()),
    Case("sweep: only harmful", DOSES + " --limit 3", ["prompts.csv: no benign prompts"], fitted()),
    Case("sweep: out a page", DOSES.replace("out.parquet", "out.html"), ["ends with .parquet"], fitted()),
    Case(
        "sweep: something is there",
        DOSES,
        ["out.parquet: is there already, and no table"],
        both(text("out.parquet", "x")),
    ),
    Case("sweep: the page an input", DOSES + " --page prompts.csv", ["prompts.csv: is an input"], fitted()),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input(case: Case, forks: Forks, models: dict[str, str], folder: Path, data: Path) -> None:
    (folder / "plain.csv").write_bytes((data / "plain.csv").read_bytes())
    case.check(forks, models, folder)


@pytest.mark.parametrize(
    "command",
    [
        APPLY.replace("--vector vector.safetensors", ""),
        APPLY + " --mode push",
        APPLY + " --units miles",
        DOSES + " --controls -1",
        DOSES + " --max-asr 2",
        APPLY + " --endpoint http://localhost",
    ],
)
def test_usage(command: str, forks: Forks, models: dict[str, str], folder: Path) -> None:
    check_usage(command, forks, models, folder)
