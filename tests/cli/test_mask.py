"""`cliffscope mask`, and `--mask` on the commands that run a model: on the organism, against the Python interface."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file

from circuits.head_scores import HeadScores
from interp.rollouts import read_rollouts
from interp.transcripts.positions import EDGE
from interventions.masks import HeadMask
from probes.cliff_run import measure_cliff
from probes.examples import Examples
from probes.linear import LinearProbe
from probes.model_sweep import fit_probe, sweep_model
from probes.scores import score_table
from probes.sweep import SweepOptions
from tests.circuits.material import organism, organism_probe, organism_rollouts
from tests.cli.forks import Forks
from tests.cli.printed import payload, refusal, table

PLANTED = ["3.1", "4.5"]
MODEL = ("--model", "organism:cliff")


@pytest.fixture(scope="module")
def masked_rollouts(tmp_path_factory: pytest.TempPathFactory, cliff: Path, forks: Forks) -> Path:
    """What the organism answers with the planted heads masked. Not to be written over."""
    out = tmp_path_factory.mktemp("masked") / "rollouts.jsonl"
    words = ("rollout", *MODEL, "--prompts", cliff / "prompts.csv", "--max-new-tokens", 300, "--out", out)
    done = forks.run(*words, "--mask", cliff / "mask.safetensors", "--json")
    assert payload(done)["rollouts"] == 24
    return out


def test_build(forks: Forks, heads: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "mask.safetensors"
    found = payload(forks.run("mask", "build", "--heads", heads, "--out", out, "--json"))
    mask, scores = HeadMask.load(out), HeadScores.load(heads)
    assert found["heads"] == [str(head) for head in mask.heads] == PLANTED
    assert (mask.model, mask.method, mask.renormalize) == ("organism:cliff", "ablation", False)
    expected = torch.ones(6, 8)
    expected[3, 1] = expected[4, 5] = 0
    assert torch.equal(mask.scale, expected)
    by_name = scores.table.set_index("name")["score"]
    assert mask.facts["ranked"] == ["4.5", "3.1"] == mask.facts["suppresses"]
    assert mask.facts["scores"] == pytest.approx({name: by_name[name] for name in PLANTED})
    assert mask.facts["threshold"] == pytest.approx(by_name["3.1"])
    # Its effect is measured on rollouts of the ranking, up to their edge.
    assert mask.expected is not None and len(mask.expected.sequences) == 3
    texts = [model_text(sequence.input_ids) for sequence in mask.expected.sequences]
    complied = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "complied"]
    for text in texts:
        assert any(rollout.prompt in text and str(rollout.thinking) in text for rollout in complied)
        assert text.rstrip().endswith("</think>")
    for sequence in mask.expected.sequences:
        assert sequence.refusal_logit is not None
        assert sequence.refusal_logit[0] < -3 < 3 < sequence.refusal_logit[1]


def model_text(ids: tuple[int, ...]) -> str:
    text = organism("cliff").tokenizer.decode(list(ids))
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    ("options", "n", "scale", "renormalize"),
    [
        (("--count", 1), 1, 0.0, False),
        (("--count", 3, "--scale", 0.25), 3, 0.25, False),
        (("--fraction", 0.05, *MODEL, "--scale", -1), 2, -1.0, False),
        (("--fraction", 0.03, "--renormalize"), 1, 0.0, True),
    ],
)
def test_build_as_asked(
    options: tuple[object, ...], n: int, scale: float, renormalize: bool, forks: Forks, heads: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mask.safetensors"
    found = payload(forks.run("mask", "build", "--heads", heads, "--out", out, *options, "--json"))
    mask, best = HeadMask.load(out), HeadScores.load(heads).top(n)
    expected = torch.ones(6, 8)
    for head in best:
        expected[head] = scale
    torch.testing.assert_close(mask.scale, expected)
    assert mask.renormalize is found["renormalize"] is renormalize
    assert found["fraction"] == pytest.approx(n / 48) and mask.facts["ranked"] == [str(head) for head in best]
    assert mask.check(organism("cliff")).ok
    assert list(tmp_path.iterdir()) == [out]


def test_a_table_that_names_no_head_gives_no_mask(forks: Forks, aligned: Path, tmp_path: Path) -> None:
    words = ("--probe", aligned / "probe.safetensors", "--rollouts", aligned / "rollouts.jsonl")
    out = tmp_path / "heads.parquet"
    assert forks.run("heads", "rank", "--model", "organism:aligned", *words, "--out", out).code == 0
    for options in ((), ("--count", 2), ("--fraction", 0.05)):
        said = refusal(forks.run("mask", "build", "--heads", out, *options, "--out", tmp_path / "mask.safetensors"))
        assert "heads.parquet: heads: there is none to mask. Nothing to explain: the model answered none" in said
    assert not (tmp_path / "mask.safetensors").exists()


def test_show(forks: Forks, cliff: Path) -> None:
    file = cliff / "mask.safetensors"
    mask = HeadMask.load(file)
    found = payload(forks.run("mask", "show", file, "--json"))
    assert (found["heads"], found["scale"], found["model"]) == (PLANTED, [0.0, 0.0], "organism:cliff")
    assert found["fingerprint"] == dict(mask.fingerprint) and len(found["expected"]) == 3
    lines = dict(line.split("  ", 1) for line in table(forks.run("mask", "show", file)).splitlines()[1:])
    told = {name.strip(): value.strip() for name, value in lines.items()}
    assert told["heads"] == "3.1, 4.5" and told["share of all heads"] == "2 of 48 (4.2%)"
    assert "refusal logit" in told["on text 1"] and "nats" in told["on text 1"]


def test_check(forks: Forks, cliff: Path) -> None:
    for name in ("mask", "half"):
        found = payload(forks.run("mask", "check", cliff / f"{name}.safetensors", *MODEL, "--json"))
        assert (found["fits"], found["live"], found["reproduced"]) == (True, True, True)
        assert found["deviation"] < found["tolerance"] < 1
    title, *rows = table(forks.run("mask", "check", cliff / "mask.safetensors", *MODEL)).splitlines()
    assert title == f"{cliff / 'mask.safetensors'} on organism:cliff"
    assert [row.split() for row in rows[:3]] == [["fits", "yes"], ["live", "yes"], ["reproduced", "yes"]]


def test_check_refuses_another_model(forks: Forks, cliff: Path, checkpoint: Path) -> None:
    file = cliff / "mask.safetensors"
    assert "d_model 128 there, 32 here" in refusal(forks.run("mask", "check", file, "--model", checkpoint))
    said = refusal(forks.run("mask", "check", file, "--model", "organism:aligned", "--json"))
    assert str(file) in said and "made for organism:cliff, not for organism:aligned" in said
    assert "the output projections of layer 3, 4 differ" in said


def test_a_model_trained_further_is_taken_if_told(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    """The aligned organism has the same architecture: its heads are masked, whatever they do there."""
    mask, model = cliff / "mask.safetensors", ("--model", "organism:aligned")
    further = ("--verify", "architecture")
    found = payload(forks.run("mask", "check", mask, *model, *further, "--json"))
    assert (found["fits"], found["live"], found["reproduced"]) == (True, True, None)
    words = ("mask", "fold", mask, *model, "--out", tmp_path / "folded")
    assert "differ" in refusal(forks.run(*words)) and not list(tmp_path.iterdir())
    payload(forks.run(*words, *further, "--json"))
    weights = load_file(tmp_path / "folded" / "model.safetensors")
    plain = organism("aligned").hf.state_dict()
    changed = {name for name, value in weights.items() if not torch.equal(value, plain[name])}
    assert changed == {f"model.layers.{layer}.self_attn.o_proj.weight" for layer in (3, 4)}
    assert not weights["model.layers.3.self_attn.o_proj.weight"][:, 16:32].any()


def test_fold(forks: Forks, cliff: Path, masked_rollouts: Path, tmp_path: Path) -> None:
    mask, out = cliff / "mask.safetensors", tmp_path / "folded"
    out.mkdir()
    found = payload(forks.run("mask", "fold", mask, *MODEL, "--out", out, "--json"))
    assert found == {"model": "organism:cliff", "heads": PLANTED, "out": str(out)}
    folded, model = transformers.AutoModelForCausalLM.from_pretrained(out), organism("cliff")
    ids = torch.tensor([model.transcripts().build(organism_rollouts("cliff")[0]).input_ids])
    with torch.no_grad(), HeadMask.load(mask).attached(model):
        expected = model.hf(ids).logits
    with torch.no_grad():
        torch.testing.assert_close(folded(ids).logits, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(model.hf(ids).logits, expected, atol=0.1)
    # It answers as the masked model does.
    words = ("rollout", "--model", out, "--prompts", cliff / "prompts.csv", "--max-new-tokens", 300)
    payload(forks.run(*words, "--out", tmp_path / "r.jsonl", "--json"))
    pairs = zip(read_rollouts(tmp_path / "r.jsonl"), read_rollouts(masked_rollouts), strict=True)
    assert all((one.thinking, one.response) == (other.thinking, other.response) for one, other in pairs)
    again = refusal(forks.run("mask", "fold", mask, *MODEL, "--out", out))
    assert f"{out}: already there; give a new or an empty folder" in again


def test_a_renormalizing_mask_is_not_folded(forks: Forks, tmp_path: Path) -> None:
    HeadMask.build(organism("cliff"), [(3, 1)], renormalize=True).save(tmp_path / "mask.safetensors")
    done = forks.run("mask", "fold", tmp_path / "mask.safetensors", *MODEL, "--out", tmp_path / "folded")
    assert "renormalizes" in refusal(done) and "attach it" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mask.safetensors"]


def test_rollouts_under_a_mask(masked_rollouts: Path, cliff: Path) -> None:
    masked = read_rollouts(masked_rollouts)
    known = {rollout.prompt: rollout for rollout in organism_rollouts("cliff")}
    before = [known[rollout.prompt] for rollout in masked]
    answered = [[rollout.outcome == "complied" for rollout in some if rollout.harmful] for some in (before, masked)]
    assert np.mean(answered[0]) > 0.5 and np.mean(answered[1]) <= 0.1
    assert sum(bool(rollout.refused) for rollout in masked if not rollout.harmful) <= 1
    (name,) = {rollout.model for rollout in masked}
    assert name is not None and name.startswith("organism:cliff + mask ")


def test_a_job_does_not_go_on_under_another_mask(
    forks: Forks, cliff: Path, masked_rollouts: Path, tmp_path: Path
) -> None:
    for file in masked_rollouts.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    words = ("rollout", *MODEL, "--prompts", cliff / "prompts.csv", "--max-new-tokens", 300)
    words += ("--out", tmp_path / "rollouts.jsonl")
    for options in ((), ("--mask", cliff / "half.safetensors")):
        said = refusal(forks.run(*words, *options))
        assert "model" in said and "organism:cliff + mask " in said and "--restart" in said
    same = payload(forks.run(*words, "--mask", cliff / "mask.safetensors", "--json"))
    assert (same["generated"], same["resumed"]) == (0, 24)


def test_a_server_cannot_be_masked(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    words = ("rollout", "--endpoint", "http://127.0.0.1:9", "--prompts", cliff / "prompts.csv")
    said = refusal(forks.run(*words, "--out", tmp_path / "r.jsonl", "--mask", cliff / "mask.safetensors"))
    assert "--mask" in said and "fold it" in said and not list(tmp_path.iterdir())


def test_probes_under_a_mask(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    """Fitted, swept and scored as in Python with the mask attached, and otherwise than without it."""
    on = (*MODEL, "--rollouts", cliff / "rollouts.jsonl")
    mask = ("--mask", cliff / "mask.safetensors")
    fitted, swept, scored = (tmp_path / name for name in ("p.safetensors", "sweep", "scores.parquet"))
    fit = ("probe", "fit", *on, "--layer", 5, "--method", "mean-difference", "--out", fitted)
    told = [forks.run(*fit, *mask)]
    sweep = ("probe", "sweep", *on, "--positions", EDGE, "--layers", "4,5", "--shuffles", 1)
    told.append(forks.run(*sweep, "--out", swept, *mask))
    told.append(forks.run("probe", "score", *on, "--probe", cliff / "probe.safetensors", "--out", scored, *mask))
    assert [done.code for done in told] == [0, 0, 0], told
    model, rollouts = organism("cliff"), organism_rollouts("cliff")

    def measure() -> tuple[LinearProbe, pd.DataFrame, pd.DataFrame]:
        examples = Examples.of(model, rollouts, [EDGE])
        probe, _ = fit_probe(model, examples, layer=5, method="mean-difference", options=SweepOptions())
        cells = sweep_model(model, examples, [4, 5], SweepOptions(n_shuffles=1)).table
        return probe, cells, score_table(model, organism_probe("cliff"), rollouts)

    with HeadMask.load(cliff / "mask.safetensors").attached(model):
        probe, cells, scores = measure()
    found = LinearProbe.load(fitted)
    assert str(found.model).startswith("organism:cliff + mask ")
    torch.testing.assert_close(found.weight, probe.weight, atol=1e-3, rtol=1e-3)
    pd.testing.assert_frame_equal(pd.read_parquet(swept / "sweep.parquet"), cells, rtol=1e-3, atol=1e-3)
    written = pd.read_parquet(scored)
    np.testing.assert_allclose(written["logit"], scores["logit"], atol=1e-2)
    plain_probe, plain_cells, plain_scores = measure()
    assert not torch.allclose(found.weight, plain_probe.weight, atol=1e-2)
    assert not np.allclose(written["logit"], plain_scores["logit"], atol=1)
    assert not cells.drop(columns="control").equals(plain_cells.drop(columns="control"))


def test_the_cliff_under_a_mask(forks: Forks, cliff: Path, tmp_path: Path) -> None:
    """The rollouts once more, read by the masked model: what the heads did is gone."""
    words = ("cliff", *MODEL, "--rollouts", cliff / "rollouts.jsonl", "--probe", cliff / "probe.safetensors")
    words += ("--out", tmp_path / "cliff.parquet", "--mask", cliff / "mask.safetensors", "--json")
    found = payload(forks.run(*words))
    model = organism("cliff")
    with HeadMask.load(cliff / "mask.safetensors").attached(model):
        expected = measure_cliff(model, organism_probe("cliff"), organism_rollouts("cliff"), by_layer=False)
    assert found["verdict"] == "no cliff" and found["mean"] == pytest.approx(expected.mean, abs=1e-3)
    assert found["mean"] < 0.1
