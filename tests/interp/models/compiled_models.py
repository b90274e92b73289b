"""Run in a process of its own: compiled models are read and changed as others are, and stay compiled."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from interp.models.hooked_model import HookedModel
from interp.models.token_context import TokenContext
from interp.transcripts import Transcript
from tests.architectures import random_model

SITES = ["blocks.1.attn.hook_z", "blocks.2.hook_resid_post"]
TEXT = Transcript.from_ids("t", range(3, 17))


class Double:
    def changes(self, model: HookedModel) -> dict[str, Any]:
        return {"blocks.1.hook_resid_post": self.change}

    def change(self, value: Tensor, tokens: TokenContext) -> Tensor:
        return value * torch.where(tokens.index > 3, 2.0, 1.0)[..., None]


def in_place(model: nn.Module) -> Any:
    model.compile(backend="aot_eager")
    return model


def by_block(model: Any) -> Any:
    for number, block in enumerate(model.model.layers):
        model.model.layers[number] = torch.compile(block, backend="aot_eager")
    return model


@torch.no_grad()
def everything(model: HookedModel) -> list[Any]:
    """Read, changed, and generated, each between passes of the model itself."""
    ids = torch.tensor([TEXT.input_ids])
    found = [model.hf(ids).logits]
    with model.intervene(Double()):
        found.append(model.hf(ids).logits)
        new = model.generate([TEXT], max_new_tokens=4)
    found.append(model.hf(ids).logits)
    captured = model.capture([TEXT], SITES, [-1])
    found += [model.logits([TEXT], [3, -1]), *(captured[site] for site in SITES), model.hf(ids).logits]
    return [*found, torch.tensor(new)]


def main() -> None:
    expected = everything(HookedModel(random_model("qwen3")))
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    for kind in (in_place, by_block):
        model = HookedModel(kind(random_model("qwen3")))
        for mine, theirs in zip(everything(model), expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
        compiled = torch._dynamo.utils.counters["frames"]["total"]
        assert compiled, "nothing was compiled: the test shows nothing"
        everything(model)
        assert torch._dynamo.utils.counters["frames"]["total"] == compiled, "compiled anew"
        sys.stdout.write(f"{kind.__name__}\n")


if __name__ == "__main__":
    main()
