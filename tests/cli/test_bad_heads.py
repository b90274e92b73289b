"""Bad input of `cliffscope heads`, `cliffscope mask` and `--mask`: as in test_bad_input.py."""

import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.cli.bad_input import (
    ATTENTION,
    BUILD,
    CASCADE,
    CHECK,
    COMMANDS,
    CURVE,
    FIT,
    FOLD,
    RANK,
    ROLLOUT,
    SHOW,
    Case,
    check_usage,
    few,
    heads,
    line,
    mask,
    nothing_named,
    octets,
    on,
    one_nan,
    only,
    renamed,
    truncated,
)
from tests.cli.forks import Forks

SEARCHES = {"curve": CURVE, "cascade": CASCADE, "attention": ATTENTION}
"""They read the same files as `heads rank`, and say that there is nothing to explain before some of them matter."""
MASKS = {"show": SHOW, "check": CHECK, "fold": FOLD}
REAL = "--model organism:cliff --probe {cliff}/probe.safetensors --rollouts {cliff}/rollouts.jsonl --limit 8"

CASES = [
    # Searches for heads.
    *(
        case
        for name, command in SEARCHES.items()
        for case in (
            Case(f"{name}: rollouts missing", command.replace("rollouts.jsonl", "no.jsonl"), ["no.jsonl: no such"]),
            Case(f"{name}: broken JSON", command, ["line 3", "not valid JSON"], line(3, '{"id": x}')),
            Case(f"{name}: too long", on(command, "{short}"), ["limit is 32"]),
            Case(f"{name}: no chat template", on(command, "{untemplated}"), ["chat template"]),
            Case(f"{name}: under a file", command.replace("--out ", "--out prompts.csv/"), ["not a folder"]),
            Case(f"{name}: out the rollouts", command.replace("--out out", "--out rollouts.jsonl #"), ["is an input"]),
        )
    ),
    *(
        Case(f"{name}: other model", on(SEARCHES[name], "{deeper}"), ["probe.safetensors", "n_layers 4 there, 5 here"])
        for name in ("curve", "cascade")
    ),
    *(Case(f"{name}: NaN", on(SEARCHES[name], "{nan}"), ["NaN", "float32"]) for name in ("curve", "cascade")),
    *(
        Case(f"{name}: out a page", command.replace("out.parquet", "out.html"), ["out.html", "ends with .parquet"])
        for name, command in (("rank", RANK), ("curve", CURVE))
    ),
    *(
        Case(
            f"{name}: beside out the rollouts",
            command.replace("rollouts.jsonl", "out.html"),
            ["out.html: is an input"],
            renamed("rollouts.jsonl", "out.html"),
        )
        for name, command in (("rank", RANK), ("curve", CURVE))
    ),
    Case("curve: out the heads", CURVE.replace("out.parquet", "heads.parquet"), ["heads.parquet: is an input"]),
    Case("rank: gamma NaN", RANK + " --gamma nan", ["gamma nan", "finite number other than 1"]),
    Case("rank: gamma 1", RANK + " --gamma 1", ["gamma 1:", "would change nothing"]),
    Case("curve: gamma infinite", CURVE + " --gamma inf", ["gamma inf", "finite"]),
    Case("rank: unknown position", RANK + " --method interchange --positions close:-1,edge", ["'edge'", "close:-1"]),
    Case("rank: no position", RANK + " --method interchange --positions close:-1,", ["''", "not a position"]),
    Case(
        "rank: position beyond",
        f"heads rank {REAL} --method interchange --positions close:-9 --out out.parquet",
        ["rollouts.jsonl", "close:-9", "close has 4 tokens"],
    ),
    *(
        Case(f"{name}: no head {head!r}", command.replace("--head 1.2", f"--head '{head}'"), [f"head {head}", *says])
        for name, command in (("cascade", CASCADE), ("attention", ATTENTION))
        for head, says in (
            ("3.99", ["query heads 0 to 3", "2 key-value heads"]),
            ("9.1", ["no layer 9", "0 to 3"]),
        )
    ),
    *(
        Case(f"{name}: head in words", command.replace("--head 1.2", "--head x"), ["head 'x'", "LAYER.HEAD"])
        for name, command in (("cascade", CASCADE), ("attention", ATTENTION))
    ),
    Case("cascade: two heads", CASCADE.replace("1.2", "1.2,2.3"), ["'1.2,2.3'", "one head at a time"]),
    Case("attention: no such rollout", ATTENTION + " --id nobody", ["rollouts.jsonl", "id 'nobody'"]),
    Case("attention: none answered", ATTENTION, ["rollouts.jsonl", "answered a harmful", "--id"], few(8, 8)),
    Case("attention: no thinking", ATTENTION, ["rollouts.jsonl", "h0-1"], only(lambda r: True, thinking=None)),
    *(
        Case(f"curve: counts {counts!r}", CURVE + f" --counts '{counts}'", [f"--counts '{counts}'", says])
        for counts, says in (("1,x", "whole numbers"), ("", "whole numbers"), ("0", "above 0"), ("-1,2", "above 0"))
    ),
    Case("curve: too many heads", CURVE + " --counts 1,999", ["heads.parquet", "999 heads", "16 are ranked"]),
    Case("curve: no others left", CURVE + " --counts 9", ["heads.parquet", "9 of 16 heads", "at most 8"]),
    *(
        Case(f"{name}: full disk, real", command, ["out.", "cannot be written", "File too large"], file_size=100)
        for name, command in (
            ("curve", f"heads curve {REAL} --heads {{heads}} --counts 1 --random-sets 1 --prompts 0 --out out.parquet"),
            ("cascade", f"heads cascade {REAL} --head 3.1 --out out.parquet"),
            ("attention", ATTENTION),
        )
    ),
    # Tables of heads.
    *(
        case
        for name, command in (("curve", CURVE), ("build", BUILD))
        for case in (
            Case(f"{name}: heads missing", command.replace("heads.pa", "no.pa"), ["no.parquet: no such file"]),
            Case(f"{name}: heads truncated", command, ["heads.parquet: not a Parquet"], truncated("heads.parquet")),
            Case(
                f"{name}: rollouts for heads",
                command.replace("--heads heads.parquet", "--heads rollouts.jsonl"),
                ["rollouts.jsonl: not a Parquet file"],
            ),
            Case(
                f"{name}: a probe for heads",
                command.replace("--heads heads.parquet", "--heads probe.safetensors"),
                ["probe.safetensors: not a Parquet file"],
            ),
            Case(
                f"{name}: another table",
                command,
                ["heads.parquet: not a table of head scores", "cliffscope.heads"],
                lambda folder: pd.DataFrame({"layer": [1], "head": [2]}).to_parquet(folder / "heads.parquet"),
            ),
            Case(
                f"{name}: heads of another model",
                command,
                ["heads.parquet", "made for", "d_model 99 there, 32 here", "rank the heads of this model"],
                heads(fingerprint={"d_model": "99"}),
            ),
        )
    ),
    # Masks.
    Case("build: none named", BUILD, ["heads.parquet", "none to mask", "answered none of the 5"], nothing_named),
    Case("build: another model", BUILD + " --model {deeper}", ["heads.parquet", "n_layers 4 there, 5 here"]),
    Case("build: the model is gone", BUILD, ["'./gone'", "no such folder"], heads(model="./gone")),
    Case("build: the model was masked", BUILD, ["heads.parquet", "--model"], heads(model="./gone + mask 0a1b2c3d")),
    *(
        Case(f"build: fraction {value}", BUILD + f" --fraction {value}", ["fraction", "between 0 and 1", value])
        for value in ("2", "0", "-0.5", "nan")
    ),
    Case("build: count", BUILD + " --count 999", ["999 are asked for", "have a score above 0"]),
    Case("build: count and fraction", BUILD + " --count 2 --fraction 0.5", ["a count or a fraction, not both"]),
    *(
        Case(f"build: scale {value}", BUILD + f" --scale {value}", [f"--scale {value}", "finite number other than 1"])
        for value in ("nan", "inf", "1")
    ),
    Case("build: out the heads", BUILD.replace("out.safetensors", "heads.parquet"), ["heads.parquet: is an input"]),
    Case("build: under a file", BUILD.replace("--out ", "--out prompts.csv/"), ["not a folder"]),
    Case("build: full disk", BUILD, ["out.safetensors: cannot be written", "File too large"], file_size=100),
    *(
        Case(f"{name}: mask missing", command.replace("mask.saf", "no.saf"), ["no.safetensors: no such file"])
        for name, command in MASKS.items()
    ),
    *(
        case
        for name, command in (("show", SHOW), ("fold", FOLD))
        for case in (
            Case(f"{name}: mask a folder", command.replace("mask.safetensors", "."), [".: no such file"]),
            Case(f"{name}: truncated", command, ["mask.safetensors: not a saf"], truncated("mask.safetensors")),
            Case(
                f"{name}: pickle",
                command,
                ["mask.safetensors: not a safetensors file"],
                octets("mask.safetensors", pickle.dumps({"scale": [[0.0]]})),
            ),
            Case(f"{name}: a probe", command.replace("mask.saf", "probe.saf"), ["probe.safetensors: not a head mask"]),
            Case(f"{name}: NaN", command, ["mask.safetensors: 1 NaN", "'scale'"], mask(one_nan)),
            Case(
                f"{name}: of key-value heads",
                command,
                ["mask.safetensors: scale is [4, 2]", "key-value heads?", "4 layers of 4 query heads"],
                mask(lambda scale: scale[:, :2].contiguous()),
            ),
            Case(f"{name}: masks nothing", command, ["mask.safetensors", "masks nothing"], mask(torch.ones_like)),
            Case(f"{name}: of the future", command, ["mask.safetensors", "version '9'"], mask(version="9")),
            Case(f"{name}: bad metadata", command, ["mask.safetensors", "fingerprint", "JSON"], mask(fingerprint="{")),
        )
    ),
    *(
        case
        for name in ("check", "fold")
        for case in (
            Case(f"{name}: deeper", on(MASKS[name], "{deeper}"), ["mask.safetensors", "n_layers 4 there, 5 here"]),
            Case(
                f"{name}: other weights", on(MASKS[name], "{reseeded}"), ["mask.safetensors", "projections", "differ"]
            ),
            Case(
                f"{name}: unknown size",
                MASKS[name],
                ["mask.safetensors", "[4, 2]", "[4, 4]"],
                mask(lambda scale: scale[:, 2:].contiguous(), fingerprint="{}"),
            ),
        )
    ),
    Case("check: effect of another", CHECK, ["mask.safetensors", "deviates"], mask(lambda scale: scale * 0.5 + 0.5)),
    Case("fold: into a full folder", FOLD.replace("folded", "."), [".: already there", "empty folder"]),
    Case("fold: over a file", FOLD.replace("folded", "prompts.csv"), ["prompts.csv: already there"]),
    Case("fold: under a file", FOLD.replace("folded", "prompts.csv/folded"), ["prompts.csv/folded: cannot be written"]),
    Case("fold: full disk", FOLD, ["folded: cannot be written"], file_size=100),
    *(
        Case(f"{name}: no mask", command + " --mask no.safetensors", ["no.safetensors: no such file"])
        for name, command in {**COMMANDS, **SEARCHES}.items()
    ),
    *(
        Case(
            f"{name}: another's mask",
            on(command, "{reseeded}") + " --mask mask.safetensors",
            ["mask.safetensors", "projections", "differ"],
        )
        for name, command in (("rollout", ROLLOUT), ("fit", FIT), ("rank", RANK), ("attention", ATTENTION))
    ),
    Case(
        "out the mask",
        FIT + " --mask out.safetensors",
        ["out.safetensors: is an input"],
        renamed("mask.safetensors", "out.safetensors"),
    ),
    Case(
        "mask and endpoint",
        ROLLOUT + " --endpoint http://127.0.0.1:{port} --mask mask.safetensors",
        ["--mask", "not on a server"],
    ),
]

USAGE = [
    RANK + " --method forest",
    RANK + " --scope edge",
    RANK + " --steps -1",
    RANK + " --pairs 0",
    RANK + " --limit 0",
    CURVE + " --random-sets 0",
    CURVE + " --prompts -1",
    CASCADE.replace("--head 1.2", ""),
    BUILD + " --count 0",
    BUILD + " --scale much",
    "mask show",
    FOLD.replace("--out folded", ""),
]


@pytest.fixture(scope="module")
def places(models: dict[str, str], cliff: Path, heads: Path) -> dict[str, str]:
    """The checkpoints, and the files of an organism."""
    return {**models, "cliff": str(cliff), "heads": str(heads)}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input(case: Case, forks: Forks, places: dict[str, str], folder: Path) -> None:
    case.check(forks, places, folder)


@pytest.mark.parametrize("command", USAGE)
def test_usage(command: str, forks: Forks, places: dict[str, str], folder: Path) -> None:
    check_usage(command, forks, places, folder)


def test_a_case_name_is_used_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
