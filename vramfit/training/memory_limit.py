"""A run's memory limit: what is free now, and a cap on the allocator before anything is built.

With the cap first, Windows refuses an allocation beyond the budget where it would spill to the system's RAM.
"""

import torch

from vramfit.jobs.job import Job
from vramfit.jobs.levers.apply import apply_to_allocator
from vramfit.measure.budget import read_budget, who_took
from vramfit.measure.device import Device, local_device
from vramfit.records import Budget
from vramfit.training.monitors import MemoryWatch
from vramfit.training.run_options import RunOptions
from vramfit.units import format_size


def limit_memory(
    job: Job, options: RunOptions, device: torch.device, planned: Budget | None
) -> tuple[MemoryWatch, list[str]]:
    """Cap the allocator at what the run may use, before its network is built; say so where that is less than planned.

    Args:
        job: what is to be trained; its levers may set the allocator up.
        options: of the run.
        device: this rank's own.
        planned: the budget that the plan was made for, if that was on this card.

    Raises:
        UsageError: nothing of the card is left.

    """
    if device.type != "cuda":
        return MemoryWatch(device), []
    # Read before CUDA starts in this process: a context that the driver attributes to nobody would count as another's.
    budget, notes = budget_now(local_device(device.index or 0), options, planned)
    apply_to_allocator(job.levers, device)
    memory = MemoryWatch(device, budget, options.watermark)
    torch.cuda.set_device(device)
    return memory, notes


def budget_now(card: Device, options: RunOptions, planned: Budget | None) -> tuple[Budget, list[str]]:
    """The planned budget, or the smaller one that is left of the card now, and who took the rest.

    Raises:
        UsageError: nothing is left.

    """
    now = read_budget(card, options.limits.or_vram(planned.requested_bytes if planned else None))
    if planned is None:
        return now, []
    if now.budget_bytes >= planned.budget_bytes:
        return planned, []
    room = f"The run is held to {format_size(now.budget_bytes)}; where that is too little, micro-batches get smaller."
    taken = who_took(planned, now, card.processes)
    return now, [*([taken] if taken else []), room]
