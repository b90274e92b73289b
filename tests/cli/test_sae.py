"""`cliffscope sae`: an SAE of the organism trained, ranked, steered by and taken as a direction; bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sae_lens
import torch

from interp.rollouts import read_rollouts
from interventions.directions import Direction
from interventions.latents import LatentScores, load_latents, rank_latents
from tests.circuits.material import organism
from tests.cli.bad_input import ROLLOUTS, Case, Spoil, check_usage, contents, line, only, text
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table
from tests.interventions.latents.material import SITE, random_sae, training_rollouts
from tests.interventions.latents.material import trained as trained_sae

ON = ("--model", "organism:cliff", "--device", "cpu")
DEAD = 5
"""A latent of the test's SAE that is active nowhere."""


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory, cliff: Path) -> Path:
    """`sae`: the organism's, with one dead latent; `rollouts.jsonl`; 4 complied and 2 benign `prompts.csv`."""
    folder = tmp_path_factory.mktemp("sae")
    latents = trained_sae()
    latents.save(folder / "sae")
    plain = sae_lens.SAE.load_from_disk(folder / "sae")
    with torch.no_grad():
        plain.threshold[DEAD] = 1e6
    plain.save_model(folder / "sae")
    rows = read_rollouts(cliff / "rollouts.jsonl")
    (folder / "rollouts.jsonl").write_bytes((cliff / "rollouts.jsonl").read_bytes())
    complied = sorted((r for r in rows if r.outcome == "complied"), key=lambda r: len(r.thinking or ""))[:4]
    benign = sorted((r for r in rows if r.outcome == "benign"), key=lambda r: len(r.thinking or ""))[:2]
    lines = "".join(f'"{r.prompt}",{str(r.harmful).lower()}\n' for r in [*complied, *benign])
    (folder / "prompts.csv").write_text("goal,harmful\n" + lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory, sae: Path, forks: Forks) -> Path:
    """The table of its latents."""
    out = tmp_path_factory.mktemp("latents") / "latents.parquet"
    done = forks.run(*rank(sae, out, "--json"))
    payload(done)
    return out


def rank(sae: Path, out: Path, *more: object) -> tuple[object, ...]:
    words = ("sae", "rank", *ON, "--sae", sae / "sae", "--rollouts", sae / "rollouts.jsonl", "--out", out)
    return (*words, "--shuffles", 999, *more)


def steer(sae: Path, out: Path, latent: object, *more: object) -> tuple[object, ...]:
    words = ("sae", "steer", *ON, "--sae", sae / "sae", "--latent", latent, "--prompts", sae / "prompts.csv")
    return (*words, "--max-new-tokens", 160, "--out", out, *more)


def best(table: Path) -> int:
    return int(LatentScores.load(table).table.query("sign == 1")["latent"].iloc[0])


def test_train_writes_what_sae_lens_reads(sae: Path, tmp_path: Path, forks: Forks) -> None:
    words = ("sae", "train", *ON, "--rollouts", sae / "rollouts.jsonl", "--site", SITE, "--width", 48, "--k", 4)
    done = forks.run(*words, "--steps", 20, "--batch", 128, "--out", tmp_path / "new", "--json", cwd=tmp_path)
    told = payload(done)
    assert sorted(contents(tmp_path)) == ["new", "new/cfg.json", "new/sae_weights.safetensors"]
    plain = sae_lens.SAE.load_from_disk(tmp_path / "new")
    assert (plain.cfg.d_sae, plain.cfg.d_in, plain.cfg.metadata.hook_name) == (48, 128, SITE)
    assert told["held_out"]["tokens"] > 0 and told["steps"] == 20 and told["sae"] in _digest(tmp_path / "new")
    shown = table(forks.run(*words, "--steps", 2, "--out", tmp_path / "new"))
    assert "variance explained, held out" in shown and f"Written to {tmp_path / 'new'}." in shown
    assert _digest(tmp_path / "new") != told["sae"]


def _digest(folder: Path) -> str:
    return load_latents(organism("cliff"), str(folder)).digest


def test_the_table_is_the_python_interface(sae: Path, latents: Path, tmp_path: Path, forks: Forks) -> None:
    made = LatentScores.load(latents)
    loaded = load_latents(organism("cliff"), str(sae / "sae"))
    expected = rank_latents(organism("cliff"), loaded, read_rollouts(sae / "rollouts.jsonl"), shuffles=999)
    pd.testing.assert_frame_equal(made.table, expected.table, atol=1e-5)
    assert made.facts["sae_digest"] == loaded.digest and made.facts["contrast"] == "refused-complied"
    top = made.table.iloc[0]
    assert max(top["auroc_held_out"], 1 - top["auroc_held_out"]) >= 0.95
    shown = table(
        forks.run(*rank(sae, tmp_path / "t.parquet", "--at", "inst,thinking", "--contrast", "harmful-benign"))
    )
    assert "of an untrained SAE as sparse as this one" in shown and "under shuffled labels" in shown
    again = LatentScores.load(tmp_path / "t.parquet")
    assert again.facts["at"] == ["inst", "thinking"] and again.facts["positive"] == 64


def test_steering_changes_the_answers_and_says_by_what(sae: Path, latents: Path, tmp_path: Path, forks: Forks) -> None:
    chosen = best(latents)
    active = float(LatentScores.load(latents).row(chosen)["mean_positive"])
    words = steer(sae, tmp_path / "out.jsonl", chosen, "--clamp", round(2 * active, 2), "--scope", "from-edge")
    told = payload(forks.run(*words, "--json"))
    assert told["outcomes"] == {"benign": 2, "refused": 4}
    assert 0 < told["tokens_changed"] == told["tokens_in_scope"]
    rollouts = read_rollouts(tmp_path / "out.jsonl")
    digest = _digest(sae / "sae")
    dose = f"latent {chosen} clamp {round(2 * active, 2)!r} at {SITE} in from-edge"
    assert {rollout.model for rollout in rollouts} == {f"organism:cliff + SAE {digest} {dose}"}
    settings = json.loads((tmp_path / "out.jsonl.settings.json").read_text())["settings"]
    assert settings["latents"]["latents"] == [chosen] and settings["latents"]["sae"] == digest
    # Run again there is nothing to do; with another dose it is another job.
    assert "Nothing to do" in table(forks.run(*words))
    said = refusal(forks.run(*steer(sae, tmp_path / "out.jsonl", chosen, "--clamp", 9, "--scope", "from-edge")))
    assert "made with other settings" in said


def test_ablating_and_adding(sae: Path, latents: Path, tmp_path: Path, forks: Forks) -> None:
    told = payload(forks.run(*steer(sae, tmp_path / "a.jsonl", f"{best(latents)},{DEAD}", "--ablate", "--json")))
    assert 0 < told["tokens_changed"] < told["tokens_in_scope"] and told["latents"]["change"] == "ablate"
    told = payload(forks.run(*steer(sae, tmp_path / "b.jsonl", DEAD, "--add=-0.5", "--json", "--first-token")))
    assert told["tokens_changed"] == told["tokens_in_scope"] and told["latents"]["amount"] == -0.5


@pytest.mark.parametrize("how", [["--ablate", "--batch-size", 4], ["--clamp", 0]])
def test_steering_that_changes_nothing_writes_nothing(
    sae: Path, tmp_path: Path, forks: Forks, how: list[object]
) -> None:
    said = refusal(forks.run(*steer(sae, tmp_path / "out.jsonl", DEAD, *how)))
    assert f"latent {DEAD}" in said and "changed nothing at the" in said
    assert contents(tmp_path) == {}


def test_a_latent_as_a_direction(sae: Path, latents: Path, tmp_path: Path, forks: Forks) -> None:
    chosen, loaded = best(latents), load_latents(organism("cliff"), str(sae / "sae"))
    words = ("sae", "direction", *ON, "--sae", sae / "sae", "--latent", chosen, "--out", tmp_path / "d.safetensors")
    payload(forks.run(*words, "--json"))
    plain = Direction.load(tmp_path / "d.safetensors")
    torch.testing.assert_close(plain.vector, loaded.direction(chosen).vector)
    told = payload(forks.run(*words, "--table", latents, "--kind", "refusal", "--json"))
    found = Direction.load(tmp_path / "d.safetensors")
    expected = LatentScores.load(latents).direction(loaded, chosen, kind="refusal")
    assert found.scale == pytest.approx(expected.scale) == told["scale"] and found.kind == "refusal"
    assert found.method == "latent" and found.site == SITE and found.training["latent"] == chosen


def test_without_sae_lens_the_extra_is_named(sae: Path, tmp_path: Path) -> None:
    words = [str(word) for word in rank(sae, tmp_path / "t.parquet")]
    code = f"import sys; sys.modules['sae_lens'] = None; sys.argv = ['cliffscope', *{words!r}]\n"
    code += "import interp.cli; interp.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "need sae-lens" in done.stderr and "pip install 'cliffscope[sae]'" in done.stderr


SAE = "--sae sae"
TRAIN = f"sae train {ROLLOUTS} --site blocks.1.hook_resid_post --width 16 --k 2 --steps 2 --batch 64 --out out"
RANK = f"sae rank {ROLLOUTS} {SAE} --shuffles 9 --out out.parquet"
STEER = f"sae steer --model {{tiny}} {SAE} --latent 1 --ablate --prompts prompts.csv --max-new-tokens 8 --out out.jsonl"
DIRECTION = f"sae direction --model {{tiny}} {SAE} --latent 1 --out out.safetensors"
ALL = {"train": TRAIN, "rank": RANK, "steer": STEER, "direction": DIRECTION}
OF_SAE = {name: command for name, command in ALL.items() if name != "train"}


def random_folder(folder: Path) -> None:
    """Puts an SAE of the tiny model's width in place."""
    sae = random_sae(hook_name="blocks.1.hook_resid_post")
    sae.save_model(folder / "sae")


def and_then(spoil: Spoil) -> Spoil:
    def both(folder: Path) -> None:
        random_folder(folder)
        spoil(folder)

    return both


def config(**changed: object) -> Spoil:
    def spoil(folder: Path) -> None:
        old = json.loads((folder / "sae" / "cfg.json").read_text(encoding="utf-8"))
        (folder / "sae" / "cfg.json").write_text(json.dumps({**old, **changed}), encoding="utf-8")

    return and_then(spoil)


def metadata(**changed: object) -> Spoil:
    def spoil(folder: Path) -> None:
        old = json.loads((folder / "sae" / "cfg.json").read_text(encoding="utf-8"))
        new = {**old, "metadata": {**old["metadata"], **changed}}
        (folder / "sae" / "cfg.json").write_text(json.dumps(new), encoding="utf-8")

    return and_then(spoil)


CASES = [
    *(
        Case(f"{name}: no such SAE", command.replace(SAE, "--sae none"), ["SAE 'none': no such folder", "RELEASE"])
        for name, command in OF_SAE.items()
    ),
    *(
        Case(
            f"{name}: an empty folder",
            command,
            ["sae: no cfg.json", "sae_weights"],
            lambda folder: (folder / "sae").mkdir(),
        )
        for name, command in OF_SAE.items()
    ),
    Case(
        "rank: no network",
        RANK.replace(SAE, "--sae gpt2-small-res-jb:blocks.8.hook_resid_pre"),
        ["SAE gpt2-small-res-jb:blocks.8.hook_resid_pre: cannot be loaded from the hub"],
    ),
    *(
        Case(f"{name}: NaN", command.replace("{tiny}", "{nan}").replace("blocks.1.", "blocks.3."), ["NaN", "float32"])
        for name, command in {"train": TRAIN}.items()
    ),
    *(
        Case(f"{name}: rollouts empty", ALL[name], ["rollouts.jsonl: no rollouts"], text("rollouts.jsonl", ""))
        for name in ("train", "rank")
    ),
    *(
        Case(f"{name}: broken JSON", ALL[name], ["rollouts.jsonl, line 3", "not valid JSON"], line(3, "{"))
        for name in ("train", "rank")
    ),
    *(
        Case(
            f"{name}: no chat template",
            command.replace("{tiny}", "{untemplated}"),
            ["chat template", "instruction-tuned"],
            random_folder,
        )
        for name, command in ALL.items()
        if name != "direction"
    ),
    *(
        Case(
            f"{name}: out under a file",
            command.replace("--out ", "--out prompts.csv/"),
            ["prompts.csv", "not a folder"],
            random_folder,
        )
        for name, command in ALL.items()
    ),
    *(
        Case(
            f"{name}: full disk", command, ["out", "cannot be written", "File too large"], random_folder, file_size=100
        )
        for name, command in ALL.items()
        if name != "steer"
    ),
    Case("train: unknown site", TRAIN.replace("hook_resid_post", "resid"), ["Unknown site 'blocks.1.resid'"]),
    Case("train: no such layer", TRAIN.replace("blocks.1", "blocks.4"), ["layer 4", "0 to 3"]),
    Case("train: unknown segment", TRAIN + " --segments thoughts", ["segment 'thoughts'", "thinking"]),
    Case("train: k", TRAIN.replace("--k 2", "--k 17"), ["17 latents cannot be active", "16"]),
    Case("train: rate", TRAIN + " --lr nan", ["expected a rate above 0"]),
    Case(
        "train: few tokens", TRAIN.replace("--batch 64", "--batch 99999"), ["rollouts.jsonl", "fewer than one step's"]
    ),
    Case("train: one prompt", TRAIN, ["rollouts.jsonl: 1 different prompts"], only(lambda r: r.id == "h0-0")),
    Case("train: out is a file", TRAIN.replace("--out out", "--out prompts.csv"), ["prompts.csv", "not a folder"]),
    Case(
        "rank: one class",
        RANK,
        ["rollouts.jsonl: none answered a harmful"],
        and_then(only(lambda r: r.outcome != "complied")),
    ),
    Case("rank: unknown position", RANK + " --at edge", ["'edge'", "close:-1"], random_folder),
    Case("rank: share", RANK + " --test-fraction 1", ["held-out share", "found 9 and 1"], random_folder),
    Case("rank: out the rollouts", RANK.replace("out.parquet", "rollouts.jsonl"), ["is an input"], random_folder),
    Case("rank: no such generic", RANK + " --generic no.jsonl", ["no.jsonl: no such file"], random_folder),
    Case(
        "rank: another site",
        RANK + " --site blocks.2.hook_resid_post",
        ["sae: was trained at blocks.1", "leave the site"],
        random_folder,
    ),
    Case(
        "rank: another width",
        RANK,
        ["sae", "width 48", "width 32"],
        lambda folder: random_sae(d_in=48, hook_name="blocks.1.hook_resid_post").save_model(folder / "sae"),
    ),
    Case(
        "rank: no site",
        RANK,
        ["sae: does not say at which site", "--site"],
        lambda folder: random_sae().save_model(folder / "sae"),
    ),
    Case(
        "rank: another model",
        RANK,
        ["sae: made for M", "n_layers 9 there, 4 here", "train one on this model"],
        metadata(cliffscope={"model": "M", "fingerprint": {"n_layers": "9"}}),
    ),
    Case("rank: config broken", RANK, ["cfg.json: not valid JSON"], and_then(text("sae/cfg.json", "{"))),
    Case(
        "rank: weights broken",
        RANK,
        ["sae: sae-lens cannot load it"],
        and_then(text("sae/sae_weights.safetensors", "no")),
    ),
    Case(
        "rank: unknown architecture", RANK, ["sae: sae-lens cannot load it", "unheard"], config(architecture="unheard")
    ),
    Case("rank: a head alone", RANK, ["reads one head alone"], metadata(hook_head_index=1)),
    Case("steer: nothing to do", STEER.replace("--ablate", ""), ["--clamp", "--ablate", "--add"], random_folder),
    Case("steer: two things to do", STEER + " --add 1", ["one of --clamp"], random_folder),
    Case("steer: latent in words", STEER.replace("--latent 1", "--latent first"), ["--latent 'first'"], random_folder),
    Case(
        "steer: no such latent", STEER.replace("--latent 1", "--latent 24"), ["no latent 24", "0 to 23"], random_folder
    ),
    Case("steer: latent twice", STEER.replace("--latent 1", "--latent 1,1"), ["each once", "[1, 1]"], random_folder),
    Case("steer: endless", STEER.replace("--ablate", "--clamp inf"), ["clamp: expected a finite"], random_folder),
    Case("steer: unknown scope", STEER + " --scope there", ["scope 'there'", "from-edge"], random_folder),
    Case("steer: prompts missing", STEER.replace("prompts.csv", "no.csv"), ["no.csv: no such file"], random_folder),
    Case("steer: no token in the scope", STEER + " --scope system", ["'system' holds no token"], random_folder),
    Case("direction: no such latent", DIRECTION.replace("--latent 1", "--latent 24"), ["no latent 24"], random_folder),
    Case(
        "direction: not a table",
        DIRECTION + " --table heads.parquet",
        ["heads.parquet: not a table of latents"],
        random_folder,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case: Case, forks: Forks, models: dict[str, str], folder: Path) -> None:
    case.check(forks, models, folder)


@pytest.mark.parametrize(
    "words", ["sae train --width 0", "sae rank --pool sum", "sae steer --latent 1", "sae direction --latent -1"]
)
def test_usage(words: str, forks: Forks, models: dict[str, str], folder: Path) -> None:
    check_usage(words, forks, models, folder)


def test_remarks_are_told(sae: Path, tmp_path: Path, forks: Forks) -> None:
    """An SAE of another model with the same sizes may be used, and that is said."""
    words = rank(sae, tmp_path / "t.parquet", "--json")
    told = payload(forks.run(*(word if word != "organism:cliff" else "organism:aligned" for word in words)))
    assert told["remarks"] == [f"{sae / 'sae'} says that it was trained on organism:cliff; this is organism:aligned."]
    assert np.isfinite(told["trained"]["best_auroc"]) and len(training_rollouts()) > 0
