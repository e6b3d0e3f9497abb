"""How training is fed: processes that load, batches they keep ready, and page-locked memory.

Pure: rates and sizes in, a choice with its reason out.
"""

import math
from dataclasses import dataclass

from vramfit.units import MIB, format_size

# A loading process: Python, torch and OpenCV; the samples it reads are mapped where the task maps them.
WORKER_BYTES = 400 * MIB
# Faster than the card by this much, so that an uneven loader does not make it wait.
_MARGIN = 1.25
_MOST = 8
# Batches ready for half a second of the card: what a disk or a virus scanner may hold up.
_READY_S = 0.5
_LEAST_AHEAD, _MOST_AHEAD = 2, 8


@dataclass(frozen=True)
class LoaderSettings:
    """`workers` processes, `ahead` batches that each keeps ready, and why."""

    workers: int
    ahead: int = _LEAST_AHEAD
    pin_memory: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What the choice rests on.

    `loads_images_per_s` is one worker's rate; `takes_images_per_s` the card's, None where not known; a batch is that of
    one optimizer step; `host_bytes` the host's free memory, None where not known.
    """

    loads_images_per_s: float
    takes_images_per_s: float | None
    batch: int
    batch_bytes: int
    cores: int
    host_bytes: int | None = None


def most_workers(cores: int) -> int:
    """The workers that so many cores allow: one core is left to the process that trains."""
    return max(1, min(cores - 1, _MOST))


def loader_for_cpu(loads_images_per_s: float) -> LoaderSettings:
    """The choice where the CPU trains."""
    milliseconds = 1000 / loads_images_per_s
    return LoaderSettings(
        0, reason=f"0 workers: an image loads in {milliseconds:.2g} ms, and the cores of this CPU are to train."
    )


def loader_for_card(pace: Pace) -> LoaderSettings:
    """The fewest workers that keep a card from waiting, within the cores and half of the host's free memory."""
    wanted = _workers_wanted(pace)
    allowed = most_workers(pace.cores)
    room = _workers_in_memory(pace)
    workers = min(wanted, allowed, room)
    if workers == 0:
        free = format_size(pace.host_bytes)
        reason = f"0 workers: the host has {free} free, and each takes {format_size(WORKER_BYTES)}."
        return LoaderSettings(0, reason=reason)
    ahead = _ahead(pace, workers)
    pinned = pace.host_bytes is None or workers * ahead * pace.batch_bytes <= pace.host_bytes // 4
    limit = "" if workers == wanted else _limit(pace, room <= allowed)
    return LoaderSettings(workers, ahead, pinned, f"{_rates(pace, workers)}{limit}; {_ready(workers, ahead, pinned)}.")


def _workers_wanted(pace: Pace) -> int:
    if pace.takes_images_per_s is None:
        return 2
    return max(1, math.ceil(_MARGIN * pace.takes_images_per_s / pace.loads_images_per_s))


def _workers_in_memory(pace: Pace) -> int:
    if pace.host_bytes is None:
        return _MOST
    return pace.host_bytes // 2 // (WORKER_BYTES + _LEAST_AHEAD * pace.batch_bytes)


def _ahead(pace: Pace, workers: int) -> int:
    """Batches ahead that last for half a second, as far as they fit beside the workers."""
    takes = pace.takes_images_per_s or pace.loads_images_per_s
    wanted = math.ceil(_READY_S * takes / (pace.batch * workers))
    fitting = _MOST_AHEAD
    if pace.host_bytes is not None:
        fitting = (pace.host_bytes // 2 - workers * WORKER_BYTES) // (workers * max(1, pace.batch_bytes))
    return max(_LEAST_AHEAD, min(wanted, _MOST_AHEAD, fitting))


def _rates(pace: Pace, workers: int) -> str:
    loads = f"{pace.loads_images_per_s:.0f} images/s"
    who = f"1 worker: it loads {loads}" if workers == 1 else f"{workers} workers: each loads {loads}"
    takes = pace.takes_images_per_s
    return f"{who}, the card takes {takes:.0f}" if takes else f"{who}, what the card takes is not known"


def _ready(workers: int, ahead: int, pinned: bool) -> str:
    who = "it keeps" if workers == 1 else "each keeps"
    where = "page-locked memory" if pinned else "ordinary memory, for little is free"
    return f"{who} {ahead} batches ready in {where}"


def _limit(pace: Pace, by_memory: bool) -> str:
    if by_memory:
        return f"; the host's {format_size(pace.host_bytes)} of free memory allow no more"
    return f"; {pace.cores} cores allow no more" if pace.cores > 1 else "; one core allows no more"
