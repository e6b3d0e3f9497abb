"""Published measurements of GPU memory and step time, and the jobs that they are of.

The files are no part of the project: VRAMFIT_MEASUREMENTS names the folder that holds timm_rtx3090_amp.csv (timm's own
benchmark results), gpumemnet_a100.csv and published_peaks.csv.
"""

import csv
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

from vramfit.jobs.backbone import backbone_job
from vramfit.jobs.job import Job
from vramfit.units import MIB

REPOSITORY = Path(__file__).resolve().parents[1]
# What autocast of torch 1.12 did not cast to float32 yet and today's does, read off its wheel: each operation of
# today's list asked with torch._C._dispatch_has_kernel_for_dispatch_key(name, "AutocastCUDA"). linalg_vector_norm was
# not cast either; but what calls it today called `norm`, which was.
UNCAST_IN_1_12 = (
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "linalg_matrix_norm",
    "linalg_matrix_norm.str_ord",
    "logsumexp",
    "vdot",
)


@dataclass(frozen=True)
class LadderRow:
    """timm's benchmark on an RTX 3090: `fits` ran, `above` had not; step in seconds at `fits`."""

    model: str
    image: int
    channels_last: bool
    fits: int
    above: int | None
    step_s: float

    @property
    def key(self) -> str:
        """Names the row's traces in the cache."""
        return f"ladder-{self.model}-{self.image}"


@dataclass(frozen=True)
class DeviceRow:
    """Memory in use on an A100 40 GB, as nvidia-smi shows it, while a timm model trains in float32 at its own size."""

    model: str
    batch: int
    device_used_bytes: int

    @property
    def key(self) -> str:
        """Names the row's traces in the cache."""
        return f"own-{self.model}"


def data_folder() -> Path:
    if "VRAMFIT_MEASUREMENTS" not in os.environ:
        sys.exit("VRAMFIT_MEASUREMENTS is not set; let it name the folder of the published measurements.")
    return Path(os.environ["VRAMFIT_MEASUREMENTS"])


def ladder_rows() -> list[LadderRow]:
    return [
        LadderRow(
            model=row["model"],
            image=int(row["img"]),
            channels_last=row["layout"] == "NHWC",
            fits=int(row["fits"]),
            # The benchmark starts at 512: that nothing larger ran there says nothing.
            above=int(row["next_ladder_step"]) if int(row["fits"]) < 512 else None,
            step_s=float(row["step_ms"]) / 1000,
        )
        for row in _rows("timm_rtx3090_amp.csv")
    ]


def device_rows() -> list[DeviceRow]:
    """Rows of runs that went well, by the rows alone: see `_sound`."""
    models: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in _rows("gpumemnet_a100.csv"):
        models[row["model"]].append((int(row["batch"]), int(float(row["device_used_mib"]))))
    return [
        DeviceRow(model, batch, mib * MIB) for model, points in models.items() for batch, mib in _sound(sorted(points))
    ]


def _sound(points: list[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Points of a model that lie on a rising line, if three or more do.

    A run that died shows less memory than a smaller batch of the same model, or as much as the card has; other
    readings caught a neighbour's run. Such points lie off the line through the median of all pairwise slopes; where
    fewer than three lie on it, it is chance that it passes through them.
    """
    pairs = [(a, b) for a in points for b in points if a[0] < b[0]]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs]
    if len(points) < 3 or (slope := median(slopes)) <= 0:
        return []
    level = median(mib - slope * batch for batch, mib in points)
    sound = [(batch, mib) for batch, mib in points if abs(level + slope * batch - mib) < 0.05 * mib and mib < 39_500]
    return sound if len(sound) >= 3 else []


def _rows(name: str) -> list[dict[str, str]]:
    with (data_folder() / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class KeptGradients:
    """Optimizers as they were before torch 2: tensor by tensor, and gradients filled with zeros, not dropped."""

    @staticmethod
    def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """As timm's benchmark makes it."""
        return _keeping(torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False))

    @staticmethod
    def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """As mmpose makes it."""
        return _keeping(torch.optim.Adam(parameters, lr=1e-3, foreach=False))


def _keeping(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    drop = optimizer.zero_grad
    optimizer.zero_grad = lambda **_: drop(set_to_none=False)  # type: ignore[method-assign]  # the old way
    return optimizer


def job_of(key: str) -> Job:
    """The job behind a cache key."""
    source, rest = key.split("-", 1)
    if source == "ladder":
        model, image = rest.rsplit("-", 1)
        job = backbone_job(model, image_size=(int(image), int(image)), amp="fp16", cudnn_benchmark=True)
        return _with_optimizer(job, KeptGradients.sgd)
    job = backbone_job(rest, amp=None)
    # The optimizer is not stated. One state a parameter is what models with many parameters show at small batches.
    return _with_optimizer(job, partial(torch.optim.SGD, lr=0.1, momentum=0.9))


def _with_optimizer(job: Job, optimizer: object) -> Job:
    from dataclasses import replace

    return replace(job, optimizer=optimizer)  # type: ignore[arg-type]  # both are called with the parameters


def uses_fused_attention(key: str) -> bool:
    """torch 1.12 had no fused attention."""
    return not key.startswith("ladder")


def uncast_for(key: str) -> tuple[str, ...]:
    """What autocast left alone when a key's rows were measured: the ladder is of torch 1.12."""
    return UNCAST_IN_1_12 if key.startswith("ladder") else ()


def published_rows() -> list[dict[str, str]]:
    return _rows("published_peaks.csv")
