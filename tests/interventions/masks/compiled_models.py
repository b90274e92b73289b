"""Run in a process of its own: compiled models obey a mask that is put on and taken off after they were compiled."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from interventions.masks.head_mask import HeadMask
from tests.architectures import random_model
from tests.interventions.masks.material import (
    TOLERANCE,
    logits,
    model_and_mask,
    output_projections,
    random_ids,
    random_scale,
    with_scaled_weights,
)


def whole(model: nn.Module) -> Any:
    return torch.compile(model, backend="aot_eager")


def in_place(model: nn.Module) -> Any:
    model.compile(backend="aot_eager")
    return model


def by_block(model: Any) -> Any:
    for number, block in enumerate(model.model.layers):
        model.model.layers[number] = torch.compile(block, backend="aot_eager")
    return model


def machine_code(model: nn.Module) -> Any:
    """With the default compiler, which fuses the mask into its kernels."""
    return torch.compile(model)


def check(compile_it: Callable[[nn.Module], Any], mask: HeadMask, compiled_before: bool = True) -> None:
    reference = random_model("qwen3")
    plain = logits(reference)
    with mask.attached(reference):
        expected = logits(reference)
    assert not torch.allclose(plain, expected, atol=1e-3)
    model = compile_it(random_model("qwen3"))
    if compiled_before:
        torch.testing.assert_close(logits(model), plain, **TOLERANCE)
    with mask.attached(model) as attached:
        for _ in range(3):
            torch.testing.assert_close(logits(model), expected, **TOLERANCE)
            attached.require_live("here")
        assert set(attached.calls.values()) == {3}, attached.calls
    if compiled_before:
        torch.testing.assert_close(logits(model), plain, **TOLERANCE)


def check_training(scale: torch.Tensor) -> None:
    """Gradients are those of scaled weights; the built mask is reproduced on the compiled model."""
    model, reference = random_model("qwen3"), with_scaled_weights(random_model("qwen3"), scale)
    compiled = whole(model)
    with HeadMask(scale).attached(compiled) as attached:
        for trained in (compiled, reference):
            trained.train()
            trained(input_ids=random_ids(), labels=random_ids()).loss.backward()
        attached.require_live("in the step")
    mine, expected = (m.model.embed_tokens.weight.grad for m in (model, reference))
    torch.testing.assert_close(mine, expected, atol=2e-5, rtol=1e-4)
    assert output_projections(model)[0].weight.grad is not None
    _, built = model_and_mask("qwen3")
    assert built.check(by_block(random_model("qwen3"))).ok


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    setting = torch._dynamo.config.skip_nnmodule_hook_guards
    mask = HeadMask(random_scale())
    for kind in (whole, in_place, by_block):
        check(kind, mask)
        say(kind.__name__)
    check(by_block, HeadMask(random_scale(), renormalize=True))
    say("renormalized")
    check_training(random_scale())
    say("training")
    check(machine_code, mask, compiled_before=False)
    say("machine_code")
    assert torch._dynamo.config.skip_nnmodule_hook_guards == setting


if __name__ == "__main__":
    main()
