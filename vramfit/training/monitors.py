"""What is watched while a run goes on: its loss, its memory, its time, and whether someone wants it to end."""

import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from vramfit.errors import NotFinite
from vramfit.measure.device import local_device
from vramfit.measure.memory import CudaMemory, room_bytes
from vramfit.records import Budget
from vramfit.units import format_size


class LossWatch:
    """Reads each step's loss one step late: the card is then past it, and nothing waits for the step under way."""

    def __init__(self, total: float = 0.0, samples: int = 0) -> None:
        """Go on from the sum of losses, and their number, of an epoch that was interrupted."""
        self._pending: list[tuple[Tensor, torch.cuda.Event | None, int, tuple[int, int]]] = []
        self.total = total
        self.samples = samples
        self.last: float | None = None

    def add(self, loss: Tensor, samples: int, position: tuple[int, int]) -> None:
        """Take a step's mean loss, and check that of the step before.

        Raises:
            NotFinite: it is NaN or infinite.

        """
        self._pending.append((*_to_host(loss), samples, position))
        if len(self._pending) > 1:
            self._read()

    def settle(self) -> None:
        """Check all that is left, as before a checkpoint.

        Raises:
            NotFinite: a loss is NaN or infinite.

        """
        while self._pending:
            self._read()

    @property
    def mean(self) -> float:
        """The mean loss over the samples read so far."""
        return self.total / self.samples if self.samples else math.nan

    def _read(self) -> None:
        value, event, samples, (epoch, step) = self._pending.pop(0)
        if event is not None:
            event.synchronize()
        self.last = float(value)
        if not math.isfinite(self.last):
            raise NotFinite(
                f"the loss became {self.last} in epoch {epoch}, step {step}; resume from the last checkpoint with a "
                "smaller --lr or with --clip-norm 1."
            )
        self.total += self.last * samples
        self.samples += samples


def _to_host(loss: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if loss.device.type != "cuda":
        return loss, None
    host = torch.empty((), dtype=loss.dtype, pin_memory=True)
    host.copy_(loss, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


class MemoryWatch:
    """The card's memory: a limit at the budget, peaks by the epoch, and one warning near the limit."""

    def __init__(self, device: torch.device, budget: Budget | None = None, watermark: float = 0.95) -> None:
        self._memory = CudaMemory(local_device(device.index or 0)) if device.type == "cuda" else None
        self._budget = budget
        self._watermark = watermark
        self._warned = False
        self.highest_bytes: int | None = None
        if self._memory is not None and budget is not None:
            self._memory.start(budget)

    def begin_epoch(self) -> None:
        """Forget earlier peaks."""
        if self._memory is not None:
            torch.cuda.reset_peak_memory_stats(self._memory.device)

    def figures(self) -> dict[str, int | None]:
        """Peaks since `begin_epoch`, under the names of `EpochRecord`; empty without a card."""
        if self._memory is None:
            return {}
        figures = self._memory.figures()
        self.highest_bytes = max(self.highest_bytes or 0, figures.device_used_bytes)
        return {
            "peak_allocated_bytes": figures.peak_allocated_bytes,
            "peak_reserved_bytes": figures.peak_reserved_bytes,
            "device_used_bytes": figures.device_used_bytes,
        }

    def allows(self, factor: float) -> bool:
        """Whether micro-batches `factor` times as large would stay below the watermark; True without a card.

        What grows is what a step adds to the memory that is held between steps, at the epoch's peak.
        """
        if self._memory is None or self._budget is None:
            return True
        at_rest = torch.cuda.memory_allocated(self._memory.device)
        more = (factor - 1) * (self._memory.figures().peak_allocated_bytes - at_rest)
        kept = (1 - self._watermark) * self._budget.budget_bytes
        return more + kept <= room_bytes(self._memory.device)

    def warning(self) -> str | None:
        """One sentence, once, when the peak comes near the budget."""
        used, budget = self.highest_bytes, self._budget
        if self._warned or used is None or budget is None or used < self._watermark * budget.budget_bytes:
            return None
        self._warned = True
        return (
            f"{format_size(used)} of the budget of {format_size(budget.budget_bytes)} were in use: little is left; "
            "an OOM would be recovered from, with smaller micro-batches."
        )


class Clock:
    """Where an epoch's time goes: the device waiting for data, or training.

    A card works on while this process waits for the next batch: it waited for data only as long as it lay idle between
    the last kernel before that and the first one after, which its own events tell.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.begin = time.perf_counter()
        self.images = 0
        self.steps = 0
        self._on_card = device is not None and device.type == "cuda"
        self._host_waited_s = 0.0
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the epoch began."""
        return time.perf_counter() - self.begin

    @property
    def waited_s(self) -> float:
        """Seconds that the device has waited for data; on a card, this in turn waits for its steps."""
        if not self._gaps:
            return self._host_waited_s
        self._gaps[-1][1].synchronize()
        return float(sum(before.elapsed_time(after) for before, after in self._gaps)) / 1000

    def batches(self, source: Any) -> Any:
        """The batches of a loader, with the time that each was waited for."""
        iterator = iter(source)
        while True:
            batch = self._timed(lambda: next(iterator, self))
            if batch is self:
                return
            yield batch

    def _timed(self, fetch: Callable[[], Any]) -> Any:
        if self._on_card:
            return self._between_events(fetch)
        asked = time.perf_counter()
        batch = fetch()
        self._host_waited_s += time.perf_counter() - asked
        return batch

    def _between_events(self, fetch: Callable[[], Any]) -> Any:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        batch = fetch()
        after.record()
        self._gaps.append((before, after))
        return batch


class StopSignal:
    """Ctrl-C asks the run to end after a checkpoint, and calls `on_asked`; a second one ends it at once."""

    def __init__(self, on_asked: Callable[[], None] = lambda: None) -> None:
        self.asked = False
        self._on_asked = on_asked
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._on_asked()
