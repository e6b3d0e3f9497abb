"""A card made of arithmetic, with every bad habit of a real one, behind the interfaces of the real one.

It is a `Device` (what the driver shows), a `CardMemory` (what a trial reads) and a source of trials (what a search
sees), and it refuses memory in a training step the way CUDA, cuBLAS and cuDNN do.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vramfit.jobs.job import Job
from vramfit.measure import backend
from vramfit.measure.backend import MeasuredBackend
from vramfit.measure.budget import read_budget
from vramfit.measure.device import Device, DeviceProcess, Reading
from vramfit.measure.memory import MemoryFigures
from vramfit.records import Budget, Schedule, Trial, Verdict
from vramfit.units import GIB, MIB

CUDA_OOM = "CUDA out of memory. Tried to allocate 1.00 GiB."
FACES: dict[str, Callable[[], Exception]] = {
    "torch": lambda: torch.OutOfMemoryError(CUDA_OOM),
    "runtime": lambda: RuntimeError("CUDA error: out of memory"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cudnn internal": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    "cudnn not supported": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if"),
    "no engine": lambda: RuntimeError("GET was unable to find an engine to execute this computation"),
}


def poison() -> Exception:
    """What every later call raises once a context is broken."""
    return RuntimeError("CUDA error: an illegal memory access was encountered")


@dataclass
class ScriptedCard(Device):
    """One card.

    Memory of a step of n images is `fixed + per_image * n + extra(n)`, optimizer state after the first step that
    the scaler lets through, all rounded up to `granularity`; validation takes `validation` times the images' part.
    Training step k of a trial, from 0, takes `fragmentation(k)` more; after k steps `held_bytes(k)` are held. Of
    all passes those in `ooms_at`, from 0, fail whatever they need; trials of the sizes in `killed_at` are killed. A
    card that spills refuses nothing but what a cap forbids.
    """

    capacity_bytes: int = 8 * GIB
    context_bytes: int = 400 * MIB
    driver_bytes_kept: int = 0
    others: tuple[DeviceProcess, ...] = ()
    fixed_bytes: int = 200 * MIB
    per_image_bytes: int = GIB
    optimizer_bytes: int = 0
    average_bytes: int = 0
    averaging: bool = True
    granularity_bytes: int = 2 * MIB
    extra: Callable[[int], int] = lambda _: 0
    validation: float = 0.0
    face: str = "torch"
    sticky: bool = False
    spills: bool = False
    retries_at: Callable[[int], int] = lambda _: 0
    fragmentation: Callable[[int], int] = lambda _: 0
    held_bytes: Callable[[int], int] = lambda _: 0
    killed_at: tuple[int, ...] = ()
    ooms_at: tuple[int, ...] = ()
    seconds: Callable[[int], float] = lambda n: 0.01 + 0.02 * n
    skipped_steps: int = 0
    name: str = "Scripted GPU"
    index: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    # What happened to it.
    sizes: list[int] = field(default_factory=list)
    ooms: int = 0
    passes: int = 0
    steps: int = 0
    peak_bytes: int = 0
    kept_bytes: int = 0
    retries: int = 0
    poisoned: bool = False
    limit_bytes: int | None = None

    def __post_init__(self) -> None:
        self.driver_model = "WDDM" if self.spills else "TCC"
        self.driver_version = "999.99"

    # -- as a Device --------------------------------------------------------------------------------------------
    def read(self) -> Reading:
        taken = sum(process.used_bytes or 0 for process in self.others)
        free = self.capacity_bytes - self.driver_bytes_kept - taken
        return Reading(self.capacity_bytes, free, self.driver_bytes_kept, self.others)

    # -- as a CardMemory ----------------------------------------------------------------------------------------
    def start(self, budget: Budget) -> None:
        self.limit_bytes = budget.budget_bytes - self.context_bytes
        self.peak_bytes = self.kept_bytes = self.retries = self.steps = 0

    def figures(self) -> MemoryFigures:
        return MemoryFigures(self.peak_allocated(), self.peak_allocated(), self.context_bytes, self.retries)

    def peak_allocated(self) -> int:
        return max(self.kept_bytes, self.peak_bytes)

    def keep_peaks(self) -> None:
        self.kept_bytes = self.peak_allocated()

    def reset_peak(self) -> None:
        """What `torch.cuda.reset_peak_memory_stats` does to a card."""
        self.peak_bytes = 0

    def allocated(self) -> int:
        return self.held_bytes(self.steps)

    def synchronize(self) -> None: ...

    def stop(self) -> None:
        self.limit_bytes = None

    # -- as memory ----------------------------------------------------------------------------------------------
    def needs(self, images: int, *, training: bool = True, first: bool = False) -> int:
        """Bytes that a step of so many images reserves."""
        share = 1.0 if training else self.validation
        state = 0 if first else self.optimizer_bytes
        taken = (
            self.fixed_bytes + self.average_bytes * self.averaging + state + int(self.per_image_bytes * images * share)
        )
        taken += self.extra(images) if training else 0
        return -(-taken // self.granularity_bytes) * self.granularity_bytes

    def take(self, images: int, *, training: bool = True) -> None:
        """What a forward and backward pass does to the card."""
        if self.poisoned:
            raise poison()
        first = self.steps <= self.skipped_steps
        needed = self.needs(images, training=training, first=first and training)
        needed += self.fragmentation(self.steps) if training else 0
        self.steps += training
        self.passes += 1
        self.retries += self.retries_at(images)
        lent = self.spills and self.limit_bytes is None
        if self.passes - 1 in self.ooms_at or (needed > self.room_bytes and not lent):
            self.ooms += 1
            self.poisoned = self.sticky
            raise FACES[self.face]()
        self.peak_bytes = max(self.peak_bytes, needed)

    @property
    def room_bytes(self) -> int:
        """What the allocator can reserve."""
        return self.read().free_bytes - self.context_bytes if self.limit_bytes is None else self.limit_bytes

    # -- as training code that someone hands to a search --------------------------------------------------------
    def step(self, images: int) -> int:
        """Two steps and a validation; the peak in bytes."""
        self.sizes.append(images)
        self.steps = self.peak_bytes = 0
        for _ in range(2):
            self.take(images)
        self.take(images, training=False)
        return self.peak_bytes

    @property
    def true_limit(self) -> int:
        """The largest size that trains while everything below it does too; 0 if not even 1 does."""
        size = 0
        while self.trains(size + 1) and size < 10_000:
            size += 1
        return size

    def trains(self, images: int) -> bool:
        """Whether that size would really train."""
        highest = max(self.needs(images), self.needs(images, training=False))
        return highest <= self.room_bytes and images not in self.killed_at

    # -- as a backend ---------------------------------------------------------------------------------------------
    def trial(self, images: int, budget: Budget | None = None) -> Trial:
        """One trial, without a step being run."""
        budget = budget or Budget(total_bytes=self.capacity_bytes, other_processes_bytes=self.read().used_bytes)
        self.sizes.append(images)
        used = max(self.needs(images), self.needs(images, training=False)) + self.context_bytes
        verdict = Verdict.FITS if used <= budget.budget_bytes else Verdict.OOM
        if images in self.killed_at:
            verdict = Verdict.FAILED
        self.ooms += verdict is Verdict.OOM
        fits = verdict is Verdict.FITS
        return Trial(
            source="measured",
            micro_batch=images,
            verdict=verdict,
            budget_bytes=budget.budget_bytes,
            device_used_bytes=used if fits else None,
            step_time_s=self.seconds(images) if fits else None,
        )


class Hungry(nn.Module):
    """A small network on a CPU that takes its memory from a scripted card at each pass."""

    def __init__(self, card: ScriptedCard) -> None:
        super().__init__()
        self.card = card
        self.linear = nn.Linear(4, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        self.card.take(len(inputs), training=self.training)
        return self.linear(inputs)

    def __deepcopy__(self, memo: dict[int, object]) -> "Hungry":
        copy = Hungry(self.card)
        copy.load_state_dict(self.state_dict())
        return copy


def hungry_job(card: ScriptedCard, **changes: Any) -> Job:
    """A job on the CPU whose steps take their memory from the card."""
    settings = {
        "model": partial(Hungry, card),
        "batch": _batch,
        "loss": nn.functional.mse_loss,
        "optimizer": partial(torch.optim.AdamW, lr=1e-3),
        "amp": None,
        "ema_decay": 0.9,
    }
    return Job(**(settings | changes))


def blows_up_at_first(steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that is infinite in the first training steps, so that a gradient scaler skips them."""
    calls: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            calls.append(1)
        value = nn.functional.mse_loss(outputs, targets)
        return value * torch.inf if len(calls) <= steps else value

    return loss


def _batch(size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 4), torch.randn(size, 1)


def measured_backend(card: ScriptedCard, monkeypatch: Any, guessed: int = 5) -> MeasuredBackend:
    """The real backend of a card that is here, whose trials are the scripted card's; nothing is trained."""
    monkeypatch.setattr(backend, "measure_trial", lambda job, size, budget, **_: card.trial(size, budget))
    return MeasuredBackend(None, card, read_budget(card), Schedule(images=20), lambda _: guessed)


def this_process(used_bytes: int) -> DeviceProcess:
    """This process, as the driver would list it."""
    return DeviceProcess(os.getpid(), "python", used_bytes)


def other_process(used_bytes: int | None, name: str = "game.exe", pid: int = 4242) -> DeviceProcess:
    """Somebody else on the card."""
    return DeviceProcess(pid, name, used_bytes)
