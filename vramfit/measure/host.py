"""The host's side of a batch: its cores make it, in main memory, several times over, before the card sees it."""

import ctypes
import os
import sys
from pathlib import Path

from vramfit.jobs.batch import sample_batch, tree_bytes
from vramfit.jobs.job import Job
from vramfit.units import GIB

# One being made, one on its way, one pinned, and what collating them copies.
BATCHES_AT_ONCE = 4
# A DataLoader's, unless told otherwise, of each of its workers.
_PREFETCHED = 2
WORKERS = 4
_PROCESS_BYTES, _WORKER_BYTES = 4 * GIB, GIB // 2
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def largest_in_host_memory(job: Job, available_bytes: int | None) -> int | None:
    """The largest micro-batch whose copies fit the host's free memory; None where that is not known."""
    if available_bytes is None:
        return None
    return max(1, available_bytes // (BATCHES_AT_ONCE * max(1, sample_bytes(job))))


def run_host_bytes(job: Job, micro_batch: int, workers: int = WORKERS) -> int:
    """Main memory that a run wants: Python with CUDA's libraries, its loading processes, and the batches on their way.

    Not measured: 4 GiB for the process and half a GiB for each of its workers are a rule of thumb, and a data set that
    is kept in memory is not in it.
    """
    ahead = BATCHES_AT_ONCE + _PREFETCHED * workers
    return _PROCESS_BYTES + workers * _WORKER_BYTES + ahead * micro_batch * sample_bytes(job)


def sample_bytes(job: Job) -> int:
    """Bytes of one sample on the host, inputs and targets together; a job may refuse a batch of 1, not of 2."""
    return tree_bytes(sample_batch(job, 2)) // 2


def available_host_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Main memory that can be had now without swapping, a container's limit included; None where not known."""
    if sys.platform == "win32":
        return _available_on_windows()
    known = [size for size in (_available_in(meminfo), _left_in_container(cgroup)) if size is not None]
    return min(known, default=None)


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use, a container's limit included; a part of one counts as one."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _cores_of_container(cgroup / "cpu.max")
    return cores if quota is None else max(1, min(cores, quota))


def _cores_of_container(file: Path) -> int | None:
    """The file holds microseconds of work allowed, or `max`, and the period that they are for."""
    try:
        words = file.read_text().split()
    except OSError:
        return None
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    return -(-int(words[0]) // int(words[1]))


def _available_in(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    lines = (line.split() for line in meminfo.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words and words[0] == "MemAvailable:"), None)


def _left_in_container(cgroup: Path) -> int | None:
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    return None if limit is None or used is None else max(0, limit - used)


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


class _MemoryStatus(ctypes.Structure):
    """What GlobalMemoryStatusEx fills in."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        *((name, ctypes.c_ulonglong) for name in ("total", "available", "pages", "free_pages", "virtual", "free", "x")),
    )


def _available_on_windows() -> int | None:
    windll = getattr(ctypes, "windll", None)
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    if windll is None or not windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)
