"""The budget: what the job may use of a card, with every part of the sum shown."""

import os

from vramfit.errors import UsageError
from vramfit.measure.device import Device, DeviceProcess, Reading
from vramfit.records import Budget
from vramfit.units import MIB, NO_LIMITS, MemoryLimits, format_size

# Stands in for a CUDA context that already exists and that the driver does not attribute to a process.
USUAL_CONTEXT_BYTES = 450 * MIB
# A request below this share of the card makes it stand for a smaller card.
EMULATED_BELOW = 0.7


def read_budget(device: Device, limits: MemoryLimits = NO_LIMITS) -> Budget:
    """What a job may use of a card now: min(vram, total - driver - other processes - reserve).

    Raises:
        UsageError: nothing is left.

    """
    reading = device.read()
    own_bytes = held_here(device, reading)
    others = tuple(process for process in reading.processes if process.pid != os.getpid())
    budget = Budget(
        total_bytes=reading.total_bytes,
        requested_bytes=limits.vram_bytes,
        driver_bytes=reading.driver_bytes,
        other_processes_bytes=max(0, reading.used_bytes - own_bytes),
        reserve_bytes=limits.reserve_bytes or 0,
        notes=(*device.notes, *_notes(others)),
    )
    if budget.budget_bytes == 0:
        raise UsageError(
            f"Nothing of {device.name} is left: {format_size(budget.other_processes_bytes)} are in use and "
            f"{format_size(budget.reserve_bytes)} reserved; end other programs or reserve less."
        )
    return _say_if_less(budget)


def held_here(device: Device, reading: Reading) -> int:
    """Bytes of the card that this process already holds: context and cached blocks; 0 before CUDA starts."""
    mine = next((process.used_bytes for process in reading.processes if process.pid == os.getpid()), None)
    if mine is not None:
        return mine
    import torch

    if not torch.cuda.is_initialized():
        return 0
    reserved = int(torch.cuda.memory_reserved(device.index))
    return min(reading.used_bytes, reserved + USUAL_CONTEXT_BYTES)


def is_emulated(budget: Budget) -> bool:
    """Whether a big card is capped to stand for a small one; other kernels may run on the real one."""
    return budget.requested_bytes is not None and budget.requested_bytes < EMULATED_BELOW * budget.total_bytes


def who_took(before: Budget, now: Budget, processes: tuple[DeviceProcess, ...]) -> str | None:
    """One sentence on memory that was free when a budget was made and is not now; None if nothing is missing."""
    missing = before.free_bytes - now.free_bytes
    if missing <= 0:
        return None
    users = ", ".join(_notes(tuple(process for process in processes if process.pid != os.getpid()))) or "not known"
    return f"{format_size(missing)} less is free than the profile assumed; on the card: {users}."


def _notes(processes: tuple[DeviceProcess, ...]) -> tuple[str, ...]:
    known = sorted(processes, key=lambda process: -(process.used_bytes or 0))
    return tuple(f"{process.name or 'a program'} (pid {process.pid}) {_held(process)}" for process in known[:5])


def _held(process: DeviceProcess) -> str:
    return (
        "holds an amount the driver does not tell"
        if process.used_bytes is None
        else (f"holds {format_size(process.used_bytes)}")
    )


def _say_if_less(budget: Budget) -> Budget:
    if budget.requested_bytes is None or budget.requested_bytes <= budget.free_bytes:
        return budget
    note = (
        f"{format_size(budget.requested_bytes)} were asked for, {format_size(budget.free_bytes)} are free: "
        "the smaller is the budget."
    )
    return budget.model_copy(update={"notes": (*budget.notes, note)})
