"""How a run loads its data: how many loading processes, from what this machine was just seen to do."""

import time
from statistics import median

import torch
from torch.utils._pytree import tree_leaves

from vramfit.jobs.ranks import Ranks
from vramfit.measure.host import available_host_bytes, usable_cores
from vramfit.plan.workers import LoaderSettings, Pace, loader_for_card, loader_for_cpu
from vramfit.training.batch_plan import Decision
from vramfit.training.loading import Samples
from vramfit.training.run_options import RunOptions

_SAMPLES = 24
_LIMIT_S = 0.4


def choose_loader_settings(
    samples: Samples, options: RunOptions, decision: Decision, device: torch.device, ranks: Ranks
) -> LoaderSettings:
    """Workers, batches ahead and pinning: as the options say, or from rates and memory where they leave it open."""
    pinned = options.pin_memory
    if options.num_workers is not None:
        return LoaderSettings(options.num_workers, pin_memory=device.type == "cuda" and pinned is not False)
    rate = measured_rate(samples)
    if device.type == "cpu":
        return loader_for_cpu(rate)
    chosen = loader_for_card(_pace(rate, samples, decision, ranks))
    return chosen if pinned is None else LoaderSettings(chosen.workers, chosen.ahead, pinned, chosen.reason)


def measured_rate(samples: Samples) -> float:
    """Images a second that one process loads: the median of a few samples, as an epoch would fetch them."""
    times: list[float] = []
    began = time.perf_counter()
    for index in range(min(len(samples), _SAMPLES)):
        start = time.perf_counter()
        samples.fetch(0, (index,))
        times.append(time.perf_counter() - start)
        if time.perf_counter() - began > _LIMIT_S:
            break
    # The first loads OpenCV, and maps the file.
    return 1 / median(times[1:] or times)


def _pace(rate: float, samples: Samples, decision: Decision, ranks: Ranks) -> Pace:
    trial = decision.profile.trial(decision.micro_batch) if decision.profile else None
    batch = -(-decision.effective_batch // ranks.world_size)
    sample = sum(int(leaf.nbytes) for leaf in tree_leaves(samples.fetch(0, (0,))))
    available = available_host_bytes()
    return Pace(
        loads_images_per_s=rate,
        takes_images_per_s=trial.throughput_images_per_s if trial else None,
        batch=batch,
        batch_bytes=batch * sample,
        cores=max(1, usable_cores() // ranks.local_size),
        host_bytes=None if available is None else available // ranks.local_size,
    )
