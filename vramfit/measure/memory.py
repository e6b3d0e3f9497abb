"""The few questions that a trial asks of a card's memory, behind an interface so that tests can script the answers."""

import os
from dataclasses import dataclass
from typing import Protocol

import torch

from vramfit.measure.budget import USUAL_CONTEXT_BYTES
from vramfit.measure.device import Device, local_device
from vramfit.records import Budget


@dataclass(frozen=True)
class MemoryFigures:
    """What one trial took, in bytes, since `start`; `retries` are allocations that succeeded only after a clean-up."""

    peak_allocated_bytes: int
    peak_reserved_bytes: int
    context_bytes: int
    retries: int

    @property
    def device_used_bytes(self) -> int:
        """What the card shows for this process at its peak."""
        return self.peak_reserved_bytes + self.context_bytes


class CardMemory(Protocol):
    """A card's memory as a trial uses it."""

    device: torch.device

    def start(self, budget: Budget) -> None:
        """Forget earlier peaks and refuse any allocation beyond the budget from here on."""

    def figures(self) -> MemoryFigures:
        """What was taken since `start`."""

    def peak_allocated(self) -> int:
        """The most bytes that tensors held at once since `start`; quick enough to be asked many times a step."""

    def allocated(self) -> int:
        """The bytes that tensors hold now; as quick."""

    def keep_peaks(self) -> None:
        """Remember the peaks so far: what runs on the card is about to reset those that torch keeps."""

    def synchronize(self) -> None:
        """Wait until the card has done everything asked of it."""

    def stop(self) -> None:
        """Take the limit away again."""


class CudaMemory:
    """torch's caching allocator on one card, limited by its per-process fraction."""

    def __init__(self, device: Device) -> None:
        self._card = device
        self.device = torch.device("cuda", device.index)
        self._others_bytes = _used_by_others(device)
        torch.zeros(1, device=self.device)
        self._retries_before = 0
        self._kept = (0, 0)  # peaks allocated and reserved of before a reset

    def start(self, budget: Budget) -> None:
        """Limit reserved memory to the budget without the context; the limit bounds reserved memory alone."""
        with torch.cuda.device(self.device):  # elsewhere it would start a context on the first card
            torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        self._kept = (0, 0)
        self._retries_before = self._retries()
        # NVML and CUDA may disagree on what is free, above all under WDDM: believe the smaller.
        free, total = torch.cuda.mem_get_info(self.device)
        within = free + torch.cuda.memory_reserved(self.device)
        limit = max(1, min(budget.budget_bytes - self._context_bytes(), within))
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), self.device)

    def figures(self) -> MemoryFigures:
        """What was taken since `start`; the context grows as kernels load, so it is read at the end."""
        return MemoryFigures(
            peak_allocated_bytes=self.peak_allocated(),
            peak_reserved_bytes=self._peak_reserved(),
            context_bytes=self._context_bytes(),
            retries=self._retries() - self._retries_before,
        )

    def peak_allocated(self) -> int:
        """The most that was allocated since `start`."""
        return max(self._kept[0], torch.cuda.max_memory_allocated(self.device))

    def _peak_reserved(self) -> int:
        return max(self._kept[1], torch.cuda.max_memory_reserved(self.device))

    def keep_peaks(self) -> None:
        """Remember the peaks so far."""
        self._kept = (self.peak_allocated(), self._peak_reserved())

    def allocated(self) -> int:
        """What is allocated now."""
        return torch.cuda.memory_allocated(self.device)

    def synchronize(self) -> None:
        """Wait for every stream of the card."""
        torch.cuda.synchronize(self.device)

    def stop(self) -> None:
        """Let the process use the whole card again."""
        torch.cuda.set_per_process_memory_fraction(1.0, self.device)

    def _retries(self) -> int:
        return int(torch.cuda.memory_stats(self.device).get("num_alloc_retries", 0))

    def _context_bytes(self) -> int:
        """Device-level use of this process beyond what the allocator reserved.

        The driver's own figure for this process where it gives one; else what the card shows beyond the others.
        """
        reserved = torch.cuda.memory_reserved(self.device)
        reading = self._card.read()
        mine = next((one.used_bytes for one in reading.processes if one.pid == os.getpid()), None)
        context = (reading.used_bytes - self._others_bytes if mine is None else mine) - reserved
        return context if context > 0 else USUAL_CONTEXT_BYTES


def open_cuda_memory(index: int) -> CudaMemory:
    """The memory of the card behind a CUDA ordinal, for a process that is started for it."""
    return CudaMemory(local_device(index))


def room_bytes(device: torch.device) -> int:
    """Bytes that torch may still take from the card: within its limit, and free now."""
    free, total = torch.cuda.mem_get_info(device)
    limit = int(torch.cuda.get_per_process_memory_fraction(device) * total)
    return max(0, min(free, limit - torch.cuda.memory_reserved(device)))


def _used_by_others(device: Device) -> int:
    from vramfit.measure.budget import held_here

    reading = device.read()
    return max(0, reading.used_bytes - held_here(device, reading))
