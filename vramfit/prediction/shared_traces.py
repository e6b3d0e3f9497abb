"""One job's traces and replays, shared by many cards: a card of its own costs a moment, not a trace.

Traces are shared by cards that run the same kernels (`kernel_class`), and by all cards where a job has no attention.
Replays are shared by cards of one such class and one precision of their arithmetic, and are those of the first card
that asked: what sums over rows stage depends on the number of multiprocessors, and moves a peak by a few MiB. A trial
that must be right to the byte is made by `Predictor`.
"""

from collections.abc import Hashable
from functools import partial

from vramfit.cards import Card
from vramfit.choices import ASSUMED, ValuePolicy
from vramfit.jobs.job import Job
from vramfit.prediction.predict import Predictor
from vramfit.prediction.trace_predictor import Figures
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.trace_series import TraceSeries
from vramfit.prediction.tracing.cuda_kernels import kernel_class
from vramfit.prediction.tracing.trace import trace_step
from vramfit.records import Budget, Trial

_HOPPER = (9, 0)


class SharedTraces:
    """The traces of one job by the kernels that cards run, and what was replayed of them."""

    def __init__(self, job: Job, policy: ValuePolicy = ASSUMED) -> None:
        self.job = job
        self.policy = policy
        self._series: dict[Hashable, TraceSeries] = {}
        self._only: TraceSeries | None = None  # of a job whose trace is the same on every card
        self._figures: dict[Hashable, Figures] = {}

    def series(self, card: Card) -> TraceSeries:
        """The traces of the kernels that a card runs."""
        if self._only is not None:
            return self._only
        key = kernel_class(card.compute_capability)
        if key not in self._series:
            self._series[key] = TraceSeries(partial(self._trace, key, card.compute_capability))
        return self._series[key]

    def _trace(self, key: Hashable, capability: tuple[int, int], micro_batch: int) -> Trace:
        trace = trace_step(self.job, micro_batch, capability=capability, policy=self.policy)
        if not any("attention" in operation.name for operation in trace.operations):
            self._only = self._series[key]
        return trace

    def figures(self, predictor: "SharedPredictor", micro_batch: int, *, direct: bool = False) -> Figures | None:
        """What a card's kernels make of a micro-batch; None where nothing was traced that says it.

        Args:
            predictor: of the card; makes the figures where no card like it has asked for them.
            micro_batch: samples of one pass.
            direct: by a trace of that very micro-batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors.

        """
        card = predictor.card
        series = self.series(card)
        trace = series.direct(micro_batch) if direct else None
        like = (kernel_class(card.compute_capability), card.has_bf16, card.compute_capability == _HOPPER)
        key = (like, id(series), series.curves, micro_batch)
        if key not in self._figures:
            trace = trace or series.drawn(micro_batch)
            if trace is None:
                return None
            self._figures[key] = predictor.figures_of(trace)
        return self._figures[key]


class SharedPredictor(Predictor):
    """Predicts trials on one of many cards. None is `risky` for running when pressed: only what fits is of use."""

    def __init__(self, shared: SharedTraces, card: Card, budget: Budget) -> None:
        super().__init__(shared.job, card, budget, shared.policy)
        self._shared = shared

    def trial(self, micro_batch: int) -> Trial:
        """The trial predicted at a micro-batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors.

        """
        self._traces = self._shared.series(self.card)
        return super().trial(micro_batch)

    def proven(self, micro_batch: int) -> Trial:
        """The trial by a trace of that very micro-batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors, or not at this micro-batch.

        """
        figures = self._shared.figures(self, micro_batch, direct=True)
        assert figures is not None
        self._proven[micro_batch] = self.trial_from(figures)
        return self._proven[micro_batch]

    def foretold(self, micro_batch: int) -> Trial | None:
        """The trial by the curve through the traces made so far, which proves nothing; None where there is none."""
        figures = self._shared.figures(self, micro_batch)
        return None if figures is None else self.trial_from(figures)
