"""What a training job is: the description that prediction, measurement and training share."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vramfit.choices import Amp
from vramfit.errors import UsageError
from vramfit.jobs.optimizers import OptimizerFactory, optimizer_name
from vramfit.records import JobKey, Lever

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from vramfit.jobs.own_step import Run

# A tensor, or tuples, lists and dicts of tensors, each with the samples along its first dimension, or lists of samples.
Tree = Any
# (inputs, targets), or any other tree; see `vramfit.jobs.batch`.
Batch = Any


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training job on one card, or on each of several.

    Attributes:
        model: builds the network, on the CPU, in training mode.
        batch: makes n samples as the loader would, on the CPU: `n -> (inputs, targets)`, each a tensor or a tuple, list
            or dict of tensors with the n samples along the first dimension; or a DataLoader or Dataset, whose first
            samples are collated. A tuple of inputs is several arguments of `forward`, a dict whose keys `forward` names
            is keywords. A batch that is no pair, such as a dict, is whole: the network takes what its `forward` names,
            and loss and prepare get all of it as targets.
        loss: `(outputs, targets) -> scalar`, the mean over the samples, float32, outside autocast: where a loop's own
            is within it, let it enter `torch.autocast("cuda")`, in which a softmax keeps float32. None where the
            network returns its loss, alone, as `loss`, first in a tuple, or as a dict of losses to be summed: it is
            given the whole batch, inputs and targets.
        optimizer: builds the optimizer from the trainable parameters; a dict of several by the modules that they learn.
        step: what a step does where it is not one forward, loss and update, as with several networks that take turns:
            `(run, batch) -> loss`, given a batch on the device and a `vramfit.jobs.own_step.Run`, with `run.model`,
            `run.backward(loss)` and `run.update(name)`. Validation then needs a loss, and is left out without one.
        loss_terms: how many terms a batch's loss is the mean over, from its targets on the host, such as
            `lambda targets: (targets != 0).sum()`; micro-batches of a split batch are weighed by it. None for the whole
            numbers that are not -100, or the samples where no target is a whole number.
        prepare: what happens to a batch on the card before the network, without gradients: normalisation,
            augmentation, rendering of targets. `(inputs, targets, training) -> (inputs, targets)`.
        amp: autocast dtype; fp16 brings a gradient scaler. A CPU runs fp32 in place of fp16.
        channels_last: network and 4-D inputs in NHWC memory order.
        clip_norm: largest norm of the gradient, None for no clipping.
        late_zero_grad: clear the gradients of the step before only between forward and backward pass, as loops do that
            call `optimizer.zero_grad()` right before `loss.backward()`: they then live beside the activations.
        ema_decay: decay of an averaged copy of weights and buffers, None for no copy.
        cudnn_benchmark: let cuDNN time its algorithms; faster steps, more workspace.
        frozen: modules that do not learn, by their dotted names.
        rate_scales: (module, factor): its parameters learn at the optimizer's rate times the factor.
        levers: settings that trade time for memory.
        cards: how many cards share the job, each with a process and a batch of its own; what is predicted is one of
            them. Weights are whole on each, and gradients averaged in place, unless fsdp or ddp is among the levers.
        loading_rate: images a second that one loading process of this machine makes, measured when called; None where
            that is not known.
        name, model_name, image_size: what tables and profiles call it; image_size is (height, width).

    >>> import torch, vramfit
    >>> job = vramfit.Job(
    ...     model=lambda: torch.nn.Linear(64, 10),
    ...     batch=lambda n: (torch.rand(n, 64), torch.zeros(n, dtype=torch.int64)),
    ...     loss=torch.nn.functional.cross_entropy,
    ...     optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    ... )
    >>> vramfit.predict(job=job, micro_batch=32, gpu="rtx3070ti").verdict.value
    'fits'

    Known limitations: a job that is to be measured in a child process must pickle (no lambdas), or come from an
    importable factory; a network that decides by values that only the card has is predicted under assumptions, which
    the result lists.
    """

    model: Callable[[], nn.Module]
    batch: "Callable[[int], Batch] | DataLoader[Any] | Dataset[Any]"
    loss: Callable[[Any, Any], Tensor] | None = None
    optimizer: OptimizerFactory | Mapping[str, OptimizerFactory]
    step: "Callable[[Run, Batch], Tensor] | None" = None
    loss_terms: Callable[[Tree], Tensor | float] | None = None
    prepare: Callable[[Tree, Tree, bool], Batch] | None = None
    amp: Amp | None = "fp16"
    channels_last: bool = False
    clip_norm: float | None = None
    late_zero_grad: bool = False
    ema_decay: float | None = None
    cudnn_benchmark: bool = False
    frozen: tuple[str, ...] = ()
    rate_scales: tuple[tuple[str, float], ...] = ()
    levers: tuple[Lever, ...] = ()
    cards: int = 1
    loading_rate: Callable[[], float] | None = None
    name: str = "job"
    model_name: str = ""
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._check_functions()
        if self.amp not in ("fp16", "bf16", None):
            raise UsageError(f"amp is {self.amp!r}; use 'fp16', 'bf16' or None.")
        if self.cards < 1:
            raise UsageError(f"cards is {self.cards}; use 1 or more.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise UsageError(f"clip_norm is {self.clip_norm}; use a positive number, or None for no clipping.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"ema_decay is {self.ema_decay}; use a number between 0 and 1, or None.")
        if self.late_zero_grad and self.step is not None:
            raise UsageError("late_zero_grad is of the shared step; in a step of your own, run.update() clears.")

    def _check_functions(self) -> None:
        if isinstance(self.model, nn.Module):
            raise UsageError(
                "model is a network, and has to be a function that makes one: write model=lambda: ... "
                "or, where the job is measured, name a function of a module."
            )
        optimizer: Any = self.optimizer
        if isinstance(optimizer, torch.optim.Optimizer):
            name = type(optimizer).__name__
            raise UsageError(
                f"optimizer is an {name} that exists already, and has to be a function that makes one: write "
                f"optimizer=lambda parameters: torch.optim.{name}(parameters, lr=1e-4)."
            )
        if isinstance(self.batch, (Tensor, tuple, list, dict)):
            raise UsageError(
                f"batch is a {type(self.batch).__name__}, and has to be a function that makes n samples, a DataLoader "
                "or a Dataset: write batch=lambda n: (inputs, targets)."
            )
        for name in ("model", "loss", "step", "loss_terms", "prepare"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise UsageError(f"{name} is a {type(value).__name__}, and has to be a function; see vramfit.Job.")


def build_model(job: Job) -> nn.Module:
    """The job's network.

    Raises:
        UsageError: what `model` makes is no network, or it moves itself to a GPU that is not here.

    """
    try:
        model = job.model()
    except (RuntimeError, AssertionError) as error:
        if not wants_cuda(error):
            raise
        raise UsageError(
            f"model of '{job.name}' puts its network on a GPU itself ({str(error).splitlines()[0]}); leave .cuda(), "
            ".to('cuda') and device='cuda' out of model: vramfit moves the network to the card."
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"model of '{job.name}' returned {type(model).__name__}; let it return the network.")
    from vramfit.jobs.lazy_modules import initialise_lazy  # it builds on this module

    initialise_lazy(model, job)
    return model


def wants_cuda(error: BaseException) -> bool:
    """Whether an error is torch's answer to `.cuda()` where there is no CUDA."""
    message = str(error)
    return any(sign in message for sign in ("NVIDIA driver", "not compiled with CUDA", "No CUDA GPUs", "CUDA driver"))


def empty_model(job: Job) -> nn.Module:
    """The job's network on tensors without memory, or as it is where its construction reads a value back."""
    try:
        with torch.device("meta"):
            return build_model(job)
    except RuntimeError:
        return build_model(job)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a network normalises over the samples that go through it at once."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def job_key(job: Job, model: nn.Module | None = None) -> JobKey:
    """What a profile of this job is valid for; builds the model on storage-less tensors if none is given."""
    from vramfit.jobs.batch import sample_shapes  # it builds on this module

    model = model or empty_model(job)
    return JobKey(
        name=job.name,
        model=job.model_name or type(model).__name__,
        image_size=job.image_size,
        amp=job.amp,
        channels_last=job.channels_last,
        cudnn_benchmark=job.cudnn_benchmark,
        optimizer=optimizer_name(job.optimizer),
        cards=job.cards,
        sample=sample_shapes(job),
        fingerprint=_fingerprint(job, model),
    )


def _fingerprint(job: Job, model: nn.Module) -> str:
    shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
    step = (
        job.clip_norm is not None,
        job.ema_decay is not None,
        [lever.model_dump() for lever in job.levers],
        *job.frozen,
        *(["late_zero_grad"] if job.late_zero_grad else []),
        # Added where it is there, so that the fingerprints of other jobs stay.
        *job.rate_scales,
        *([getattr(job.step, "__qualname__", type(job.step).__name__)] if job.step is not None else []),
    )
    return hashlib.sha256(repr((shapes, step)).encode()).hexdigest()[:16]
