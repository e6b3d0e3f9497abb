"""Predicts trials on one card from traces: replays the allocator, adds hidden memory and time, judges the band.

Sizes in bytes, times in seconds. Whatever made the traces, a job or an unchanged script, is not known here.
"""

from dataclasses import dataclass

from vramfit.cards import Card
from vramfit.plan.search import CEILING
from vramfit.prediction.allocator.allocator import Settings
from vramfit.prediction.bands import band_verdict, memory_band
from vramfit.prediction.constants import CONSTANTS, MemoryKind
from vramfit.prediction.largest_batch import LargestBatch
from vramfit.prediction.overheads import context_bytes, kept_workspaces, memory_kind, passing_workspaces, slack
from vramfit.prediction.replay_trace import Peaks, Spread, replay_trace
from vramfit.prediction.roofline import Work, is_host_bound, work_of, work_time_s
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.trace_series import TraceSeries
from vramfit.records import Band, Budget, Trial, Verdict


@dataclass(frozen=True)
class Figures:
    """What is kept of a trace of one micro-batch: its peaks on a card, and the work of its fullest steps."""

    micro_batch: int
    peaks: Spread
    kind: MemoryKind
    steps: tuple[Work, ...]
    assumptions: tuple[str, ...]


class TracePredictor:
    """Predicts trials on one card from traces of whatever trains there.

    `beside_bytes` is the most that a library may take of the card past torch, which raises the high end of the bands.
    A verdict of `fits` rests on a trace of that micro-batch, or of a larger one; see `TraceSeries`.
    """

    def __init__(
        self,
        traces: TraceSeries,
        card: Card,
        budget: Budget,
        *,
        cudnn_benchmark: bool = False,
        settings: Settings | None = None,
        beside_bytes: int = 0,
    ) -> None:
        self.card = card
        self.beside_bytes = beside_bytes
        self.budget = budget
        self.cudnn_benchmark = cudnn_benchmark
        self.settings = settings or Settings()
        self._traces = traces
        self._proven: dict[int, Trial] = {}
        self._drawn: dict[int, Trial] = {}

    def trial(self, micro_batch: int) -> Trial:
        """The trial predicted at a micro-batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors.

        """
        if micro_batch in self._proven:
            return self._proven[micro_batch]
        foretold = self.foretold(micro_batch)
        if foretold and (self._traces.covers(micro_batch) or foretold.verdict is not Verdict.FITS):
            return foretold
        return self.proven(micro_batch)

    def proven(self, micro_batch: int) -> Trial:
        """The trial by a trace of that very micro-batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors, or not at this micro-batch.

        """
        if micro_batch not in self._proven:
            curve = self._traces.curve
            self._proven[micro_batch] = self.trial_of(self._traces.direct(micro_batch))
            if self._traces.curve is not curve:
                self._drawn.clear()
        return self._proven[micro_batch]

    def foretold(self, micro_batch: int) -> Trial | None:
        """The trial by the curve through the traces made so far, which proves nothing; None where there is none."""
        if micro_batch not in self._drawn:
            drawn = self._traces.drawn(micro_batch)
            if drawn is None:
                return None
            self._drawn[micro_batch] = self.trial_of(drawn)
        return self._drawn[micro_batch]

    def holds(self, micro_batch: int) -> bool:
        """Whether a trace of that very micro-batch says what its trial says; else trials that were drawn are void."""
        said = self.trial(micro_batch)
        return self.proven(micro_batch) == said

    @property
    def is_traceable(self) -> bool:
        """Whether a trace was made at some micro-batch."""
        return bool(self._proven)

    def largest_that_fits(self, maximum: int | None = None) -> int:
        """The largest micro-batch whose verdict is `fits`, at most `maximum` (`CEILING`); 0 if not even 1 does.

        Raises:
            NotTraceable: the step cannot be traced at any size.

        """
        return LargestBatch(self, self.budget.budget_bytes, high=(maximum or CEILING) + 1).answer()

    def trace(self, micro_batch: int) -> Trace:
        """The step's trace at a micro-batch: made there, or drawn through larger ones that lie on one curve."""
        return self._traces.at(micro_batch)

    def rehearsal(self, micro_batch: int) -> Trace:
        """What a trial at a micro-batch goes through: the traced steps, the second accumulated over two passes."""
        return self._rehearsed(self.trace(micro_batch))

    def _rehearsed(self, trace: Trace) -> Trace:
        """A trace with what a trial does beside it: an accumulated step; nothing where only the traces are known."""
        return trace

    def _replay(self, trace: Trace, part: float, limit_bytes: int | None = None) -> Peaks:
        """The peaks with a part of the most workspace that cuDNN may take."""
        return replay_trace(
            trace,
            passing_workspaces(trace.operations, self.card, benchmark=self.cudnn_benchmark, part=part),
            kept_bytes=kept_workspaces(trace, self.card),
            limit_bytes=limit_bytes,
            settings=self.settings,
        )

    def trial_of(self, trace: Trace) -> Trial:
        """The trial of a trace, however it was made."""
        rehearsed = self._rehearsed(trace)
        return self.trial_from(self.figures_of(trace, rehearsed), rehearsed)

    def figures_of(self, trace: Trace, rehearsed: Trace | None = None) -> Figures:
        """What a trace, and its `rehearsed` form, say of memory and time."""
        rehearsed = rehearsed or self._rehearsed(trace)
        return Figures(
            micro_batch=trace.micro_batch,
            peaks=Spread.of([self._replay(rehearsed, part) for part in CONSTANTS.hidden.replayed_parts]),
            kind=memory_kind(rehearsed.operations),
            steps=tuple(work_of(trace.part(name)) for name in trace.fullest_steps),
            assumptions=tuple(trace.assumptions),
        )

    def trial_from(self, figures: Figures, rehearsed: Trace | None = None) -> Trial:
        """The trial of figures; without the trace that was rehearsed no trial is `risky` for running when pressed."""
        peaks, kind = figures.peaks, figures.kind
        context = context_bytes(self.card)
        reserved = round(peaks.reserved_bytes * self._slack(kind))
        used = reserved + context
        bands = CONSTANTS.bands
        low, high = memory_band(used, peaks.spread_bytes, kind)
        band = low, high + self.beside_bytes
        time_s = max(work_time_s(work, self.card) for work in figures.steps)
        return Trial(
            source="predicted",
            micro_batch=figures.micro_batch,
            verdict=self._verdict(band, rehearsed),
            budget_bytes=self.budget.budget_bytes,
            peak_allocated_bytes=peaks.allocated_bytes,
            peak_reserved_bytes=reserved,
            context_bytes=context,
            device_used_bytes=used,
            device_used_band_bytes=band,
            step_time_s=time_s,
            step_time_band_s=(time_s * bands.time[0], time_s * bands.time[1]),
            assumptions=figures.assumptions,
            host_bound=all(is_host_bound(work, self.card) for work in figures.steps),
        )

    def _slack(self, kind: MemoryKind) -> float:
        return slack(kind, self.card, benchmark=self.cudnn_benchmark)

    def _verdict(self, band: Band, trace: Trace | None) -> Verdict:
        """The verdict of the band; `risky` where it is over budget and the steps still run with the cache released."""
        judged = band_verdict(band, self.budget.budget_bytes)
        if judged is Verdict.OVER_BUDGET and trace is not None and self._runs_pressed(trace):
            return Verdict.RISKY
        return judged

    def _runs_pressed(self, trace: Trace) -> bool:
        """Whether the steps run at all: with the least workspace, and what is cached released whenever it must be.

        A measured trial that has to release it is over budget, for it is slow and near its limit; but it runs.
        """
        room = self.budget.budget_bytes - context_bytes(self.card)
        limit = max(0, int(room / self._slack(memory_kind(trace.operations))))
        return self._replay(trace, min(CONSTANTS.hidden.replayed_parts), limit).fits
