"""Predicts a trial without a card: traces the step, replays the allocator, adds hidden memory and time.

Sizes in bytes, times in seconds. A prediction is the middle of a 90 % band, and its verdict depends on the band.
"""

from math import hypot

from vramfit.cards import Card, find_card
from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.levers import setting_of
from vramfit.prediction.allocator.allocator import Settings
from vramfit.prediction.constants import CONSTANTS, Bands
from vramfit.prediction.overheads import context_bytes, convolution_workspaces, kept_workspaces
from vramfit.prediction.replay_trace import Peaks, Spread, replay_trace
from vramfit.prediction.roofline import step_time_s
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.accumulate import accumulating
from vramfit.prediction.transforms.rescale import AffineTrace
from vramfit.records import Band, Budget, Trial, Verdict
from vramfit.units import size_in_bytes

# Not 1: BatchNorm refuses a single value a channel, and shapes of one are often special.
_SMALL, _LARGE = 2, 3


def predict(
    job: Job, *, micro_batch: int, gpu: str, vram: str | int | None = None, reserve: str | int | None = None
) -> Trial:
    """Predict one trial of a job on a card that need not be here.

    Args:
        job: what to train.
        micro_batch: samples of one forward and backward pass.
        gpu: the card's name, such as `rtx3090`.
        vram: the most the job may use at device level, such as `8GB` or bytes; None for what the card has.
        reserve: what a desktop or another process keeps of the card, such as `600MB` or bytes.

    Raises:
        UnknownCard: no such card.
        UsageError: `vram` or `reserve` is not a size, or `micro_batch` is less than 1.
        NotTraceable: the step cannot run on storage-less tensors.

    """
    if micro_batch < 1:
        raise UsageError(f"micro_batch is {micro_batch}; use 1 or more.")
    card = find_card(gpu)
    return Predictor(job, card, card_budget(card, vram=vram, reserve=reserve)).trial(micro_batch)


def card_budget(card: Card, *, vram: str | int | None = None, reserve: str | int | None = None) -> Budget:
    """What a job may use on a card that is not here; sizes in bytes, or as `parse_size` reads them."""
    return Budget(
        total_bytes=card.memory_bytes,
        requested_bytes=size_in_bytes(vram),
        reserve_bytes=size_in_bytes(reserve) or 0,
        context_bytes=context_bytes(card),
    )


def allocator_settings(job: Job) -> Settings:
    """How the allocator is set when a job runs with its levers."""
    return Settings(expandable_segments=setting_of(job.levers, "expandable_segments") is not None)


class Predictor:
    """Predicts trials of one job on one card; the job is traced once."""

    def __init__(self, job: Job, card: Card, budget: Budget) -> None:
        self.job = job
        self.card = card
        self.budget = budget
        self._traced: AffineTrace | None = None
        self._alike = True
        self._trials: dict[int, Trial] = {}

    def trial(self, micro_batch: int) -> Trial:
        """The trial predicted at a micro-batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors.

        """
        if micro_batch not in self._trials:
            self._trials[micro_batch] = self._predict(micro_batch)
        return self._trials[micro_batch]

    def largest_that_fits(self, maximum: int | None = None) -> int:
        """The largest micro-batch whose verdict is `fits`, at most `maximum`; 0 if not even 1 does."""
        low, high = 0, 1
        while self._fits(high) and (maximum is None or high < maximum):
            low, high = high, high * 2 if maximum is None else min(high * 2, maximum)
        if self._fits(high):
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(middle) else (low, middle)
        return low

    def trace(self, micro_batch: int) -> Trace:
        """The step's trace at a micro-batch: extrapolated where the job allows it, else traced."""
        if self._traced is None and self._alike:
            self._traced = AffineTrace.through(trace_step(self.job, _SMALL), trace_step(self.job, _LARGE))
            self._alike = self._traced is not None
        return self._traced.at(micro_batch) if self._traced else trace_step(self.job, micro_batch)

    def rehearsal(self, micro_batch: int) -> Trace:
        """What a trial at a micro-batch goes through: the traced steps, the second accumulated over two passes."""
        return self._rehearsed(self.trace(micro_batch))

    def _rehearsed(self, trace: Trace) -> Trace:
        return accumulating(trace)

    def _replay(self, trace: Trace, part: float, limit_bytes: int | None = None) -> Peaks:
        """The peaks with a part of the most workspace that cuDNN may take."""
        return replay_trace(
            trace,
            convolution_workspaces(trace.operations, benchmark=self.job.cudnn_benchmark, part=part),
            kept_bytes=kept_workspaces(trace, self.card),
            limit_bytes=limit_bytes,
            settings=allocator_settings(self.job),
        )

    def _fits(self, micro_batch: int) -> bool:
        return self.trial(micro_batch).verdict is Verdict.FITS

    def _predict(self, micro_batch: int) -> Trial:
        trace = self.trace(micro_batch)
        rehearsed = self._rehearsed(trace)
        peaks = Spread.of([self._replay(rehearsed, part) for part in CONSTANTS.hidden.replayed_parts])
        context = context_bytes(self.card)
        reserved = round(peaks.reserved_bytes * CONSTANTS.hidden.slack)
        used = reserved + context
        bands = CONSTANTS.bands
        band = memory_band(used, peaks.spread_bytes)
        time_s = step_time_s(trace.part("step 2"), self.card)
        return Trial(
            source="predicted",
            micro_batch=micro_batch,
            verdict=self._judged(band, rehearsed),
            budget_bytes=self.budget.budget_bytes,
            peak_allocated_bytes=peaks.allocated_bytes,
            peak_reserved_bytes=reserved,
            context_bytes=context,
            device_used_bytes=used,
            device_used_band_bytes=band,
            step_time_s=time_s,
            step_time_band_s=(time_s * bands.time[0], time_s * bands.time[1]),
        )

    def _judged(self, band: Band, trace: Trace) -> Verdict:
        judged = verdict(band, self.budget.budget_bytes)
        return Verdict.RISKY if judged is Verdict.OVER_BUDGET and self._runs_pressed(trace) else judged

    def _runs_pressed(self, trace: Trace) -> bool:
        """Whether the steps run at all: with the least workspace, and what is cached released whenever it must be.

        A measured trial that has to release it is over budget, for it is slow and near its limit; but it runs.
        """
        room = self.budget.budget_bytes - context_bytes(self.card)
        limit = max(0, int(room / CONSTANTS.hidden.slack))
        return self._replay(trace, min(CONSTANTS.hidden.replayed_parts), limit).fits


def memory_band(used_bytes: int, spread_bytes: int, bands: Bands = CONSTANTS.bands) -> Band:
    """The 90 % band of device use, wider the more the workspaces of cuDNN matter; see `Bands`."""
    scale = hypot(bands.memory_base * used_bytes, spread_bytes / 2)
    low, high = bands.memory
    return max(0, round(used_bytes + low * scale)), round(used_bytes + high * scale)


def verdict(band: Band, budget_bytes: int) -> Verdict:
    """`fits` if the high end of the band is within the budget, `risky` if the low end is, else `over_budget`.

    Of what the card would hold if nothing had to be released.
    """
    if band[1] <= budget_bytes:
        return Verdict.FITS
    return Verdict.RISKY if band[0] <= budget_bytes else Verdict.OVER_BUDGET
