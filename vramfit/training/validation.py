"""Validation: the figures of all ranks' samples, their mean loss, and a few outputs to look at."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vramfit.jobs.ranks import Ranks
from vramfit.training.listeners import Example
from vramfit.training.loading import Loader, share
from vramfit.training.recovery import Recovery
from vramfit.training.task import Rows, Task


@dataclass(frozen=True)
class Validated:
    """What validation found: a task's `rows` for every sample in order, NxM, the mean loss, and examples."""

    rows: Rows
    loss: float
    examples: list[Example] = field(default_factory=list)


def validate(task: Task, loader: Loader, recovery: Recovery, ranks: Ranks, *, examples: int = 0) -> Validated:
    """Judge the task's validation samples, each rank its share of them; every rank must call it.

    `examples` is how many of this rank's first samples are kept with their outputs.

    Raises:
        OutOfMemory: a single sample does not fit.

    """
    samples = len(task.validation)
    mine = share(range(samples), ranks.rank, ranks.world_size)
    cuts = [mine[at : at + recovery.micro_batch] for at in range(0, len(mine), recovery.micro_batch)]
    found: dict[int, Any] = {}
    total = torch.zeros((), dtype=torch.float64, device=recovery.step.device)
    kept: list[Example] = []
    for indices, batch in zip(cuts, loader.batches(0, cuts), strict=True):
        for outputs, loss, place in recovery.validate(batch) if batch is not None else ():
            found |= dict(zip(indices[place], task.rows(outputs, indices[place]), strict=True))
            total += loss.double() * len(indices[place])
            if left := examples - len(kept):
                kept += task.examples(outputs[:left], indices[place][:left])
    everyones: dict[int, Any] = {}
    for theirs in ranks.gather(found):
        everyones |= theirs
    rows = np.stack([everyones[index] for index in range(samples)])
    return Validated(rows, float(ranks.sum(total)) / samples, kept)
