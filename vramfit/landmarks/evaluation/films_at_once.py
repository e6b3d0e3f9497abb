"""How many films go through a trained network at once, where nobody said."""

import torch

from vramfit.errors import NothingFits
from vramfit.jobs.batch import sample_batch
from vramfit.jobs.step import Step
from vramfit.landmarks.model.decode import Method, decode
from vramfit.landmarks.model.trained_network import Trained
from vramfit.measure.budget import read_budget
from vramfit.measure.device import local_device
from vramfit.measure.forward import fastest_forward
from vramfit.measure.memory import CudaMemory

# A few films are done sooner than the question how many to take; on a CPU one film keeps all cores busy.
WITHOUT_ASKING = 4


def films_at_once(trained: Trained, films: int, method: Method = "dark") -> tuple[int, str]:
    """The batch for so many films, and one sentence why.

    On a card it is the fastest that fits what is free now, tried with made-up films on the way that real ones take; on
    a CPU, and for a handful, it is 4 and nothing is tried.
    """
    if trained.step.device.type != "cuda":
        return min(films, WITHOUT_ASKING), f"batch {min(films, WITHOUT_ASKING)}: the usual on a CPU, not measured."
    if films <= WITHOUT_ASKING:
        return films, f"batch {films}: all of them, not measured."
    device = local_device(trained.step.device.index or 0)
    total_bytes = device.total_bytes if device.can_spill else None
    way = Way(trained.step, trained.options.heatmap_stride, method)
    try:
        return fastest_forward(way, CudaMemory(device), read_budget(device), maximum=films, total_bytes=total_bytes)
    except NothingFits:
        return 1, "batch 1: not even that is sure to fit what is free."


class Way:
    """What every film goes through, from the host's bytes to points, with made-up films."""

    def __init__(self, step: Step, stride: int, method: Method) -> None:
        self._step, self._stride, self._method = step, stride, method

    def __call__(self, films: int) -> torch.Tensor:
        """The points of so many films, float32 BxKx2."""
        heatmaps, _ = self._step.validate(sample_batch(self._step.job, films))
        return torch.cat([decode(one, self._stride, self._method)[0] for one in heatmaps.split(1)])
