"""Bad input: one line on standard error that says what is wrong, exit code 2, and the disk as it was before.

One table drives it; heads and masks have their own in test_bad_heads.py. A case runs in a folder of its own with good
files, after what its `spoil` does to them.
"""

import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.cli.bad_input import (
    CLIFF,
    COMMANDS,
    FIT,
    PROBE,
    ROLLOUT,
    SCORE,
    STEER_CHOOSE,
    STEER_FIT,
    SWEEP,
    Case,
    arguments,
    check_usage,
    few,
    line,
    octets,
    on,
    only,
    probe,
    row,
    tensors,
    text,
    truncated,
)
from tests.cli.forks import Forks

READERS = {name: COMMANDS[name] for name in ("fit", "sweep", "score", "cliff", "rank")}
ALL_MODELS = {**COMMANDS, "inspect": "inspect --model {tiny}"}
STEERS = {"steer fit": STEER_FIT, "steer choose": STEER_CHOOSE}
WORDS = "word " * 200

CASES = [
    # Files of rollouts.
    *(
        Case(f"{name}: rollouts missing", command.replace("rollouts.jsonl", "no.jsonl"), ["no.jsonl: no such file"])
        for name, command in READERS.items()
    ),
    *(
        Case(
            f"{name}: rollouts empty",
            command,
            ["rollouts.jsonl: no rollouts", "cliffscope rollout"],
            text("rollouts.jsonl", ""),
        )
        for name, command in READERS.items()
    ),
    Case("rollouts blank", FIT, ["rollouts.jsonl: no rollouts"], text("rollouts.jsonl", "\n  \n")),
    Case("rollouts a folder", FIT.replace("rollouts.jsonl", "."), [".: cannot be read", "directory"]),
    *(
        Case(
            f"{name}: broken JSON",
            command,
            ["rollouts.jsonl, line 3", "not valid JSON", "column 8"],
            line(3, '{"id": x}'),
        )
        for name, command in READERS.items()
    ),
    Case("cut in the middle", FIT, ["rollouts.jsonl, line 48", "not valid JSON"], truncated("rollouts.jsonl")),
    Case("line not an object", FIT, ["rollouts.jsonl, line 2", "expected a JSON object", "list"], line(2, "[1, 2]")),
    Case("no thinking key", FIT, ["line 5", "no 'thinking'"], row(5, thinking=...)),
    Case("misspelt key", FIT, ["line 5", "unknown 'catgory'"], row(5, catgory="x")),
    Case("wrong type", FIT, ["line 7", "'harmful' must be true, false or null", "'yes'"], row(7, harmful="yes")),
    Case("refused without response", FIT, ["line 1", "'refused' must be null"], row(1, response=None)),
    Case("id twice", FIT, ["line 2", "'h0-0' is already on line 1"], row(2, id="h0-0")),
    Case("half a character", FIT, ["line 4", "'prompt'", "surrogate"], row(4, prompt="a \ud800")),
    Case("not UTF-8", FIT, ["rollouts.jsonl", "not UTF-8"], octets("rollouts.jsonl", b'{"id": "\xff"}\n')),
    Case("a CSV", FIT.replace("rollouts.jsonl", "prompts.csv"), ["prompts.csv, line 1", "not valid JSON"]),
    # What the rollouts are.
    *(
        Case(
            f"{name}: one class",
            COMMANDS[name],
            ["rollouts.jsonl", "one class only", "none answered a benign prompt"],
            only(lambda r: r.harmful),
        )
        for name in ("fit", "sweep")
    ),
    Case("none refused", FIT, ["rollouts.jsonl", "none refused a harmful prompt"], only(lambda r: not r.refused)),
    Case(
        "not judged",
        FIT,
        ["rollouts.jsonl", "one class only", "48 left out: not judged"],
        only(lambda r: True, refused=None),
    ),
    Case(
        "not labelled",
        FIT,
        ["48 left out: not known whether the prompt is harmful"],
        only(lambda r: True, harmful=None),
    ),
    *(
        Case(
            f"{name}: fewer than 8",
            COMMANDS[name],
            ["rollouts.jsonl", "3 refused and 4 benign", "at least 8"],
            few(3, 4),
        )
        for name in ("fit", "sweep")
    ),
    Case("one of a class", FIT, ["rollouts.jsonl", "1 different prompts", "add refused harmful"], few(1, 12)),
    Case(
        "no thinking, cliff",
        CLIFF,
        ["rollouts.jsonl", "thinking absent", "reasoning model"],
        only(lambda r: True, thinking=None),
    ),
    Case(
        "unclosed, cliff",
        CLIFF,
        ["rollouts.jsonl", "thinking unclosed", "--max-new-tokens"],
        only(lambda r: True, response=None, refused=None),
    ),
    Case("empty thinking, cliff", CLIFF, ["rollouts.jsonl", "thinking empty"], only(lambda r: True, thinking="")),
    Case("no thinking, fit", FIT, ["rollouts.jsonl", "lacks close:-1"], only(lambda r: True, thinking=None)),
    Case("no thinking, sweep", SWEEP, ["rollouts.jsonl", "lacks think:0.25"], only(lambda r: True, thinking=None)),
    *(
        Case(
            f"{name}: too long",
            COMMANDS[name].replace("{tiny}", "{short}"),
            ["rollouts.jsonl", "rollout '", "the limit is 32"],
        )
        for name in READERS
    ),
    # Probes.
    *(
        case
        for name in ("score", "cliff", "rank")
        for case in (
            Case(f"{name}: no probe", COMMANDS[name].replace("probe.saf", "no.saf"), ["no.safetensors: no such file"]),
            Case(
                f"{name}: other model",
                on(COMMANDS[name], "{deeper}"),
                ["probe.safetensors", "n_layers 4 there, 5 here", "fit one for this model"],
            ),
            Case(
                f"{name}: pickle",
                COMMANDS[name],
                ["probe.safetensors", "not a safetensors file"],
                octets("probe.safetensors", pickle.dumps({"weight": [1.0]})),
            ),
            Case(
                f"{name}: truncated",
                COMMANDS[name],
                ["probe.safetensors", "not a safetensors file"],
                truncated("probe.safetensors"),
            ),
        )
    ),
    Case(
        "probe a torch file",
        SCORE,
        ["probe.safetensors", "not a safetensors file"],
        lambda folder: torch.save({"weight": torch.ones(3)}, folder / "probe.safetensors"),
    ),
    Case("probe empty", SCORE, ["probe.safetensors", "not a safetensors file"], octets("probe.safetensors", b"")),
    Case("probe a folder", SCORE.replace("--probe probe.safetensors", "--probe ."), [".: no such file"]),
    Case("other safetensors", SCORE, ["probe.safetensors: not a probe", "cliffscope.probe"], tensors(torch.ones(32))),
    Case(
        "probe of the future",
        SCORE,
        ["probe.safetensors", "version '9'"],
        tensors(torch.ones(32), **{**PROBE, "version": "9"}),
    ),
    Case("probe with NaN", SCORE, ["probe.safetensors", "NaN"], tensors(torch.full((32,), float("nan")), **PROBE)),
    Case(
        "probe of wrong shape",
        SCORE,
        ["probe.safetensors", "expected weight [d_model]"],
        tensors(torch.ones(3, 32), **PROBE),
    ),
    Case("probe without a site", SCORE, ["probe.safetensors", "site"], tensors(torch.ones(32), **PROBE)),
    Case("probe without a site, cliff", CLIFF, ["probe.safetensors", "site"], tensors(torch.ones(32), **PROBE)),
    Case(
        "probe of another width",
        SCORE,
        ["probe.safetensors", "7 wide", "32"],
        probe(weight=torch.ones(7), fingerprint={}),
    ),
    Case(
        "probe of another width, cliff",
        CLIFF,
        ["probe.safetensors", "7 wide", "32"],
        probe(weight=torch.ones(7), fingerprint={}),
    ),
    Case(
        "probe at an unknown site",
        SCORE,
        ["probe.safetensors", "blocks.1.hook_nothing"],
        probe(site="blocks.1.hook_nothing"),
    ),
    Case(
        "probe at an unknown layer",
        CLIFF,
        ["probe.safetensors", "no layer 77"],
        probe(site="blocks.77.hook_resid_post"),
    ),
    Case("probe per head", SCORE, ["probe.safetensors", "attn.hook_z"], probe(site="blocks.1.attn.hook_z")),
    # Directions.
    *(
        case
        for (name, command), layers in zip(STEERS.items(), ("--layer", "--layers"), strict=True)
        for case in (
            Case(f"{name}: rollouts empty", command, ["rollouts.jsonl: no rollouts"], text("rollouts.jsonl", "")),
            Case(f"{name}: broken JSON", command, ["rollouts.jsonl, line 3", "not valid JSON"], line(3, "{")),
            Case(
                f"{name}: none complied",
                command,
                ["rollouts.jsonl: none answered a harmful prompt", "--contrast refused-benign"],
                only(lambda r: r.outcome != "complied"),
            ),
            Case(
                f"{name}: fewer than 8",
                command,
                ["rollouts.jsonl: 4 and 3 of the contrast refused-complied", "at least 8"],
                only(lambda r: r.id in [f"h0-{number}" for number in range(7)]),
            ),
            Case(f"{name}: NaN", on(command, "{nan}").replace("--out", f"{layers} 3 --out"), ["NaN", "float32"]),
            Case(f"{name}: no chat template", on(command, "{untemplated}"), ["chat template", "instruction-tuned"]),
            Case(f"{name}: site per head", command + " --site attn.hook_z", ["for each head", "hook_attn_out"]),
            Case(f"{name}: unknown site", command + " --site resid", ["site 'resid'", "hook_resid_post"]),
            Case(f"{name}: out the rollouts", command.replace("out.saf", "./rollouts.jsonl #"), ["is an input"])
            if name == "steer fit"
            else Case(f"{name}: table the rollouts", command + " --table rollouts.jsonl", ["is an input"]),
            Case(f"{name}: full disk", command, ["out", "cannot be written", "File too large"], file_size=100),
        )
    ),
    Case("steer fit: unknown position", STEER_FIT + " --position edge", ["'edge'", "close:-1"]),
    Case("steer fit: position beyond", STEER_FIT + " --position close:-99", ["rollouts.jsonl", "lacks close:-99"]),
    Case("steer fit: layer in words", STEER_FIT + " --layer last", ["--layer 'last'", "auto"]),
    Case("steer fit: no such layer", STEER_FIT + " --layer 4", ["layer 4", "0 to 3"]),
    Case("steer fit: components", STEER_FIT + " --method transport --k 33", ["components: expected", "found 33"]),
    Case("steer choose: no position", STEER_CHOOSE + " --positions inst,", ["''", "not a position"]),
    Case("steer choose: no such layers", STEER_CHOOSE + " --layers 0,4", ["layer 4", "0 to 3"]),
    Case("steer choose: budget", STEER_CHOOSE + " --kl-budget nan", ["kl_budget", "above 0, found nan"]),
    Case("steer choose: depth", STEER_CHOOSE + " --deepest 2", ["deepest", "(0, 1]"]),
    Case("steer choose: norm", STEER_CHOOSE + " --site ln_final.hook_out", ["final norm", "hook_resid_post"]),
    Case(
        "steer choose: none benign",
        STEER_CHOOSE,
        ["rollouts.jsonl: no held-out one", "answered a benign prompt"],
        only(lambda r: r.harmful),
    ),
    # Models.
    *(
        case
        for name, command in ALL_MODELS.items()
        for case in (
            Case(f"{name}: unknown model", on(command, "nobody/nothing"), ["'nobody/nothing'", "cannot be loaded"]),
            Case(
                f"{name}: unmapped", on(command, "{unmapped}"), ["Architecture", "TransformerLens", "supported model"]
            ),
        )
    ),
    *(
        case
        for name, command in COMMANDS.items()
        for case in (
            Case(f"{name}: no chat template", on(command, "{untemplated}"), ["chat template", "instruction-tuned"]),
            Case(f"{name}: NaN", on(command, "{nan}"), ["NaN", "float32"]),
        )
    ),
    Case("NaN, sampled", on(ROLLOUT, "{nan}") + " --temperature 1", ["NaN", "float32"]),
    Case("model folder missing", "inspect --model ./no-such-folder", ["'./no-such-folder'", "no such folder"]),
    Case("model path missing", "inspect --model {tiny}/no-such-folder", ["no-such-folder'", "no such folder"]),
    Case(
        "model folder empty",
        "inspect --model folder",
        ["'folder'", "no config.json"],
        lambda folder: (folder / "folder").mkdir(),
    ),
    Case("model a file", "inspect --model rollouts.jsonl", ["'rollouts.jsonl'", "folder"]),
    Case("model without weights", "inspect --model {weightless}", ["weightless", "cannot be loaded"]),
    Case("weights truncated", "inspect --model {torn}", ["torn", "cannot be loaded"]),
    Case("weights pickled", "inspect --model {pickled}", ["pickled", "cannot be loaded", "safetensors"]),
    Case("weights of other sizes", "inspect --model {misfit}", ["misfit", "cannot be loaded"]),
    Case("config broken", "inspect --model {misconfigured}", ["misconfigured", "cannot be loaded"]),
    Case("model without tokenizer", "inspect --model {mute}", ["mute", "tokenizer"]),
    Case("unknown model type", "inspect --model {foreign}", ["foreign", "cannot be loaded"]),
    Case("unknown organism", "inspect --model organism:dolphin", ["dolphin", "cliff", "aligned"]),
    Case("no model named", "inspect --model ''", ["Model ''", "config.json"]),
    # Options.
    Case("unknown device", "inspect --model {tiny} --device quantum", ["'quantum'", "cannot be used"]),
    Case("absent device", "inspect --model {tiny} --device xla:7", ["'xla:7'", "cannot be used"]),
    Case("device without memory", "inspect --model {tiny} --device meta", ["'meta'", "cannot be used"]),
    Case("unknown dtype", "inspect --model {tiny} --dtype int4", ["'int4'", "float32", "bfloat16"]),
    Case("unknown position", FIT + " --position edge", ["'edge'", "close:-1"]),
    Case("position beyond", FIT + " --position close:-99", ["rollouts.jsonl", "lacks close:-99"]),
    Case("unknown positions", SWEEP + " --positions inst,think:2", ["'think:2'", "from 0 to 1"]),
    Case("no position", SWEEP + " --positions inst,", ["''", "not a position"]),
    Case("no such layer", FIT + " --layer 4", ["layer 4", "0 to 3"]),
    Case("no such negative layer", FIT + " --layer -5", ["layer -5", "0 to 3"]),
    Case("layer in words", FIT + " --layer last", ["--layer 'last'", "auto", "norm"]),
    Case("layers in words", SWEEP + " --layers 0,last", ["--layers '0,last'", "all"]),
    Case("no such layers", SWEEP + " --layers 0,4", ["layer 4", "0 to 3"]),
    # Where to write.
    *(
        case
        for name, command in COMMANDS.items()
        for case in (
            Case(
                f"{name}: under a file",
                command.replace("--out ", "--out prompts.csv/"),
                ["prompts.csv", "not a folder"],
            ),
            Case(
                f"{name}: no place",
                command.replace("--out ", "--out /proc/none/"),
                ["/proc/none/", "cannot be written"],
            ),
        )
    ),
    *(
        Case(
            f"{name}: out a folder",
            command.replace("--out out", "--out folder #"),
            ["folder: is a folder", "file name"],
            lambda folder: (folder / "folder").mkdir(),
        )
        for name, command in COMMANDS.items()
        if name != "sweep"
    ),
    Case("sweep: out a file", SWEEP.replace("--out sweep", "--out prompts.csv"), ["prompts.csv", "not a folder"]),
    Case(
        "out a pipe",
        SCORE.replace("out.parquet", "pipe"),
        ["pipe", "not a regular file"],
        lambda folder: os.mkfifo(folder / "pipe"),
    ),
    Case("out the rollouts", FIT.replace("out.saf", "./rollouts.jsonl #"), ["rollouts.jsonl: is an input"]),
    Case("out the probe", SCORE.replace("out.parquet", "probe.safetensors"), ["probe.safetensors: is an input"]),
    Case("out the prompts", ROLLOUT.replace("out.jsonl", "prompts.csv") + " --restart", ["prompts.csv: is an input"]),
    Case(
        "beside out the rollouts",
        CLIFF.replace("rollouts.jsonl", "out.json"),
        ["out.json: is an input"],
        lambda folder: (folder / "rollouts.jsonl").rename(folder / "out.json"),
    ),
    Case("cliff to JSON", CLIFF.replace("out.parquet", "out.json"), ["out.json", ".parquet"]),
    *(
        Case(
            f"{name}: full disk",
            command,
            ["cannot be written", "File too large", "out" if name != "sweep" else "sweep"],
            file_size=100,
        )
        for name, command in COMMANDS.items()
    ),
    Case("cliff: disk full later", CLIFF, ["out.html: cannot be written"], file_size=100_000),
    Case("export: full disk", "organism export cliff --out folder", ["folder: cannot be written"], file_size=100_000),
    Case("export: over a file", "organism export cliff --out prompts.csv", ["prompts.csv: cannot be written"]),
    Case("demo: under a file", "demo --out prompts.csv", ["prompts.csv", "not a folder"]),
    Case("demo: unknown organism", "demo --out out --model organism:dolphin", ["dolphin", "cliff", "aligned"]),
    Case("export: unknown", "organism export dolphin --out folder", ["dolphin", "cliff"]),
    Case("plant: unknown", "organism plant dolphin --out folder", ["dolphin", "gate"]),
    # Prompts.
    Case("prompts missing", ROLLOUT.replace("prompts.csv", "no.csv"), ["no.csv: no such file"]),
    Case("prompts empty", ROLLOUT, ["prompts.csv: the file is empty"], text("prompts.csv", "")),
    Case("prompts: header only", ROLLOUT, ["prompts.csv: no prompts"], text("prompts.csv", "goal,harmful\n")),
    Case(
        "prompts: wrong columns",
        ROLLOUT,
        ["prompts.csv: no prompt column", "'ask', 'harmful'"],
        text("prompts.csv", "ask,harmful\nHow?,1\n"),
    ),
    Case("prompts: no such column", ROLLOUT + " --column ask", ["prompts.csv: no column 'ask'", "'goal'"]),
    Case(
        "prompts: ragged",
        ROLLOUT,
        ["prompts.csv, line 3", "3 fields"],
        text("prompts.csv", "goal,harmful\nA?,1\nB, or C?,1\n"),
    ),
    Case(
        "prompts: empty cell",
        ROLLOUT,
        ["prompts.csv, line 3", "empty"],
        text("prompts.csv", "goal,harmful\nA?,1\n,1\n"),
    ),
    Case(
        "prompts: odd label",
        ROLLOUT,
        ["prompts.csv, line 2", "'perhaps'"],
        text("prompts.csv", "goal,harmful\nA?,perhaps\n"),
    ),
    Case("prompts: against the label", ROLLOUT + " --label benign", ["prompts.csv, line 2", "harmful = true"]),
    Case(
        "prompts: broken JSON",
        ROLLOUT.replace("prompts.csv", "p.jsonl"),
        ["p.jsonl, line 2", "not valid JSON"],
        text("p.jsonl", '{"prompt": "A?"}\n{"prompt": \n'),
    ),
    Case(
        "prompts: unknown kind",
        ROLLOUT.replace("prompts.csv", "p.txt"),
        ["p.txt: unknown kind of file", ".csv"],
        text("p.txt", "A?\n"),
    ),
    Case(
        "prompts: not Parquet",
        ROLLOUT.replace("prompts.csv", "p.parquet"),
        ["p.parquet: not a Parquet file"],
        text("p.parquet", "A?\n"),
    ),
    Case("prompts: hub unreachable", ROLLOUT.replace("prompts.csv", "nobody/nothing"), ["nobody/nothing", "hub"]),
    Case(
        "prompt too long",
        on(ROLLOUT, "{short}"),
        ["prompt 'word word", "the limit is 32"],
        text("prompts.csv", f"goal\n{WORDS}\n"),
    ),
    Case(
        "prompt fills the context",
        on(ROLLOUT, "{short}"),
        ["32 tokens", "no room"],
        text("prompts.csv", "goal\n" + "7" * 24 + "\n"),
    ),
    # Generation.
    Case("neither model nor endpoint", ROLLOUT.replace("--model {tiny}", ""), ["--model", "--endpoint"]),
    Case(
        "endpoint unreachable",
        ROLLOUT + " --endpoint http://127.0.0.1:{port}",
        ["http://127.0.0.1:", "cannot be reached", "server runs"],
    ),
    Case("endpoint no URL", ROLLOUT + " --endpoint localhost", ["'localhost'", "http://"]),
    Case("out of unknown making", ROLLOUT, ["out.jsonl: is there already", "--restart"], text("out.jsonl", "mine\n")),
]

USAGE = [
    "inspect",
    "inspect --model {tiny} --modle x",
    "conjure",
    "probe guess",
    FIT.replace("--out out.safetensors", ""),
    FIT + " --seed -1",
    FIT + " --seed 4294967296",
    FIT + " --seed one",
    FIT + " --method forest",
    FIT + " --batch-tokens 0",
    SWEEP + " --shuffles -1",
    CLIFF + " --plateau median",
    ROLLOUT + " --label evil",
    ROLLOUT + " --limit 0",
    ROLLOUT + " --temperature -1",
    ROLLOUT + " --max-new-tokens 0",
    "organism export --out folder",
    "demo --n-harmful 3",
    STEER_FIT + " --kind politeness",
    STEER_FIT + " --contrast good-bad",
    STEER_CHOOSE + " --method transport",
    STEER_CHOOSE + " --limit 1",
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input(case: Case, forks: Forks, models: dict[str, str], folder: Path) -> None:
    case.check(forks, models, folder)


@pytest.mark.parametrize("command", USAGE)
def test_usage(command: str, forks: Forks, models: dict[str, str], folder: Path) -> None:
    check_usage(command, forks, models, folder)


def test_a_case_name_is_used_once() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_must_not_be_written_into(forks: Forks, models: dict[str, str], folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    done = forks.run(*arguments(FIT.replace("out.saf", "locked/out.saf"), models), cwd=folder)
    assert done.code == 2 and "locked/out.safetensors: cannot be written" in done.stderr


@pytest.mark.parametrize("command", [FIT, CLIFF, "rollout --model {tiny} --prompts prompts.csv --out out.jsonl"])
def test_bad_input_with_json(command: str, forks: Forks, models: dict[str, str], folder: Path) -> None:
    for name in ("rollouts.jsonl", "prompts.csv"):
        (folder / name).write_text("", encoding="utf-8")
    done = forks.run(*arguments(command, models), "--json", cwd=folder)
    assert done.code == 2 and done.stdout == "" and done.stderr.startswith("cliffscope: error: ")
