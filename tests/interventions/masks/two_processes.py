"""Run by `torchrun` with two processes: a mask under DDP, FSDP and `fully_shard`, against scaled weights in one."""

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel

from interventions.masks.head_mask import HeadMask
from tests.architectures import random_model
from tests.interventions.masks.material import adapted, logits, model_and_mask, n_hooks, random_ids, with_scaled_weights


def sharded(model: Any) -> Any:
    blocks = model.get_base_model().model.layers if hasattr(model, "get_base_model") else model.model.layers
    for block in blocks:
        fully_shard(block)
    return fully_shard(model)


def fsdp1(model: Any) -> Any:
    kinds = ModuleWrapPolicy({type(model.model.layers[0])})
    return FullyShardedDataParallel(model, auto_wrap_policy=kinds, use_orig_params=True, device_id=torch.device("cpu"))


def compiled(model: Any) -> Any:
    return torch.compile(sharded(model), backend="aot_eager")


def check(kind: str, wrap: Any, mask: HeadMask, make: Any = random_model, renormalize: bool = False) -> None:
    """Logits, loss and gradient norm of the wrapped model with the mask are those of one plain masked process."""
    plain = make("qwen3")
    before = logits(plain)
    with mask.attached(plain, verify="architecture"):
        expected = logits(plain)
    if make is random_model and not mask.renormalize:
        torch.testing.assert_close(expected, logits(with_scaled_weights(plain, mask.scale)), atol=1e-5, rtol=1e-5)
    model = wrap(make("qwen3"))
    report = mask.check(model, verify="full" if make is random_model else "architecture")
    assert report.ok and report.live, report
    hooks = n_hooks(model)
    with mask.attached(model) as attached:
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-5)
        model.train()
        ids = random_ids()[dist.get_rank() :][:1]  # each process its own text
        for _ in range(2):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            attached.require_live("in the step")
        model.eval()
    with mask.attached(plain, verify="architecture"):
        torch.testing.assert_close(loss, plain.train()(input_ids=ids, labels=ids).loss, atol=1e-5, rtol=1e-5)
    assert n_hooks(model) == hooks
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    say(f"{kind}: masked, live, removed")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    dist.init_process_group("gloo")
    _, mask = model_and_mask("qwen3")
    check("ddp", DistributedDataParallel, mask)
    check("fsdp1", fsdp1, mask)
    check("fsdp2", sharded, mask)
    _, renormalizing = model_and_mask("qwen3", renormalize=True)
    check("fsdp2 renormalizing", sharded, renormalizing)
    check("fsdp2 lora", sharded, mask, make=adapted)
    check("fsdp2 compiled", compiled, mask)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
