"""One job's traces and replays, shared by many cards: a card of its own costs a moment, not a trace.

Traces are shared by cards that run the same kernels (`kernel_class`), and by all cards where a job has no attention.
Replays are shared by cards of one trace and one precision of their arithmetic, and are those of the first card that
asked: what sums over rows stage depends on the number of multiprocessors, and moves a peak by a few MiB. A trial that
must be right to the byte is made by a `Predictor` of one card.
"""

from collections.abc import Hashable
from functools import partial

from vramfit.cards import Card
from vramfit.choices import ASSUMED, ValuePolicy
from vramfit.jobs.job import Job
from vramfit.plan.search import CEILING
from vramfit.prediction.largest_batch import LargestBatch
from vramfit.prediction.predict import Predictor
from vramfit.prediction.roofline import Work, growing_time_s, work_of
from vramfit.prediction.trace_predictor import Figures
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.trace_series import TraceSeries
from vramfit.prediction.tracing.cuda_kernels import kernel_class
from vramfit.prediction.tracing.trace import trace_step
from vramfit.records import Budget, Lever, Trial, Verdict

_HOPPER = (9, 0)
# Where a first trace leads falls short by what does not grow with the batch: weights, moments, gradients.
_REACH = 1.25


class SharedTraces:
    """The traces of one job by the kernels that cards run, and what was replayed of them."""

    def __init__(self, job: Job, policy: ValuePolicy = ASSUMED, *, first_step: bool = False) -> None:
        """Traces of a job; of its `first_step` alone, where nothing but that step's time is asked."""
        self.job = job
        self.policy = policy
        self._trace_step = partial(trace_step, steps=1, validation=False) if first_step else trace_step
        self._series: dict[Hashable, TraceSeries] = {}
        self._only: TraceSeries | None = None  # of a job whose trace is the same on every card
        self._figures: dict[Hashable, dict[int, Figures]] = {}

    def series(self, card: Card) -> TraceSeries:
        """The traces of the kernels that a card runs."""
        if self._only is not None:
            return self._only
        key = kernel_class(card.compute_capability)
        if key not in self._series:
            self._series[key] = TraceSeries(partial(self._trace, key, card.compute_capability))
        return self._series[key]

    def _trace(self, key: Hashable, capability: tuple[int, int], micro_batch: int) -> Trace:
        trace = self._trace_step(self.job, micro_batch, capability=capability, policy=self.policy)
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
        series = self.series(predictor.card)
        trace = series.direct(micro_batch) if direct else None
        known = self.known(predictor.card)
        if micro_batch not in known:
            trace = trace or series.drawn(micro_batch)
            if trace is None:
                return None
            known[micro_batch] = predictor.figures_of(trace)
        return known[micro_batch]

    def known(self, card: Card) -> dict[int, Figures]:
        """What was replayed for cards like this one, by micro-batch; what a dropped curve said is not among it."""
        series = self.series(card)
        like = (card.has_bf16, card.compute_capability == _HOPPER, id(series), series.curves)
        return self._figures.setdefault(like, {})


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
        """The trial by a trace of that very micro-batch, or by those of larger ones where they lie on one curve.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors, or not at this micro-batch.

        """
        self._traces = self._shared.series(self.card)
        figures = self._shared.figures(self, micro_batch, direct=not self._traces.covers(micro_batch))
        assert figures is not None
        self._proven[micro_batch] = self.trial_from(figures)
        return self._proven[micro_batch]

    def largest_that_fits(self, maximum: int | None = None) -> int:
        """The largest micro-batch whose verdict is `fits`, searched between what is known for other cards."""
        maximum = maximum or CEILING
        search = LargestBatch(self, self.budget.budget_bytes, high=maximum + 1, reach=_REACH)
        trials = [
            self.trial_from(figures) for size, figures in self._shared.known(self.card).items() if size <= maximum
        ]
        above = min((t for t in trials if t.verdict is not Verdict.FITS), key=_size, default=None)
        if above is not None and above.micro_batch == 1:
            return 0
        # Where memory does not grow evenly, several sizes fit below one that does not: the first edge is the answer.
        below = [t for t in trials if t.verdict is Verdict.FITS and (above is None or _size(t) < _size(above))]
        for nearest in (max(below, key=_size, default=None), above):
            if nearest is not None:
                search.judge(nearest)
        return search.answer()

    def foretold(self, micro_batch: int) -> Trial | None:
        """The trial by the curve through the traces made so far, which proves nothing; None where there is none."""
        figures = self._shared.figures(self, micro_batch)
        return None if figures is None else self.trial_from(figures)


def _size(trial: Trial) -> int:
    return trial.micro_batch


class SharedSteps:
    """Seconds of a step of one job at one micro-batch, with any levers on many cards; see `freed_job`."""

    def __init__(self, micro_batch: int) -> None:
        self._micro_batch = micro_batch
        self._shared: dict[tuple[Lever, ...], SharedTraces] = {}
        self._works: dict[int, Work] = {}

    def seconds_of(self, job: Job, card: Card) -> float:
        """The time of a step of the job, with its levers, that grows with the batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors.

        """
        if job.levers not in self._shared:
            self._shared[job.levers] = SharedTraces(job, first_step=True)
        shared = self._shared[job.levers]
        trace = shared.series(card).direct(self._micro_batch)
        series = id(shared.series(card))
        if series not in self._works:
            self._works[series] = work_of(trace.part("step 1"))
        return growing_time_s(self._works[series], card)
