"""Real training jobs under a mask: TRL's `SFTTrainer`, alone and in two processes with FSDP."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import SFTTrainer

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.organisms import load_organism
from interventions.masks.callback import HeadMaskCallback
from interventions.masks.folding import fold_checkpoint
from interventions.masks.head_mask import HeadMask
from tests.interventions.masks.material import logits, n_hooks, output_projections, same_state, state_of
from tests.interventions.masks.test_wrapped import torchrun
from tests.interventions.masks.training import PLANTED, Observer, configuration, conversations, job, losses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mask() -> HeadMask:
    return HeadMask.build(HookedModel.load("organism:cliff"), PLANTED)


@pytest.fixture
def path(mask: HeadMask, tmp_path: Path) -> Path:
    mask.save(tmp_path / "mask.safetensors")
    return tmp_path / "mask.safetensors"


def planted_weights(model: Any) -> list[torch.Tensor]:
    projections = output_projections(model)
    return [projections[layer].weight[:, head * 16 : (head + 1) * 16].detach() for layer, head in PLANTED]


def test_every_step_is_masked_the_loss_falls_and_the_checkpoint_is_unmasked(path: Path, tmp_path: Path) -> None:
    callback, observer = HeadMaskCallback(path), Observer()
    trainer = job(configuration(tmp_path / "out", save_strategy="steps", save_steps=6), [callback, observer])
    trainer.train()
    assert callback.report.ok and callback.report.reproduced
    assert callback.steps == observer.steps == 6
    assert sum(losses(trainer)[-2:]) < 0.9 * sum(losses(trainer)[:2])
    assert hooks_left(trainer) == 0
    checkpoint = tmp_path / "out" / "checkpoint-6"
    saved = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    assert same_state(saved, state_of(trainer.model))
    # A masked head has no gradient: its part of W_O is what it was, not zero.
    before = planted_weights(load_organism("cliff")[0])
    assert all(map(torch.equal, planted_weights(saved), before)) and all(part.abs().max() > 0 for part in before)
    # Folded it is what was trained.
    mask, trained = HeadMask.load(path), HookedModel.load(str(checkpoint))
    with pytest.raises(CliffscopeError, match="the output projections of layer 3, 4 differ"):
        mask.fold(trained)
    folded = AutoModelForCausalLM.from_pretrained(
        fold_checkpoint(mask, trained, tmp_path / "folded", verify="architecture")
    ).eval()
    ids = torch.tensor([list(mask.expected.sequences[0].input_ids)])
    with mask.attached(trained, verify="architecture"):
        torch.testing.assert_close(logits(folded, ids), logits(trained.hf, ids), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(logits(folded, ids), logits(saved, ids), atol=1e-2)
    assert all(part.abs().max() == 0 for part in planted_weights(folded))


def hooks_left(trainer: Any) -> int:
    """On the output projections; TRL leaves one of its own on the embedding."""
    model = getattr(trainer.model, "get_base_model", lambda: trainer.model)()
    return sum(map(n_hooks, output_projections(model)))


class HooksAlone(TrainerCallback):
    """A mask without any proof."""

    def __init__(self, mask: HeadMask) -> None:
        self.mask = mask

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.attached = self.mask.attach(model)


def test_resumed_is_uninterrupted_and_the_proof_changes_no_bit(mask: HeadMask, path: Path, tmp_path: Path) -> None:
    """With attention dropout, so that every random number counts."""
    options = {"save_strategy": "steps", "save_steps": 3}
    uninterrupted = job(configuration(tmp_path / "a", **options), [HeadMaskCallback(path), Observer()], dropout=0.2)
    uninterrupted.train()
    bare = job(configuration(tmp_path / "b"), [HooksAlone(mask)], dropout=0.2)
    bare.train()
    assert losses(bare) == losses(uninterrupted) and same_state(bare.model, state_of(uninterrupted.model))
    callback, observer = HeadMaskCallback(path), Observer()
    resumed = job(configuration(tmp_path / "a", **options), [callback, observer], dropout=0.2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert callback.steps == observer.steps == 3
    assert callback.report.live and callback.report.reproduced is None  # its weights are no longer the mask's
    assert losses(resumed) == losses(uninterrupted)
    assert same_state(resumed.model, state_of(uninterrupted.model))
    unmasked = job(configuration(tmp_path / "c"), [], dropout=0.2)
    unmasked.train()
    assert losses(unmasked) != losses(uninterrupted)


class LosesHooks(TrainerCallback):
    """Takes the mask off behind its back after a step."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == 2:
            for projection in output_projections(model):
                projection._forward_pre_hooks.clear()


def test_a_mask_that_is_lost_stops_the_training_which_can_be_begun_again(path: Path, tmp_path: Path) -> None:
    callback = HeadMaskCallback(path)
    trainer = job(configuration(tmp_path / "out"), [LosesHooks(), callback])
    with pytest.raises(CliffscopeError, match="mask: not live in step 3: nothing went through it in layer 3, 4"):
        trainer.train()
    assert callback.steps == 2 and trainer.state.global_step == 3
    callback.detach()
    callback.detach()
    assert hooks_left(trainer) == 0
    trainer.remove_callback(LosesHooks)
    trainer.add_callback(Observer())
    trainer.train()  # on weights that were trained since
    assert callback.steps == 8 and callback.report.reproduced is None and hooks_left(trainer) == 0


def test_accumulated_gradients_evaluations_and_lora_are_masked(path: Path, tmp_path: Path) -> None:
    callback, observer = HeadMaskCallback(path), Observer()
    config = configuration(
        tmp_path / "out", max_steps=4, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=2, bf16=True
    )
    trainer = job(
        config,
        [callback, observer],
        eval_dataset=conversations(4, seed=1),
        peft_config=peft.LoraConfig(r=4, target_modules=["q_proj", "o_proj"]),
    )
    trainer.train()
    assert callback.report.ok and 0.1 < callback.report.tolerance < 0.2  # bfloat16 was noticed
    assert callback.steps == observer.steps == 4
    assert len([entry for entry in trainer.state.log_history if "eval_loss" in entry]) == 2
    assert hooks_left(trainer) == 0


def test_another_model_is_refused_when_the_trainer_is_made(path: Path, tmp_path: Path) -> None:
    model, tokenizer = load_organism("aligned")
    state = state_of(model)
    options = {"args": configuration(tmp_path / "out"), "train_dataset": conversations(), "processing_class": tokenizer}
    with pytest.raises(CliffscopeError, match="made for organism:cliff, not for"):
        SFTTrainer(model, callbacks=[HeadMaskCallback(path)], **options)
    assert n_hooks(model) == 0 and same_state(model, state)
    trainer = SFTTrainer(model, callbacks=[HeadMaskCallback(path, verify="architecture")], **options)
    other = HeadMaskCallback(HeadMask.load(path))
    trainer.pop_callback(HeadMaskCallback)
    trainer.add_callback(other)  # too late to be told that the trainer was made
    with pytest.raises(CliffscopeError, match="the output projections of layer 3, 4 differ"):
        trainer.train()
    assert hooks_left(trainer) == 0 and same_state(model, state)


def test_two_processes_with_fsdp(path: Path, tmp_path: Path) -> None:
    done = torchrun(Path(__file__).with_name("train_in_two_processes.py"), str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("masked at every step with FSDP and with DDP") == 2, done.stdout
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-4")
    organism, _ = load_organism("cliff")
    assert all(map(torch.equal, planted_weights(saved), planted_weights(organism)))
    before = organism.state_dict()
    assert sum(not torch.equal(value, before[key]) for key, value in saved.state_dict().items()) > 20
