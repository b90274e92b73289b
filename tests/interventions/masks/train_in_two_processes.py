"""Run by `torchrun` with two processes: `SFTTrainer` on the organism with FSDP, masked, resumed, and masked again."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from trl import SFTTrainer

from interventions.masks.callback import HeadMaskCallback
from tests.interventions.masks.material import n_hooks, output_projections
from tests.interventions.masks.training import Observer, configuration, job, losses


def train(path: str, checkpoint: str | None = None, fsdp: bool = True) -> SFTTrainer:
    callback, observer = HeadMaskCallback(path), Observer()
    saving = {"save_strategy": "steps", "save_steps": 2} if fsdp else {}
    config = configuration(Path("out"), max_steps=4, fsdp=fsdp, **saving)
    if fsdp:
        # accelerate shards on accelerators only and falls back to DDP on a CPU without a word; the code is the same.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    trainer = job(config, [callback, observer], dropout=0.2)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert trainer.is_fsdp_enabled == fsdp
    assert {isinstance(value, DTensor) for value in trainer.model.parameters()} == {fsdp}
    assert isinstance(trainer.model_wrapped, DistributedDataParallel) != fsdp
    assert callback.report.ok and callback.report.reproduced is (None if checkpoint else True), callback.report
    assert callback.steps == observer.steps == (2 if checkpoint else 4)
    assert sum(map(n_hooks, output_projections(trainer.model))) == 0
    return trainer


def main() -> None:
    whole = train(sys.argv[1])
    falling = losses(whole)
    assert falling[-1] < 0.9 * falling[0], falling
    resumed = train(sys.argv[1], "out/checkpoint-2")
    assert losses(resumed) == falling, (losses(resumed), falling)
    for mine, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine.to_local(), other.to_local())
    train(sys.argv[1], fsdp=False)
    sys.stdout.write("masked at every step with FSDP and with DDP\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
