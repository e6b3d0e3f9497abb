"""Watches a training run for what grows from step to step, and tells each growth once, with its line of source.

After every step it reads what the card's allocator and the host hold, in microseconds. It looks at what Python holds as
often as that takes at most half a percent of the training thread's processor time, beyond a first look; where a line
rises, at once, for half a second in all. What holds memory that no Python object shows is found by recording the
allocator's history for some steps.
"""

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from vramfit.postmortem.growth import Checks, Growth, Scans
from vramfit.postmortem.holders import holder_of
from vramfit.postmortem.process_figures import ResidentMemory, open_files, usual_file
from vramfit.postmortem.rising import RisingLine
from vramfit.units import KIB, MIB, format_size

_SHARE = 0.004
_SHARE_WHILE_RISING = 0.008
# Looks that a rising line may have beyond its share, once: else a leak would show after half a minute at best.
_CREDIT_WHILE_RISING_S = 0.5
_SCAN_EVERY, _CHECK_EVERY = 16, 8
_READING_SHARE = 0.003
_MOST_SELDOM = 64
_LEAST_HELD_BYTES = 64 * MIB
_FILES_EVERY = 16
_LEAST_CARD_RISE = MIB
_LEAST_HOST_RISE = 4 * MIB
# Host memory that no container explains is told only where it is much: allocators and caches take some for good.
_UNEXPLAINED_HOST_BYTES = 1024 * MIB
_LEAST_FILES = 32
# Of all containers, between which a list shows that grows.
_FEWEST_LOOKS = 2


class WatchedCard(Protocol):
    """What the watch asks of a card."""

    def allocated_bytes(self) -> int:
        """What tensors hold now."""

    def growing_line(self) -> str | None:
        """The sentence on what piled up over some steps; None as long as it is still being recorded, "" for nothing."""


class LeakWatch:
    """Call `after_step` at the end of every optimizer step; `tell` is given each finding once, as a sentence."""

    def __init__(
        self,
        tell: Callable[[str], None],
        card: WatchedCard | None = None,
        *,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._tell, self._card, self._clock = tell, card, clock
        self._scans, self._checks = Scans(), Checks()
        self._card_line, self._host_line = RisingLine(_LEAST_CARD_RISE), RisingLine(_LEAST_HOST_RISE)
        self._files_line = RisingLine(_LEAST_FILES)
        self._told: set[str] = set()
        self._began: float | None = None
        self._resident = ResidentMemory()
        self._first_host_bytes = 0
        self._read_every = 1
        self._scan_s, self._check_s, self._spent_s = 0.0, 0.0, 0.0  # the first look tells what one costs
        self.steps = self._looks = 0

    def after_step(self) -> None:
        """Take the figures of a step that is done; look closer where it is time."""
        self.steps += 1
        now = self._clock()
        self._began = now if self._began is None else self._began
        elapsed_s = now - self._began
        if self.steps % self._read_every == 0:
            self._read(elapsed_s)
        self._checks.follow(self._scans.suspects)
        if self.steps % _SCAN_EVERY == 0 and self._has_time(self._scan_s, elapsed_s):
            self._scan()
        if self.steps % _CHECK_EVERY == 0 and self._has_time(self._check_s, elapsed_s):
            frame = sys._getframe(1)
            self._check_s = self._timed(lambda: self._check(frame))
        if self._card is not None and self._card_line.is_rising and "card" not in self._told:
            self._tell_card(self._card)

    @property
    def has_card(self) -> bool:
        """Whether a card is watched, too."""
        return self._card is not None

    def watch_card(self, card: WatchedCard) -> None:
        """Watch a card from now on, as when a script first comes to use one."""
        self._card = card

    def closing_words(self) -> str | None:
        """One sentence for the end of a run in which nothing was told; None where something was."""
        if self._told:
            return None
        if self._looks < _FEWEST_LOOKS:
            return f"The run was too short to tell whether something grows: {self.steps} steps were seen."
        return f"Nothing was seen to grow from step to step, over {self.steps} steps."

    @property
    def spent_s(self) -> float:
        """Seconds of processor time that closer looks took so far."""
        return self._spent_s

    def _read(self, elapsed_s: float) -> None:
        """The figures that cost microseconds, and less often where steps take hardly more."""
        began = time.thread_time()
        if self._card is not None:
            self._card_line.add(self._card.allocated_bytes(), self.steps)
        resident = self._resident.read()
        if resident is not None:
            self._first_host_bytes = self._first_host_bytes or resident
            self._host_line.add(resident, self.steps)
            self._tell_host(resident)
        if self.steps // self._read_every % _FILES_EVERY == 0 and (count := open_files()) is not None:
            self._files_line.add(count, self.steps)
            self._tell_files()
        cost_s = time.thread_time() - began
        if elapsed_s > 0:
            self._read_every = max(1, min(_MOST_SELDOM, round(cost_s * self.steps / (_READING_SHARE * elapsed_s))))

    @property
    def _rises(self) -> bool:
        return self._host_line.is_rising or self._card_line.is_rising

    def _has_time(self, cost_s: float, elapsed_s: float) -> bool:
        share, credit_s = (_SHARE_WHILE_RISING, _CREDIT_WHILE_RISING_S) if self._rises else (_SHARE, 0.0)
        return self._spent_s + cost_s <= share * elapsed_s + credit_s

    def _scan(self) -> None:
        """Go through all containers; the first time is not counted, and tells what the others cost."""
        spent_s = self._spent_s
        self._scan_s = self._timed(lambda: self._scans.take(self.steps, self._checks.bounded))
        self._spent_s = self._spent_s if self._looks else spent_s
        self._looks += 1

    def _timed(self, look: Callable[[], None]) -> float:
        began = time.thread_time()
        look()
        cost = time.thread_time() - began
        self._spent_s += cost
        return cost

    def _check(self, frame: FrameType) -> None:
        for growth in self._checks.take(self.steps, self._scans.suspects, frame):
            # Without a graph it may be a cache, or a list that an epoch's end clears: it must come to be large.
            if growth.has_no_graph and growth.held_bytes < _LEAST_HELD_BYTES:
                continue
            holder = holder_of(growth, frame)
            self._once(str(holder), f"{holder} {_what(growth)}.")

    def _tell_card(self, card: WatchedCard) -> None:
        if "growth" in self._told:
            self._told.add("card")
            return
        said = card.growing_line()
        if said is not None:
            rise = format_size(round(self._card_line.each_step))
            self._once(
                "card", said or f"What the card holds after each step rises by {rise} a step; record its history."
            )

    def _tell_host(self, resident: int) -> None:
        grown = resident - self._first_host_bytes
        if self._host_line.is_rising and grown > _UNEXPLAINED_HOST_BYTES and "growth" not in self._told:
            rise = format_size(round(self._host_line.each_step))
            self._once(
                "host", f"The host's memory of this process rises by {rise} a step: {format_size(resident)} now."
            )

    def _tell_files(self) -> None:
        if self._files_line.is_rising:
            which = usual_file()
            self._once(
                "files", f"Open files rise from step to step: {open_files()} now, most of them {which}; close them."
            )

    def _once(self, key: str, sentence: str) -> None:
        if key not in self._told:
            self._told |= {key} if key in ("card", "host", "files") else {key, "growth"}
            self._tell(sentence)


def _what(growth: Growth) -> str:
    if growth.entry is None:
        return "keeps the graph of every step: use .item() or .detach() on what is added"
    if growth.entry.has_graph:
        return "keeps the graph of every step: use .item() or .detach()"
    where = " on the card" if growth.entry.on_card else ""
    size = growth.entry.size_bytes
    words = format_size(size) if size >= MIB else f"{size / KIB:.0f} KiB"
    return f"keeps {words}{where} of every step: keep numbers, or let go of it"


class CudaCard:
    """A card behind PyTorch's allocator. Not verified on a GPU."""

    _STEPS = 12

    def __init__(self, device: Any) -> None:
        import torch

        self._cuda, self._device = torch.cuda, device
        self._recorded = -1

    def allocated_bytes(self) -> int:
        """What tensors hold now."""
        stats: dict[str, Any] = self._cuda.memory_stats_as_nested_dict(self._device)
        return int(stats.get("allocated_bytes", {}).get("all", {}).get("current", 0))

    def growing_line(self) -> str | None:
        """Record some steps, and explain what piled up in them; a history that someone else records is left alone."""
        if self._recorded < 0:
            if _records_history():
                return ""
            self._cuda.memory._record_memory_history(context="alloc", stacks="python", max_entries=200_000)
        self._recorded += 1
        if self._recorded < self._STEPS:
            return None
        snapshot = self._cuda.memory._snapshot()
        self._cuda.memory._record_memory_history(enabled=None)
        return piled_up(snapshot)


def _records_history() -> bool:
    """Whether a history is being recorded; False where torch is too old to say, or has no CUDA."""
    import torch

    enabled = getattr(torch._C, "_cuda_isHistoryEnabled", None)
    return bool(enabled is not None and enabled())


def piled_up(snapshot: Any) -> str:
    """The sentence on what piles up in a snapshot of some steps; "" where nothing does."""
    from vramfit.postmortem.explain import explain_containers

    causes = ("kept graph", "growing list", "forgotten no_grad")
    findings = (finding for found in explain_containers(snapshot) for finding in found.findings)
    return next((one.sentence for one in findings if one.cause in causes), "")
