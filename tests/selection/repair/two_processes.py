"""Run by `torchrun` with two processes: `repair` with a copy in each, and sharded; killed halfway, and run again."""

import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from interventions.heads import Head
from selection.repair import RepairOptions, repair
from selection.repair import run as job
from selection.repair.trainer import RepairTrainer
from tests.selection.repair.material import examples

KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "heads": {"trainable": "heads", "heads": (Head(0, 1), Head(1, 3))},
    "lora": {"trainable": "lora", "lora_rank": 4},
}


RUNS = (("heads", True), ("lora", True), ("all", False))


def options(**given: Any) -> RepairOptions:
    return RepairOptions(epochs=2, learning_rate=1e-2, batch_size=4, device="cpu", checkpoint_every=1, **given)


class Halfway(BaseException):
    """As if the process had ended."""


def run(base: str, name: str, fsdp: bool) -> None:
    sharded: list[bool] = []
    step = RepairTrainer.training_step
    chosen = options(fsdp=fsdp, **KINDS[name])
    out = Path(f"{name}-{'fsdp' if fsdp else 'ddp'}")

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 2 and not sharded:
            raise Halfway
        loss = step(self, *args, **kwargs)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        assert all(isinstance(parameter, DTensor) == fsdp for parameter in trained)
        return loss

    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        if fsdp:
            # accelerate shards on accelerators only and falls back to copies on a CPU; the code is the same.
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        make(self, *args, **kwargs)

    job.check_machine = lambda options: None  # which refuses to shard on a CPU
    make = RepairTrainer.__init__
    RepairTrainer.__init__ = made  # type: ignore[method-assign]
    RepairTrainer.training_step = watched  # type: ignore[method-assign]
    try:
        repair(base, examples(), out, chosen)
    except Halfway:
        sharded.append(True)
    assert sharded and not out.exists()
    dist.barrier()
    report = repair(base, examples(), out, chosen)
    RepairTrainer.training_step, RepairTrainer.__init__ = step, make  # type: ignore[method-assign]
    assert report.resumed_from == 2 and out.is_dir() and len(report.losses) == 4
    assert repair(base, examples(), out, chosen).was_complete
    sys.stdout.write(f"{out}: done\n")
    sys.stdout.flush()


def main() -> None:
    for name, fsdp in RUNS:
        run(sys.argv[1], name, fsdp)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
