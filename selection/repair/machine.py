"""Whether what is asked for can be had on this machine, and in what pieces and precision it is computed there."""

import torch

from interp.errors import CliffscopeError
from interp.models.devices import parse_device
from selection.repair.options import RepairOptions
from selection.repair.processes import world_size


def check_machine(options: RepairOptions) -> None:
    """Refuses, before anything is loaded, what could not be trained here.

    Raises:
        CliffscopeError: If device, batch or sharding cannot be had.
    """
    device, processes = parse_device(options.device), world_size()
    if device.index:
        raise CliffscopeError(f"repair: device {device} cannot be chosen by number; set CUDA_VISIBLE_DEVICES instead.")
    if processes == 1 and device.type == "cuda" and torch.cuda.device_count() > 1:
        raise CliffscopeError(
            "repair: several GPUs and one process: run it under `torchrun --nproc-per-node N`, or set "
            "CUDA_VISIBLE_DEVICES to one."
        )
    if options.fsdp and (processes == 1 or device.type == "cpu"):
        raise CliffscopeError(
            "repair: fsdp shards a model over several processes, each with an accelerator; run it under torchrun."
        )
    split_batch(options)


def on_cpu(options: RepairOptions) -> bool:
    """Whether it is trained without an accelerator."""
    return parse_device(options.device).type == "cpu"


def computes_in_bfloat16(options: RepairOptions) -> bool:
    """Whether the passes are computed in bfloat16; on a CPU only if that is said."""
    if options.precision != "auto":
        return options.precision == "bfloat16"
    device = parse_device(options.device).type
    return device == "xpu" or (device == "cuda" and torch.cuda.is_bf16_supported())


def split_batch(options: RepairOptions) -> tuple[int, int]:
    """Examples at a time in a process, and how often before a step.

    Raises:
        CliffscopeError: If the batch cannot be divided so.
    """
    processes = world_size()
    each, rest = divmod(options.batch_size, processes)
    size = options.device_batch_size or each
    if rest or not each or each % size:
        raise CliffscopeError(
            f"repair: a batch of {options.batch_size} cannot be divided among {processes} processes"
            + (f" in parts of {options.device_batch_size}" if options.device_batch_size else "")
            + "; give numbers that divide each other."
        )
    return size, each // size
