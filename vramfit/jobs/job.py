"""What a training job is: the description that prediction, measurement and training share."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vramfit.errors import UsageError
from vramfit.records import Amp, JobKey, Lever

# A tensor, or tuples, lists and dicts of tensors, each with the samples along its first dimension.
Tree = Any
Batch = tuple[Tree, Tree]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training job on one card.

    Attributes:
        model: builds the network, on the CPU, in training mode.
        batch: makes n samples as the loader would, on the CPU: `n -> (inputs, targets)`, each a tensor or a
            tuple, list or dict of tensors with the n samples along the first dimension.
        loss: `(outputs, targets) -> scalar`, the mean over the samples, float32.
        optimizer: builds the optimizer from the trainable parameters.
        prepare: what happens to a batch on the card before the network, without gradients: normalisation,
            augmentation, rendering of targets. `(inputs, targets, training) -> (inputs, targets)`.
        amp: autocast dtype; fp16 brings a gradient scaler. A CPU runs fp32 in place of fp16.
        channels_last: network and 4-D inputs in NHWC memory order.
        clip_norm: largest norm of the gradient, None for no clipping.
        ema_decay: decay of an averaged copy of weights and buffers, None for no copy.
        cudnn_benchmark: let cuDNN time its algorithms; faster steps, more workspace.
        frozen: modules that do not learn, by their dotted names.
        rate_scales: (module, factor): its parameters learn at the optimizer's rate times the factor.
        levers: settings that trade time for memory.
        loading_rate: images a second that one loading process of this machine makes, measured when called; None where
            that is not known.
        name, model_name, image_size: what tables and profiles call it; image_size is (height, width).

    A job that is to be measured in a child process must pickle (no lambdas), or come from an importable factory.
    """

    model: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    loss: Callable[[Any, Any], Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    prepare: Callable[[Tree, Tree, bool], Batch] | None = None
    amp: Amp | None = "fp16"
    channels_last: bool = False
    clip_norm: float | None = None
    ema_decay: float | None = None
    cudnn_benchmark: bool = False
    frozen: tuple[str, ...] = ()
    rate_scales: tuple[tuple[str, float], ...] = ()
    levers: tuple[Lever, ...] = ()
    loading_rate: Callable[[], float] | None = None
    name: str = "job"
    model_name: str = ""
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, nn.Module):
            raise UsageError(
                "model is a network, and has to be a function that makes one: write model=lambda: ... "
                "or, where the job is measured, name a function of a module."
            )
        if self.amp not in ("fp16", "bf16", None):
            raise UsageError(f"amp is {self.amp!r}; use 'fp16', 'bf16' or None.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UsageError(f"clip_norm is {self.clip_norm}; use a positive number, or None for no clipping.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"ema_decay is {self.ema_decay}; use a number between 0 and 1, or None.")


def empty_model(job: Job) -> nn.Module:
    """The job's network on tensors without memory, or as it is where its construction reads a value back."""
    try:
        with torch.device("meta"):
            return job.model()
    except RuntimeError:
        return job.model()


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a network normalises over the samples that go through it at once."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def job_key(job: Job, model: nn.Module | None = None) -> JobKey:
    """What a profile of this job is valid for; builds the model on storage-less tensors if none is given."""
    model = model or empty_model(job)
    optimizer = type(job.optimizer([nn.Parameter(torch.empty(1))])).__name__
    return JobKey(
        name=job.name,
        model=job.model_name or type(model).__name__,
        image_size=job.image_size,
        amp=job.amp,
        channels_last=job.channels_last,
        cudnn_benchmark=job.cudnn_benchmark,
        optimizer=optimizer,
        fingerprint=_fingerprint(job, model),
    )


def _fingerprint(job: Job, model: nn.Module) -> str:
    shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
    step = (
        job.clip_norm is not None,
        job.ema_decay is not None,
        [lever.model_dump() for lever in job.levers],
        *job.frozen,
    )
    return hashlib.sha256(repr((shapes, step)).encode()).hexdigest()[:16]
