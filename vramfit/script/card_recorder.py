"""What a script takes of a card that is here, by phase and step."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from vramfit.choices import Amp
from vramfit.measure.memory import CardMemory
from vramfit.prediction.trace_records import Kind, Trace, TracePhase
from vramfit.prediction.tracing.swapping import swap

_RESETS = ("reset_peak_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached")
_AMP: dict[torch.dtype, Amp] = {torch.float16: "fp16", torch.bfloat16: "bf16"}


@contextmanager
def peaks_kept(memory: CardMemory) -> Iterator[None]:
    """Within it, a script that resets torch's peaks gets its own answers, and ours stay."""
    owners = (torch.cuda, torch.cuda.memory, torch.accelerator, getattr(torch.accelerator, "memory", torch.cuda))
    with ExitStack() as stack:
        for owner in dict.fromkeys(owners):
            for name in filter(partial(hasattr, owner), _RESETS):
                swap(stack, owner, name, _noted(memory, getattr(owner, name)))
        yield


def _noted(memory: CardMemory, reset: Callable[..., None]) -> Callable[..., None]:
    def resetting(*args: Any, **kwargs: Any) -> None:
        memory.keep_peaks()
        reset(*args, **kwargs)

    return resetting


class CardRecorder:
    """Reads the card whenever a script's phase changes; `trace` has the marks and samples of its steps, and no events.

    `phases` is the most that was allocated when a phase held more than all before it; torch's peak is never reset by
    us, so that the script's own questions are answered as without us.
    """

    def __init__(self, memory: CardMemory) -> None:
        self.trace = Trace(1)
        self.brought = 0
        self.phases: dict[str, int] = {}
        self.step_times_s: dict[str, float] = {}
        self.held: list[int] = []  # bytes of tensors after each step
        self.warm_up_retries = 0
        self.amp: Amp | None = None
        self._memory = memory
        self._phase: TracePhase = "setup"
        self._began: float | None = None

    @property
    def phase(self) -> TracePhase:
        """What the script does at the moment."""
        return self._phase

    @phase.setter
    def phase(self, phase: TracePhase) -> None:
        self._note_peak()
        if phase == "forward" and self._began is None:
            self._memory.synchronize()
            self._began = perf_counter()
        self._phase = phase

    def _note_peak(self) -> None:
        peak = self._memory.peak_allocated()
        if peak > max(self.phases.values(), default=0):
            self.phases[self._phase] = peak

    def mark(self, name: str) -> None:
        """Begin a part of the run."""
        self.trace.marks[name] = 0
        if "validation" in name:
            self._began = None

    def step_ended(self, name: str, samples: int) -> None:
        """Note a step's samples, and its time from its first forward pass on."""
        self._memory.synchronize()
        if self._began is not None:
            self.step_times_s[name] = perf_counter() - self._began
        self._began = None
        self.trace.samples[name] = samples
        self.held.append(self._memory.allocated())
        if len(self.trace.samples) == 1:
            self.warm_up_retries = self._memory.figures().retries

    @property
    def step_time_s(self) -> float | None:
        """The median of the fullest steps; None where no step came to its end."""
        times = [self.step_times_s[name] for name in self.trace.fullest_steps if name in self.step_times_s]
        return median(times) if times else None

    @property
    def peak_phase(self) -> str:
        """The phase in which most was allocated."""
        self._note_peak()
        return max(self.phases, key=lambda phase: self.phases[phase], default="setup")

    def enter(self, name: str, inputs: Any) -> None:  # noqa: ARG002  # as of a recorder that traces
        """Note the precision in which modules run."""
        place = self._memory.device.type
        if self.amp is None and torch.is_autocast_enabled(place):
            self.amp = _AMP.get(torch.get_autocast_dtype(place))

    def leave(self, output: Any) -> None:
        """Nothing: modules are told apart in a trace alone."""

    def mark_kind(self, tensor: Tensor, kind: Kind, module: str = "") -> None:
        """Nothing, as above."""

    def empty_weight(self, parameter: nn.Parameter) -> None:
        """Nothing: weights are needed."""
