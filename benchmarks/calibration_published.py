"""The rows of published_peaks.csv that timm or torchvision alone rebuild, traced and compared. Bytes.

What the file does not say was read off the figures: MB is 2^20 bytes throughout; the forward deltas count the
parameters too, as if taken before the network moved to the card; the pose logs are of a time when gradients were
zeroed and not dropped, with cudnn.benchmark on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from calibration_rows import KeptGradients, published_rows
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.cards import find_card
from vramfit.jobs.backbone import synthetic_batch
from vramfit.jobs.job import Batch, Job
from vramfit.prediction.overheads import convolution_workspaces, cublas_bytes, kept_workspaces
from vramfit.prediction.replay_trace import replay_trace
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.units import MIB

_POSE = {"SimpleBaseline-ResNet50 (17 kpt)": 17, "SimpleBaseline-ResNet50 (16 kpt)": 16}


_ANY_CARD = find_card("V100 16GB")  # the files do not say; only Hopper's workspace differs


@dataclass(frozen=True)
class Compared:
    """One published figure and what the trace says."""

    name: str
    measured_bytes: float
    predicted_bytes: int


class Pose(nn.Module):
    """ResNet-50, three transposed convolutions of 256 channels and a 1x1 convolution to K heatmaps at stride 4."""

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        import timm

        self.backbone = timm.create_model("resnet50", num_classes=0, global_pool="")
        widths = (2048, 256, 256)
        self.head = nn.Sequential(*(layer for width in widths for layer in _upsampling(width)))
        self.final = nn.Conv2d(256, keypoints, 1)

    def forward(self, images: Tensor) -> Tensor:
        """BxKxhxw heatmaps of B3HW images."""
        result: Tensor = self.final(self.head(self.backbone(images)))
        return result


def _upsampling(width: int) -> tuple[nn.Module, ...]:
    return nn.ConvTranspose2d(width, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(inplace=True)


def compare() -> list[Compared]:
    found = []
    for row in published_rows():
        if row["model"] in _POSE:
            job = _pose_job(_POSE[row["model"]], int(row["height"]), int(row["width"]))
            trace = trace_step(job, int(row["batch"]), validation=False)
            found.append(Compared(row["model"], float(row["mb"]) * MIB, _peak(trace, benchmark=True)))
        elif row["model"].startswith("torchvision ") and "reserved" not in row["measure"]:
            found.append(_torchvision(row))
    return found


def _torchvision(row: dict[str, str]) -> Compared:
    name, batch = row["model"].removeprefix("torchvision "), int(row["batch"])
    job = _job(partial(_torchvision_model, name), partial(synthetic_batch, (int(row["height"]), int(row["width"]))))
    trace = trace_step(job, batch, steps=1, validation=False)
    forward = row["measure"].startswith("memory_allocated delta")
    return Compared(f"{name} {batch}", float(row["mb"]) * MIB, _kept(trace) if forward else _peak(trace))


def _torchvision_model(name: str) -> nn.Module:
    import torchvision

    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model: nn.Module = getattr(torchvision.models, name)(**extra)
    return model


def _pose_job(keypoints: int, height: int, width: int) -> Job:
    def batch(samples: int) -> Batch:
        images, _ = synthetic_batch((height, width), samples)
        return images, torch.zeros(samples, keypoints, height // 4, width // 4)

    optimizer = KeptGradients.adam
    return Job(model=partial(Pose, keypoints), batch=batch, loss=F.mse_loss, optimizer=optimizer, amp=None)


def _job(model: Callable[[], nn.Module], batch: Callable[[int], Batch]) -> Job:
    return Job(model=model, batch=batch, loss=F.cross_entropy, optimizer=partial(torch.optim.SGD, lr=0.1), amp=None)


def _peak(trace: Trace, *, benchmark: bool = False) -> int:
    workspaces = convolution_workspaces(trace.operations, benchmark=benchmark)
    return replay_trace(trace, workspaces, kept_bytes=kept_workspaces(trace, _ANY_CARD)).allocated_bytes


def _kept(trace: Trace) -> int:
    """Bytes of the network and of what its forward pass leaves for the backward pass, and cuBLAS' workspace."""
    held: set[int] = set()
    last = max(op.position for op in trace.operations if op.phase == "forward")
    for event in trace.events[:last]:
        held.add(event) if event >= 0 else held.discard(~event)
    counted = (trace.storages[number] for number in held)
    return cublas_bytes(_ANY_CARD) + sum(storage.size_bytes for storage in counted if storage.kind != "input")
