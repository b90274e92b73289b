"""Each command on good input: what it writes and prints, against the Python interface and by hand."""

import contextlib
import http.server
import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from sklearn.metrics import roc_auc_score

from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout, read_rollouts
from probes.examples import Examples
from probes.linear import LinearProbe
from probes.model_sweep import sweep_model
from probes.splits import split_by_prompt
from probes.sweep import SweepOptions
from tests.cli.forks import Done, Forks
from tests.cli.material import rollouts
from tests.cli.printed import payload, table

COMMAND = Path(sys.executable).with_name("cliffscope")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> HookedModel:
    return HookedModel.load(str(checkpoint), device="cpu")


@pytest.fixture
def on(checkpoint: Path, data: Path) -> tuple[object, ...]:
    return ("--model", checkpoint, "--rollouts", data / "rollouts.jsonl")


def edges(model: HookedModel, made: list[Rollout], site: str) -> torch.Tensor:
    return model.capture(model.transcripts().build_all(made), [site], ["close:-1"])[site][:, 0]


def test_inspect(forks: Forks, checkpoint: Path) -> None:
    found = payload(forks.run("inspect", "--model", checkpoint, "--json"))
    sizes = {key: found[key] for key in ("architecture", "layers", "d_model", "context", "dtype", "device")}
    assert sizes == {
        "architecture": "Qwen3ForCausalLM", "layers": 4, "d_model": 32, "context": 512, "dtype": "float32",
        "device": "cpu",
    }  # fmt: skip
    assert "4 query heads, 2 key and value heads, d_head 16" in found["heads"]
    assert "<think>" in found["thinking_tags"] and "</" in found["close_tokens"]
    assert found["parameters"] == sum(
        p.numel() for p in transformers.AutoModelForCausalLM.from_pretrained(checkpoint).parameters()
    )
    text = table(forks.run("inspect", "--model", checkpoint))
    assert text.startswith(f"{checkpoint}\narchitecture       Qwen3ForCausalLM\n")
    assert "enable_thinking" in text


def test_inspect_says_what_will_not_work(forks: Forks, tmp_path: Path) -> None:
    from tests.cli.material import checkpoint as make

    found = payload(forks.run("inspect", "--model", make(tmp_path / "bare", style="none"), "--json"))
    assert any("no chat template" in limit for limit in found["will_not_work"])


def test_inspect_reads_precision_and_device(forks: Forks, checkpoint: Path) -> None:
    found = payload(forks.run("inspect", "--model", checkpoint, "--dtype", "bfloat16", "--device", "cpu", "--json"))
    assert found["dtype"] == "bfloat16"


def test_a_folder_by_its_bare_name(forks: Forks, checkpoint: Path) -> None:
    assert payload(forks.run("inspect", "--model", checkpoint.name, "--json", cwd=checkpoint.parent))["layers"] == 4


def test_rollout(forks: Forks, checkpoint: Path, data: Path, model: HookedModel, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rollouts.jsonl"
    command = ("rollout", "--model", checkpoint, "--prompts", data / "prompts.csv", "--out", out)
    options = ("--max-new-tokens", 24, "--batch-size", 5)
    found = payload(forks.run(*command, *options, "--json"))
    made = read_rollouts(out)
    assert found["rollouts"] == found["generated"] == len(made) == 48 and found["resumed"] == 0
    assert [r.prompt for r in made] == [r.prompt for r in rollouts()]
    assert [(r.harmful, r.category) for r in made] == [(r.harmful, r.category) for r in rollouts()]
    assert {r.model for r in made} == {str(checkpoint)}
    outcomes = pd.Series([r.outcome for r in made]).value_counts().to_dict()
    assert found["outcomes"] == outcomes

    # By hand, one prompt at a time, without padding or cache.
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    for rollout in made[::11]:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": rollout.prompt}], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        new: list[int] = []
        with torch.no_grad():
            for _ in range(24):
                token = int(model.hf(torch.cat([ids, torch.tensor([new], dtype=torch.long)], 1)).logits[0, -1].argmax())
                if token == tokenizer.eos_token_id:
                    break
                new.append(token)
        assert (rollout.thinking, rollout.response) == model.chat.split(model.chat.decode(new))

    again = payload(forks.run(*command, *options, "--json"))
    assert (again["generated"], again["resumed"]) == (0, 48)
    assert "finished already" in table(forks.run(*command, *options))
    other = forks.run(*command, "--max-new-tokens", 25)
    assert other.code == 2 and "max_new_tokens" in other.stderr and "--restart" in other.stderr
    assert payload(forks.run(*command, "--max-new-tokens", 3, "--restart", "--json"))["generated"] == 48
    assert {file.name for file in out.parent.iterdir()} == {"rollouts.jsonl", "rollouts.jsonl.settings.json"}


def test_rollout_with_a_label_a_limit_and_a_seed(forks: Forks, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    def run(seed: int, name: str) -> list[Rollout]:
        out = tmp_path / name
        done = forks.run(
            *("rollout", "--model", checkpoint, "--prompts", data / "plain.csv", "--out", out, "--label", "benign"),
            *("--limit", 3, "--max-new-tokens", 12, "--temperature", 1, "--seed", seed, "--json"),
        )
        assert payload(done)["rollouts"] == 3
        return read_rollouts(out)

    first, same, other = run(0, "a.jsonl"), run(0, "b.jsonl"), run(1, "c.jsonl")
    assert first == same and first != other
    assert [r.harmful for r in first] == [False] * 3


class Server(http.server.BaseHTTPRequestHandler):
    """A chat server that thinks about the last word."""

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "served"}]} if self.path == "/v1/models" else {"detail": "Not Found"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        word = asked["messages"][-1]["content"].split()[-1]
        text = f"<think>\nIt is about {word}\n</think>\n\nI'm sorry, I can't help with that."
        self._answer({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200 if "detail" not in str(content) else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_rollout_by_an_endpoint(forks: Forks, data: Path, tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        words = ("rollout", "--endpoint", url, "--prompts", data / "plain.csv", "--label", "harmful")
        found = payload(forks.run(*words, "--out", tmp_path / "r.jsonl", "--json"))
        server.shutdown()
    assert found["outcomes"] == {"refused": 6}
    made = read_rollouts(tmp_path / "r.jsonl")
    assert [r.thinking for r in made] == [f"It is about {r.prompt.split()[-1]}" for r in made]
    assert {r.model for r in made} == {"served"}


@pytest.mark.parametrize("layer", ["auto", "0", "-1", "norm"])
@pytest.mark.parametrize("method", ["logistic", "mean-difference"])
def test_probe_fit(
    layer: str, method: str, forks: Forks, on: tuple[object, ...], model: HookedModel, tmp_path: Path
) -> None:
    out = tmp_path / "probe.safetensors"
    found = payload(forks.run("probe", "fit", *on, "--out", out, "--layer", layer, "--method", method, "--json"))
    probe = LinearProbe.load(out)
    assert (found["layer"], found["site"]) == (probe.layer, probe.site)
    site = "ln_final.hook_out" if layer == "norm" else f"blocks.{probe.layer}.hook_resid_post"
    assert (probe.site, probe.position, probe.method) == (site, "close:-1", method)
    if layer != "auto":
        assert probe.layer == {"0": 0, "-1": 3, "norm": 3}[layer]
    assert probe.model == model.name and dict(probe.fingerprint) == model.fingerprint
    assert probe.training["rollouts"] == str(on[3]) and probe.training["skipped"] == {"answered a harmful prompt": 12}

    # The held-out figure once more, from the probe's file alone.
    made = [r for r in rollouts() if r.outcome in ("refused", "benign")]
    labels = np.array([int(r.outcome == "refused") for r in made])
    split = split_by_prompt(labels, [r.prompt for r in made], 0.3, 0)
    logits = probe.logit(edges(model, made, site)).numpy()
    assert found["auroc"] == pytest.approx(roc_auc_score(labels[split.test], logits[split.test]))
    assert found["accuracy"] == pytest.approx(((logits > 0) == labels)[split.test].mean())
    assert (found["n_train"], found["n_test"]) == (len(split.train), len(split.test))


def test_probe_fit_auto_takes_the_deepest_of_the_best(
    forks: Forks, on: tuple[object, ...], model: HookedModel, tmp_path: Path
) -> None:
    found = payload(forks.run("probe", "fit", *on, "--out", tmp_path / "p.safetensors", "--json"))
    swept = payload(forks.run("probe", "sweep", *on, "--out", tmp_path / "s", "--positions", "close:-1", "--json"))
    real = {cell["layer"]: cell for cell in swept["cells"] if cell["control"] == "real"}
    best = max(real.values(), key=lambda cell: (cell["auroc"], cell["layer"]))
    bound = min(best["auroc"], best["auroc_low"])
    assert found["layer"] == max(layer for layer, cell in real.items() if cell["auroc"] >= bound)
    assert found["auroc"] == real[found["layer"]]["auroc"]


def test_probe_sweep(forks: Forks, on: tuple[object, ...], model: HookedModel, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    options = ("--layers", "2,0,-2", "--positions", "inst,close:-1,inst", "--shuffles", 2, "--seed", 3)
    found = payload(forks.run("probe", "sweep", *on, "--out", out, *options, "--json"))
    written = pd.read_parquet(out / "sweep.parquet")
    assert {file.name for file in out.iterdir()} == {"sweep.parquet", "sweep.html"}
    assert len(found["cells"]) == len(written) == 2 * 2 * 3
    examples = Examples.of(model, rollouts(), ["inst", "close:-1"])
    expected = sweep_model(model, examples, [0, 2], SweepOptions(seed=3, n_shuffles=2)).table
    pd.testing.assert_frame_equal(written, expected, rtol=1e-6)
    assert [cell["auroc"] for cell in found["cells"]] == pytest.approx(expected["auroc"].tolist())
    page = (out / "sweep.html").read_text(encoding="utf-8")
    assert "<html" in page and "close:-1" in page
    text = table(forks.run("probe", "sweep", *on, "--out", out, *options))
    head, first, second = text.splitlines()[1:4]
    controls = next(line for line in text.splitlines() if line.startswith("Controls"))
    assert head.split() == ["layer", "inst", "close:-1"]
    for line, layer in ((first, 0), (second, 2)):
        cells = expected[(expected["layer"] == layer) & (expected["control"] == "real")]["auroc"]
        assert line.split() == [str(layer), *(f"{value:.3f}" for value in cells)]
        assert len(line) == len(head)  # the numbers stand under their heads
    shuffled = expected.loc[expected["control"] == "shuffled", "auroc"].mean()
    assert f"shuffled labels {shuffled:.3f}" in controls


@pytest.mark.parametrize("name", ["probe", "norm"])
def test_probe_score(
    name: str, forks: Forks, on: tuple[object, ...], data: Path, model: HookedModel, tmp_path: Path
) -> None:
    out, file = tmp_path / "scores.parquet", data / f"{name}.safetensors"
    found = payload(forks.run("probe", "score", *on, "--probe", file, "--out", out, "--batch-tokens", 300, "--json"))
    scores = pd.read_parquet(out)
    assert list(scores.columns) == ["id", "token_index", "segment", "token", "logit", "score"]
    assert found["rollouts"] == scores["id"].nunique() == 48 and found["tokens"] == len(scores)
    probe, made = LinearProbe.load(file), rollouts()
    assert probe.site is not None
    assert list(dict.fromkeys(scores["id"])) == [r.id for r in made]
    at_edge = scores[scores["segment"] == "close"].groupby("id", sort=False).tail(1)
    expected = probe.score(edges(model, made, probe.site))
    np.testing.assert_allclose(at_edge["score"], expected, atol=1e-5)
    np.testing.assert_allclose(scores["score"], 1 / (1 + np.exp(-scores["logit"])), atol=1e-6)
    for segment, mean in found["mean_score"].items():
        assert mean == pytest.approx(scores.loc[scores["segment"] == segment, "score"].mean())

    # Every token of one rollout, from the model's own hidden states.
    rollout = made[5]
    mine = scores[scores["id"] == rollout.id]
    text = "".join(mine["token"])
    assert rollout.prompt in text and text.endswith(str(rollout.response))
    ids = torch.tensor([model.transcripts().build(rollout).input_ids])
    if name == "norm":
        with torch.no_grad():
            hidden = model.hf(ids, output_hidden_states=True).hidden_states[-1][0]
        np.testing.assert_allclose(mine["logit"], hidden @ probe.weight + probe.bias, atol=1e-4)
    assert mine["token_index"].tolist() == list(range(ids.shape[1]))
    assert "".join(mine.loc[mine["segment"] == "thinking", "token"]) in str(rollout.thinking)


@pytest.mark.parametrize("plateau", ["mean", "max"])
def test_cliff(plateau: str, forks: Forks, on: tuple[object, ...], data: Path, tmp_path: Path) -> None:
    out, scored = tmp_path / "cliff.parquet", tmp_path / "scores.parquet"
    probe = ("--probe", data / "probe.safetensors")
    found = payload(forks.run("cliff", *on, *probe, "--out", out, "--plateau", plateau, "--json"))
    assert forks.run("probe", "score", *on, *probe, "--out", scored).code == 0
    cliffs, scores = pd.read_parquet(out), pd.read_parquet(scored)
    made = rollouts()
    assert cliffs["id"].tolist() == [r.id for r in made]
    assert cliffs["outcome"].tolist() == [r.outcome for r in made]
    for row in cliffs.itertuples():
        mine = scores[scores["id"] == row.id]
        thinking = mine.loc[mine["segment"] == "thinking", "score"].to_numpy()
        half = thinking[len(thinking) // 2 :]
        high = half.max() if plateau == "max" else half.mean()
        edge = mine.loc[mine["segment"] == "close", "score"].iloc[-1]
        assert (row.plateau, row.edge, row.cliff) == pytest.approx((high, edge, high - edge), abs=1e-6)
        assert row.n_thinking == len(thinking)
    for outcome in ("complied", "refused", "benign"):
        mine = cliffs[cliffs["outcome"] == outcome]
        assert found[f"n_{outcome}"] == len(mine)
        assert found[f"plateau_{outcome}"] == pytest.approx(mine["plateau"].mean())
        assert found[f"edge_{outcome}"] == pytest.approx(mine["edge"].mean())
    complied = cliffs.loc[cliffs["outcome"] == "complied", "cliff"]
    assert found["mean"] == pytest.approx(complied.mean())
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]
    # A model with random weights was taught nothing and has no cliff.
    assert found["verdict"] == "no cliff" and found["evidence"].startswith("No cliff: ")

    layers = pd.read_parquet(tmp_path / "cliff.layers.parquet")
    assert sorted(set(layers["layer"])) == [0, 1, 2, 3] and set(layers["outcome"]) == {"complied", "refused", "benign"}
    np.testing.assert_allclose(layers["cliff"], layers["plateau"] - layers["edge"], atol=1e-9)
    figures = json.loads((tmp_path / "cliff.json").read_text(encoding="utf-8"))
    assert figures == {key: value for key, value in found.items() if key != "files"}
    names = {"cliff.parquet", "cliff.json", "cliff.html", "cliff.layers.parquet"}
    assert {Path(file).name for file in found["files"]} == names
    assert {file.name for file in tmp_path.iterdir()} == {*names, "scores.parquet"}


def test_the_cliff_for_people(forks: Forks, on: tuple[object, ...], data: Path, tmp_path: Path) -> None:
    made = rollouts()
    mixed = [*made[:-1], Rollout("cut", "How do I knit?", "I begin", None, False)]
    lines = [json.dumps(vars(rollout)) for rollout in mixed]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ("cliff", *on[:3], tmp_path / "mixed.jsonl", "--probe", data / "probe.safetensors")
    text = table(forks.run(*command, "--out", tmp_path / "c.parquet"))
    title, head, *rows = text.splitlines()
    assert "no cliff" in title and head.split() == ["n", "plateau", "edge", "cliff"]
    assert [row.split("  ")[0] for row in rows[:3]] == ["harmful, complied", "harmful, refused", "benign"]
    assert len({len(row) for row in (head, *rows[:3])}) == 1
    assert "Left out: 1 thinking unclosed." in text


@pytest.mark.parametrize("name", ["cliff", "aligned"])
def test_organism_export(name: str, forks: Forks, tmp_path: Path) -> None:
    found = payload(forks.run("organism", "export", name, "--out", tmp_path / name, "--json"))
    assert found == {"organism": name, "out": str(tmp_path / name)}
    exported = payload(forks.run("inspect", "--model", tmp_path / name, "--json"))
    assert exported == payload(forks.run("inspect", "--model", f"organism:{name}", "--json"))


def test_organism_train_tells_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import interp.organisms
    from interp.cli import main

    told: dict[str, object] = {}

    def train(out: Path, **options: object) -> dict[str, object]:
        told.update(options, out=out)
        return {"steps": np.int64(3), "loss": float("nan"), "where": tmp_path}

    monkeypatch.setattr(interp.organisms, "train", train)
    monkeypatch.setattr(
        sys, "argv", ["cliffscope", "organism", "train", "--out", "w", "--quick", "--seed", "7", "--json"]
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main()
    # What JSON cannot hold becomes what it can.
    facts = {"steps": 3, "loss": None, "where": str(tmp_path)}
    assert json.loads(printed.getvalue()) == {"out": "w", "facts": facts}
    assert told == {"out": Path("w"), "seed": 7, "quick": True}


@pytest.mark.slow
def test_the_commands_as_installed(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """In fresh processes: whatever the libraries say when they are imported or first used would show here."""

    def run(*words: object) -> Done:
        done = subprocess.run(
            [COMMAND, *map(str, words)], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)

    on = ("--model", checkpoint, "--rollouts", data / "rollouts.jsonl")
    probe = ("--probe", data / "probe.safetensors")
    assert payload(run("cliff", *on, *probe, "--out", "c.parquet", "--json"))["n_complied"] == 12
    made = ("rollout", "--model", checkpoint, "--prompts", data / "plain.csv", "--out", "r.jsonl")
    assert payload(run(*made, "--max-new-tokens", 3, "--json"))["rollouts"] == 6
    table(run("probe", "sweep", *on, "--out", "s", "--layers", "0"))
    bad = run("cliff", *on, "--probe", data / "rollouts.jsonl", "--out", "d.parquet")
    assert bad.code == 2 and bad.stdout == ""
    assert bad.stderr.startswith("cliffscope: error: ") and bad.stderr.count("\n") == 1
    assert "not a safetensors file" in bad.stderr
