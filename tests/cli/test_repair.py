"""`cliffscope repair`: what it writes and says, bad input, and what is left when it is killed."""

import json
import random
from pathlib import Path

import pytest
import torch

from interp.models.hooked_model import HookedModel
from interp.rollouts import write_rollouts
from interventions.masks.head_mask import HeadMask
from selection.examples import SelectedExample, TrainingExample, write_examples
from tests.cli import material
from tests.cli.forks import Done, Forks
from tests.cli.test_kill import contents, killed_and_run_again, when

REFUSAL = "I'm sorry, I can't help with that."


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, forks: Forks) -> Path:
    """Chosen examples, rollouts and a mask. Not to be written into."""
    forks.preload("selection.repair.run", "selection.repair.trainer")
    folder = tmp_path_factory.mktemp("repair")
    model = HookedModel.load(str(checkpoint), device="cpu")
    rollouts = material.rollouts()
    complied = [rollout for rollout in rollouts if rollout.outcome == "complied"]
    chosen = [
        SelectedExample(
            TrainingExample(r.id, r.prompt, r.thinking, REFUSAL, True, r.category), rank, 0.5, 0.9, 0.4, "largest cliff"
        )
        for rank, r in enumerate(complied, start=1)
    ]
    write_examples(folder / "selected.jsonl", chosen, "messages", model.chat)
    write_rollouts(folder / "rollouts.jsonl", rollouts)
    HeadMask.build(model, [(0, 1), (2, 3)]).save(folder / "mask.safetensors")
    return folder


def words(checkpoint: Path, given: Path, *more: object) -> tuple[object, ...]:
    data = ("--data", given / "selected.jsonl", "--learning-rate", "1e-2", "--device", "cpu")
    return ("repair", "--model", checkpoint, *data, "--out", "out", *more)


def payload(done: Done) -> dict[str, object]:
    assert done.code == 0 and done.stderr == "", done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict) and done.stdout.count("\n") == 1
    return found


@pytest.mark.slow
def test_heads_under_a_mask_with_benign_ones(forks: Forks, checkpoint: Path, given: Path, tmp_path: Path) -> None:
    mask = given / "mask.safetensors"
    other = HeadMask.build(HookedModel.load(str(checkpoint), device="cpu"), [(1, 0)])
    other.save(tmp_path / "active.safetensors")
    more = ("--trainable", "heads", "--mask", mask, "--train-under", tmp_path / "active.safetensors", "--epochs", 2)
    more += ("--mix-benign", given / "rollouts.jsonl", "--benign-share", 0.25, "--loss-on", "close")
    done = forks.run(*words(checkpoint, given, *more), cwd=tmp_path)
    assert done.code == 0 and done.stderr == "", done.stderr
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines()[1:-1])
    assert lines["trained"].strip() == "heads: 2,048 parameters"  # 2 heads by 2 projections by 16 by 32
    assert lines["examples"].strip() == "16, of them 4 benign"
    assert lines["steps"].strip() == "4" and done.stdout.endswith("Written to out.\n")
    base, after = (HookedModel.load(str(path), device="cpu").hf.state_dict() for path in (checkpoint, tmp_path / "out"))
    changed = {name for name, value in after.items() if not torch.equal(value, base[name])}
    assert changed == {f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in (0, 2) for part in "qo"}
    again = payload(forks.run(*words(checkpoint, given, *more), "--json", cwd=tmp_path))
    assert again["was_complete"] is True and again["steps"] == 4
    assert {path.name for path in tmp_path.iterdir()} == {"out", "active.safetensors"}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--trainable", "heads"), ["--trainable heads and --mask go together"]),
        (("--mask", "{given}/mask.safetensors"), ["--trainable heads and --mask go together", "--train-under"]),
        (("--benign-share", 0.5), ["--benign-share needs --mix-benign"]),
        (("--data", "no.jsonl"), ["no.jsonl: no such file"]),
        (("--data", "broken.jsonl"), ["broken.jsonl, line 2: not valid JSON"]),
        (("--data", "empty.jsonl"), ["empty.jsonl"]),
        (("--out", "full"), ["full: already there; give a new or an empty folder"]),
        (("--out", "empty.jsonl"), ["empty.jsonl", "not a folder"]),
        (("--out", "{checkpoint}"), ["holds the model that is to be repaired"]),
        (("--trainable", "heads", "--mask", "other.safetensors"), ["head 9.0", "layers are 0 to 3"]),
        (("--train-under", "other.safetensors"), ["mask: made for"]),
        (("--train-under", "empty.jsonl"), ["empty.jsonl: not"]),
        (("--mix-benign", "no.jsonl"), ["no.jsonl: no such file"]),
        (("--mix-benign", "{given}/rollouts.jsonl", "--benign-share", 0.9), ["needs 108 benign ones, found 24"]),
        (("--max-length", 40), ["nothing of its response is left to learn", "cut off after 40"]),
        (("--learning-rate", -1), ["learning_rate is -1.0"]),
        (("--device-batch-size", 3), ["a batch of 8 cannot be divided"]),
        (("--fsdp",), ["run it under torchrun"]),
        (("--keep-adapter",), ["there is no adapter to keep"]),
        (("--model", "{bare}"), ["no chat template"]),
    ],
    ids=lambda value: None if isinstance(value, list) else " ".join(map(str, value)).replace("/", "|"),
)
@pytest.mark.slow
def test_bad_input(
    more: tuple[object, ...], says: list[str], forks: Forks, checkpoint: Path, given: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text((given / "selected.jsonl").read_text().splitlines()[0] + "\n{\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    scale = torch.ones(12, 4)
    scale[9, 0] = 0
    HeadMask(scale, model="a larger model").save(tmp_path / "other.safetensors")
    places = {"given": given, "checkpoint": checkpoint}
    if "{bare}" in more:
        places["bare"] = material.checkpoint(tmp_path / "bare", style="none")
    before = {path.name for path in tmp_path.iterdir()}
    filled = [word.format(**places) if isinstance(word, str) else word for word in more]
    done = forks.run(*words(checkpoint, given, *filled), cwd=tmp_path)
    assert done.code == 2 and done.stdout == "", done.stderr
    assert done.stderr.startswith("cliffscope: error: ") and done.stderr.count("\n") == 1, done.stderr
    for piece in says:
        assert piece in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_full_disk(forks: Forks, checkpoint: Path, given: Path, tmp_path: Path) -> None:
    """It is full when the optimizer's state is written, which torch says in words of its own."""
    done = forks.run(*words(checkpoint, given), cwd=tmp_path, file_size=500_000)
    assert done.code == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "out: cannot be written" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    forks: Forks, checkpoint: Path, given: Path, tmp_path: Path
) -> None:
    command = words(checkpoint, given, "--epochs", 5, "--batch-size", 4, "--checkpoint-every", 2, "--json")
    whole = tmp_path / "whole"
    whole.mkdir()
    assert payload(forks.run(*command, cwd=whole))["steps"] == 15
    rng = random.Random(0)
    resumed = []
    for number, checkpoints in enumerate((0, 1, 4)):

        def is_time(folder: Path, least: int = checkpoints) -> bool:
            log = folder / ".out.partial" / "log.jsonl"
            return log.exists() and log.read_bytes().count(b"\n") >= 1 + least

        moment = when(is_time, rng.uniform(0, 0.3))
        first, second = killed_and_run_again(forks, command, tmp_path / str(number), moment)
        assert first.code == -9
        resumed.append(payload(second)["resumed_from"])
        assert contents(tmp_path / str(number)) == contents(whole)
    assert resumed[0] < 15 and resumed[1] >= 2 and resumed[2] >= 8  # type: ignore[operator]


@pytest.mark.slow
def test_two_at_once_do_not_mix(forks: Forks, checkpoint: Path, given: Path, tmp_path: Path) -> None:
    command = words(checkpoint, given, "--epochs", 30)
    run = forks.start(*command, cwd=tmp_path)
    when(lambda folder: (folder / ".out.partial" / "log.jsonl").exists(), 0)(tmp_path)
    second = forks.run(*command, cwd=tmp_path)
    run.kill()
    run.wait()
    assert second.code == 2 and "another run is writing it" in second.stderr
