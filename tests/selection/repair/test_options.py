"""Options that cannot be meant are refused when they are said; benign examples and how many of them."""

import json
from pathlib import Path

import pytest
import torch

from interp.errors import CliffscopeError
from interp.rollouts import Rollout, write_rollouts
from interventions.heads import Head
from interventions.masks.head_mask import HeadMask
from selection.repair.mix import benign_examples, mix
from selection.repair.options import LEARNING_RATES, RepairOptions
from tests.selection.repair.material import examples, tiny

SILENCES = HeadMask(torch.tensor([[1.0, 0.0], [1.0, 0.5]]))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochs": 0}, "epochs is 0; expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_length": -1}, "max_length is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"benign_share": 1.0}, "benign_share is 1.0; expected a share between 0 and 1"),
        ({"trainable": "heads"}, 'trainable="heads" needs heads'),
        ({"heads": (Head(0, 1),)}, 'heads are given, but trainable is "all"'),
        ({"keep_adapter": True}, "there is no adapter to keep"),
        ({"trainable": "heads", "heads": (Head(0, 1), Head(1, 1)), "mask": SILENCES}, r"head 0\.1 would learn nothing"),
    ],
)
def test_what_cannot_be_meant(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(CliffscopeError, match=says):
        RepairOptions(**wrong)  # type: ignore[arg-type]


def test_settings_are_json_and_tell_results_apart() -> None:
    plain = RepairOptions()
    assert plain.rate == LEARNING_RATES["all"] and RepairOptions(trainable="lora").rate == LEARNING_RATES["lora"]
    same = RepairOptions(learning_rate=plain.rate, device_batch_size=2, checkpoint_every=1, gradient_checkpointing=True)
    assert json.dumps(same.settings()) == json.dumps(plain.settings())
    others = [{"seed": 1}, {"mask": SILENCES}, {"loss_on": "response"}, {"trainable": "heads", "heads": (Head(0, 1),)}]
    texts = {json.dumps(RepairOptions(**other).settings()) for other in others}  # type: ignore[arg-type]
    assert len(texts | {json.dumps(plain.settings())}) == len(others) + 1
    assert RepairOptions(mask=HeadMask(SILENCES.scale, True)).settings() != RepairOptions(mask=SILENCES).settings()


# ---- benign examples ----


def test_the_share_is_of_all_that_is_trained_on() -> None:
    benign = examples(30, "b")
    assert mix(examples(12), benign, None, 0) == benign
    drawn = mix(examples(12), benign, 0.4, 0)
    assert len(drawn) == 8 and len({example.id for example in drawn}) == 8
    assert drawn == mix(examples(12), benign, 0.4, 0) != mix(examples(12), benign, 0.4, 1)
    with pytest.raises(CliffscopeError, match=r"share of 0\.8 beside 12 examples needs 48 benign ones, found 30"):
        mix(examples(12), benign, 0.8, 0)


def test_of_rollouts_the_benign_that_are_answered_are_taken(tmp_path: Path) -> None:
    rows = [
        Rollout("a", "How do I cook?", "Fine.", "Boil water.", False, "cooking", False),
        Rollout("b", "How do I steal?", "Bad.", "Sure.", True, "theft", False),
        Rollout("c", "How do I bake?", "Fine.", "I can't help.", False, "cooking", True),
        Rollout("d", "How do I peel?", "Fine, and", None, False, "cooking", None),
        Rollout("e", "How do I fry?", None, "In oil.", None, None, None),
    ]
    write_rollouts(tmp_path / "r.jsonl", rows)
    found = benign_examples(tmp_path / "r.jsonl", tiny().chat)
    assert [(e.id, e.thinking, e.response) for e in found] == [("a", "Fine.", "Boil water."), ("e", None, "In oil.")]
    write_rollouts(tmp_path / "harmful.jsonl", rows[1:4])
    with pytest.raises(CliffscopeError, match=r"harmful\.jsonl: no benign example that is answered"):
        benign_examples(tmp_path / "harmful.jsonl", tiny().chat)


def test_examples_in_any_form_are_taken_too(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "instruction": "Cook", "input": "", "output": "<think>\nHm\n</think>\n\nBoil.", "harmful": False}
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [found] = benign_examples(tmp_path / "x.jsonl", tiny().chat)
    assert (found.id, found.thinking, found.response) == ("a", "Hm", "Boil.")


@pytest.mark.parametrize("content", ["", "{\n"])
def test_a_file_that_holds_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(CliffscopeError, match=r"x\.jsonl"):
        benign_examples(tmp_path / "x.jsonl", tiny().chat)
