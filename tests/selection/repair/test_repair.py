"""Real trainings of tiny models: what is learnt, what stays as it was to the last bit, and what is written."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.heads import Head
from interventions.masks.head_mask import HeadMask
from selection.repair import RepairOptions, RepairReport, repair
from selection.repair.dataset import IGNORED, TrainingTokens, tokenize
from selection.repair.head_parameters import head_entries
from selection.repair.trainable import prepare
from selection.repair.trainer import train
from tests.architectures import random_model
from tests.interventions.masks.test_wrapped import torchrun
from tests.selection.repair import two_processes
from tests.selection.repair.material import examples, saved, tiny

pytestmark = pytest.mark.slow

HEADS = (Head(0, 1), Head(1, 3))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "base")


def options(**given: Any) -> RepairOptions:
    return RepairOptions(**{"epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "device": "cpu", **given})


def weights(folder: Path) -> dict[str, Tensor]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return {name: value.clone() for name, value in model.state_dict().items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def loss_by_hand(model: Any, made: list[TrainingTokens]) -> float:
    """Mean over all learnt tokens, one text at a time, without padding."""
    total, count = 0.0, 0
    for example in made:
        ids, labels = torch.tensor([example.input_ids]), torch.tensor(example.labels)
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        where = (labels[1:] != IGNORED).nonzero().flatten()
        total -= float(log_probs[where, labels[1:][where]].sum())
        count += len(where)
    return total / count


# ---- all parameters ----


def test_all_parameters_learn_and_the_result_is_a_plain_checkpoint(base: Path, tmp_path: Path) -> None:
    before, given = contents(base), examples()
    torch.manual_seed(5)
    report = repair(str(base), given, tmp_path / "out", options(loss_on="close", epochs=4, batch_size=8))
    noise = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(noise, torch.rand(3))  # whoever calls it has his own random numbers
    assert contents(base) == before
    model = HookedModel.load(str(base), device="cpu")
    made = tokenize(model, given, "close")
    assert report.losses[0]["loss"] == pytest.approx(loss_by_hand(model.hf, made), rel=1e-5)
    repaired = HookedModel.load(str(tmp_path / "out"), device="cpu")
    assert loss_by_hand(repaired.hf, made) < 0.9 * report.losses[0]["loss"]
    assert repaired.chat.render("Hi") == model.chat.render("Hi")
    assert type(repaired.hf) is type(model.hf) and repaired.fingerprint == model.fingerprint
    changed = [name for name, value in weights(tmp_path / "out").items() if not torch.equal(value, weights(base)[name])]
    assert len(changed) == len(weights(base))
    assert not list(tmp_path.glob(".*"))
    found = RepairReport.load(tmp_path / "out")
    assert found.facts == report.facts and list(found.losses) == list(report.losses)
    assert [row["step"] for row in report.losses] == [1, 2, 3, 4]
    assert report.facts["tokens"]["learnt"]["learnt"] == sum(example.learnt.total() for example in made)
    assert report.facts["precision"] == "float32" and report.facts["versions"]["trl"]
    assert report.facts["data"]["count"] == 8 and report.facts["base"]["name"] == str(base)


def test_finished_is_finished_and_another_repair_needs_another_place(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = repair(str(base), examples(), out, options())
    before = contents(out)
    again = repair(str(base), examples(), out, options())
    assert again.was_complete and not first.was_complete and contents(out) == before
    assert again.facts == first.facts
    with pytest.raises(CliffscopeError, match=r"other settings \(options.seed is 0 there and 1 now\).*--restart"):
        repair(str(base), examples(), out, options(seed=1))
    with pytest.raises(CliffscopeError, match=r"other settings \(data.count is 8 there and 7 now\)"):
        repair(str(base), examples(7), out, options())
    other = repair(str(base), examples(), out, options(seed=1), restart=True)
    assert RepairReport.load(out).facts == other.facts != first.facts
    assert not list(tmp_path.glob(".*"))
    # The seed is all that a run depends on.
    same = repair(str(base), examples(), tmp_path / "same", options())
    assert list(same.losses) == list(first.losses) != list(other.losses)
    assert contents(tmp_path / "same") == before


def test_a_place_that_holds_something_is_left_alone(base: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    for restart in (False, True):
        with pytest.raises(CliffscopeError, match="mine: already there; give a new or an empty folder"):
            repair(str(base), examples(), tmp_path / "mine", options(), restart=restart)
        with pytest.raises(CliffscopeError, match="holds the model that is to be repaired"):
            repair(str(base), examples(), base, options(), restart=restart)
    with pytest.raises(CliffscopeError, match="holds the model that is to be repaired"):
        repair(str(base), examples(), base.parent, options())
    assert {path.name for path in tmp_path.iterdir()} == {"mine"}


def test_the_pieces_of_a_batch_do_not_matter(base: Path, tmp_path: Path) -> None:
    whole = repair(str(base), examples(), tmp_path / "a", options())
    parts = repair(str(base), examples(), tmp_path / "b", options(device_batch_size=1, gradient_checkpointing=True))
    for one, other in zip(whole.losses, parts.losses, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, value in weights(tmp_path / "a").items():
        torch.testing.assert_close(weights(tmp_path / "b")[name], value, atol=1e-4, rtol=1e-3)


def test_bfloat16_weights_stay_bfloat16_and_a_cpu_computes_in_float32_unless_told(tmp_path: Path) -> None:
    half = saved(tmp_path / "half", torch.bfloat16)
    plain = repair(str(half), examples(), tmp_path / "a", options())
    told = repair(str(half), examples(), tmp_path / "b", options(precision="bfloat16"))
    assert (plain.facts["precision"], told.facts["precision"]) == ("float32", "bfloat16")
    assert plain.losses[0]["loss"] != told.losses[0]["loss"]
    model = HookedModel.load(str(half), device="cpu", dtype="float32")
    first = loss_by_hand(model.hf, tokenize(model, examples(), "thinking"))
    assert sum(row["loss"] for row in plain.losses[:2]) / 2 == pytest.approx(first, rel=0.2)
    for out in ("a", "b"):
        assert {value.dtype for value in weights(tmp_path / out).values()} == {torch.bfloat16}
        assert HookedModel.load(str(tmp_path / out), device="cpu").dtype is torch.bfloat16


# ---- heads ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_heads_only_their_entries_change(dtype: torch.dtype, tmp_path: Path) -> None:
    base = saved(tmp_path / "base", dtype)
    report = repair(str(base), examples(), tmp_path / "out", options(trainable="heads", heads=HEADS))
    before, after = weights(base), weights(tmp_path / "out")
    model = HookedModel.load(str(base), device="cpu")
    entries = head_entries(model, HEADS)
    assert before.keys() == after.keys()
    for name, value in before.items():
        own = entries.get(name, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(after[name][~own], value[~own]), name
        if name in entries:
            assert (after[name][own] != value[own]).float().mean() > 0.5, name
    assert report.facts["trained"]["parameters"] == 2 * 2 * 16 * 32
    assert report.facts["options"]["heads"] == ["0.1", "1.3"]
    assert report.losses[-1]["loss"] < report.losses[0]["loss"]


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_while_heads_are_trained_nothing_else_moves(name: str, tmp_path: Path) -> None:
    """The trainer's own model: biases, fused projections in two layouts, Conv1D."""
    model = HookedModel(random_model(name), name=name)
    before = {key: value.clone() for key, value in model.hf.state_dict().items()}
    entries = head_entries(model, HEADS)
    chosen = options(trainable="heads", heads=HEADS, batch_size=2)
    trainer = train(prepare(model, chosen), tiny().tokenizer, random_tokens(), chosen, tmp_path)
    for key, value in trainer.model.state_dict().items():
        own = entries.get(key, torch.zeros_like(value, dtype=torch.bool))
        assert torch.equal(value[~own], before[key][~own]), key
        assert key not in entries or not torch.equal(value[own], before[key][own]), key


def random_tokens(n: int = 6) -> list[TrainingTokens]:
    ids = torch.randint(3, 96, (n, 12), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        TrainingTokens(f"r{i}", False, tuple(row), (IGNORED,) * 6 + tuple(row[6:]), Counter(response=6), 12, 6)
        for i, row in enumerate(ids)
    ]


def test_the_gradient_that_is_clipped_is_that_of_the_heads(base: Path, tmp_path: Path) -> None:
    report = repair(str(base), examples(), tmp_path / "out", options(trainable="heads", heads=HEADS, batch_size=8))
    model = HookedModel.load(str(base), device="cpu")
    entries = head_entries(model, HEADS)
    made = tokenize(model, examples(), "thinking")
    model.hf.zero_grad()
    total = sum(example.learnt.total() for example in made)
    for example in made:
        logits = model.hf(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        labels = torch.tensor(example.labels[1:])
        (torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / total).backward()
    squares = [
        parameter.grad[entries[name]].square().sum()
        for name, parameter in model.hf.named_parameters()
        if name in entries
    ]
    assert report.losses[0]["gradient_norm"] == pytest.approx(float(torch.stack(squares).sum().sqrt()), rel=1e-4)


# ---- adapters ----


def test_adapters_are_merged_and_kept_on_request(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = repair(str(base), examples(), out, options(trainable="lora", lora_rank=4, keep_adapter=True))
    before, after = weights(base), weights(out)
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.split(".")[-2] for name in changed} == projections and len(changed) == 2 * 7
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    adapted = peft.PeftModel.from_pretrained(plain, out / "adapter").eval()
    merged = HookedModel.load(str(out), device="cpu")
    ids = torch.tensor([tokenize(merged, examples(), "response")[3].input_ids])
    with torch.no_grad():
        torch.testing.assert_close(merged.hf(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    assert report.losses[-1]["loss"] < report.losses[0]["loss"]
    assert report.facts["trained"]["parameters"] == sum(
        p.numel() for n, p in adapted.named_parameters() if "lora_" in n
    )


# ---- under a mask, and with benign examples ----


def test_under_a_mask_it_learns_what_the_masked_model_lacks(base: Path, tmp_path: Path) -> None:
    model = HookedModel.load(str(base), device="cpu")
    mask = HeadMask.build(model, [(0, 2)])
    report = repair(str(base), examples(), tmp_path / "out", options(mask=mask, batch_size=8))
    made = tokenize(model, examples(), "thinking")
    with mask.attached(model.hf):
        masked = loss_by_hand(model.hf, made)
    assert report.losses[0]["loss"] == pytest.approx(masked, rel=1e-5) != loss_by_hand(model.hf, made)
    # What the head writes has no gradient: it is as it was, and not zero.
    name, columns = "model.layers.0.self_attn.o_proj.weight", slice(32, 48)
    before, after = weights(base)[name][:, columns], weights(tmp_path / "out")[name][:, columns]
    assert torch.equal(before, after) and after.abs().max() > 0
    assert report.facts["options"]["mask"]
    other = saved(tmp_path / "other", hidden_size=48)
    with pytest.raises(CliffscopeError, match="mask: made for"):
        repair(str(other), examples(), tmp_path / "no", options(mask=mask))
    assert not (tmp_path / "no").exists()


def test_benign_examples_are_learnt_beside_the_others(base: Path, tmp_path: Path) -> None:
    benign = [
        dataclasses.replace(example, harmful=False, response="Sure! Boil water.") for example in examples(20, "b")
    ]
    report = repair(str(base), examples(6), tmp_path / "out", options(benign_share=0.4), benign=benign)
    assert report.facts["tokens"]["examples"] == 10 and report.facts["tokens"]["benign"] == 4
    assert report.facts["benign"]["count"] == 4
    with pytest.raises(CliffscopeError, match="a benign share is asked for, and no benign examples are given"):
        repair(str(base), examples(), tmp_path / "no", options(benign_share=0.4))


# ---- killed, broken, refused ----


class Killed(BaseException):
    """As if the process had ended."""


def test_from_a_whole_checkpoint_it_goes_on_to_the_same_bytes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the one after it is half-written. That a killed process leaves no more is tested on the command."""
    from selection.repair.trainer import RepairTrainer

    chosen = options(epochs=3, checkpoint_every=1)
    repair(str(base), examples(), tmp_path / "whole" / "out", chosen)
    save = RepairTrainer._save_optimizer_and_scheduler

    def dies(self: Any, folder: str) -> None:
        save(self, folder)
        if self.state.global_step == 4:
            (Path(folder) / "optimizer.pt").write_bytes(b"half")
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RepairTrainer, "_save_optimizer_and_scheduler", dies)
        repair(str(base), examples(), tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()
    left = tmp_path / ".out.partial" / "checkpoints"
    assert {folder.name for folder in left.glob("checkpoint-*")} >= {"checkpoint-3", "checkpoint-4"}
    with pytest.raises(CliffscopeError, match="an unfinished repair is there, with other settings"):
        repair(str(base), examples(), tmp_path / "out", dataclasses.replace(chosen, epochs=2))
    report = repair(str(base), examples(), tmp_path / "out", chosen)
    assert report.resumed_from == 3
    assert contents(tmp_path / "out") == contents(tmp_path / "whole" / "out")
    assert not list(tmp_path.glob(".*"))


def test_a_loss_that_is_no_number_stops_it_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "nan")
    with pytest.raises(CliffscopeError, match="the loss is nan in step 1; a smaller learning_rate"):
        repair(str(tmp_path / "nan"), examples(), tmp_path / "out", options())
    assert {path.name for path in tmp_path.iterdir()} == {"nan"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"batch_size": 8, "device_batch_size": 3}, "a batch of 8 cannot be divided among 1 processes in parts of 3"),
        ({"fsdp": True}, "run it under torchrun"),
        ({"device": "nowhere"}, "Device 'nowhere' cannot be used here"),
        ({"trainable": "heads", "heads": (Head(7, 0),)}, r"head 7\.0: there is no layer 7"),
        ({"max_length": 50}, "example 'e2': nothing of its response is left to learn"),
    ],
)
def test_what_cannot_be_done_here_leaves_nothing(given: dict[str, Any], says: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=says):
        repair(str(base), examples(), tmp_path / "out", options(**given))
    assert not list(tmp_path.iterdir())


def test_a_manifest_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match=r"not a repaired model, it has no repair\.json"):
        RepairReport.load(tmp_path)
    for content in ("{", json.dumps({"format": "other"}), "[]"):
        (tmp_path / "repair.json").write_text(content)
        with pytest.raises(CliffscopeError, match=r"repair\.json: (cannot be read|not a manifest)"):
            RepairReport.load(tmp_path)


# ---- several processes ----


def test_two_processes_learn_what_one_does(base: Path, tmp_path: Path) -> None:
    """With a copy of the model in each, and with the model sharded; killed halfway, and run again."""
    done = torchrun(Path(two_processes.__file__), str(base), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    for name, fsdp in two_processes.RUNS:
        alone = repair(str(base), examples(), tmp_path / name, two_processes.options(**two_processes.KINDS[name]))
        out = f"{name}-{'fsdp' if fsdp else 'ddp'}"
        assert done.stdout.count(f"{out}: done") == 2, done.stdout
        together = RepairReport.load(tmp_path / out)
        for one, other in zip(alone.losses, together.losses, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert not (tmp_path / f".{out}.partial").exists()
        changed = differing(tmp_path / out, base)
        assert changed == differing(tmp_path / name, base) and changed
        for key, value in weights(tmp_path / name).items():
            torch.testing.assert_close(weights(tmp_path / out)[key], value, atol=1e-4, rtol=1e-3)


def differing(folder: Path, base: Path) -> set[str]:
    before = weights(base)
    return {name for name, value in weights(folder).items() if not torch.equal(value, before[name])}
