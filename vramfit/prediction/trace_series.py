"""A job's traces by micro-batch: made directly where a figure rests on them, drawn through others in between.

Two traces are no proof of a line: a loss over pairs of samples, `int(0.7 * B)` or a view of pairs follows another law.
So nothing is drawn beyond the largest micro-batch that was traced, but to say where to trace next.
"""

from collections.abc import Callable

from vramfit.errors import NotTraceable
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.undecided import EndlessLoop
from vramfit.prediction.transforms.rescale import TraceCurve

# A trace is tens of megabytes.
_KEPT = 4
_MOST_POINTS = 3  # of a curve: a parabola


class TraceSeries:
    """The traces of one job; `make` traces one micro-batch."""

    def __init__(self, make: Callable[[int], Trace]) -> None:
        self._make = make
        self._made: dict[int, Trace] = {}
        self.curve: TraceCurve | None = None
        self.curves = 0  # how many there were
        self._proven = 0  # the largest micro-batch that the curve was drawn through, or met

    def direct(self, micro_batch: int) -> Trace:
        """The trace made at a micro-batch.

        Raises:
            NotTraceable: the step cannot run on storage-less tensors, or not at this micro-batch.

        """
        if micro_batch not in self._made:
            self._learn(self._make(micro_batch))
        return self._made[micro_batch]

    def at(self, micro_batch: int) -> Trace:
        """The trace at a micro-batch: drawn where larger ones were traced and lie on one curve, else made."""
        drawn = self.drawn(micro_batch) if self.covers(micro_batch) else None
        return drawn or self.direct(micro_batch)

    def covers(self, micro_batch: int) -> bool:
        """Whether a curve can be drawn there, and reaches further."""
        return micro_batch in self._made or (self.curve is not None and micro_batch < self._proven)

    def drawn(self, micro_batch: int) -> Trace | None:
        """What the curve says of any micro-batch, unproven beyond the largest one traced; None without a curve."""
        if micro_batch in self._made:
            return self._made[micro_batch]
        return self.curve.at(micro_batch) if self.curve is not None else None

    def _learn(self, trace: Trace) -> None:
        """Take a trace in; a curve that it does not lie on is dropped for one through it."""
        agrees = self.curve is not None and self.curve.agrees(trace)
        while len(self._made) >= _KEPT:
            del self._made[next(size for size in list(self._made)[1:] if size != self._proven)]
        self._made[trace.micro_batch] = trace
        if agrees:
            self._proven = max(self._proven, trace.micro_batch)
            return
        self.curve = self._through(trace)
        self.curves += 1
        self._proven = max((one.micro_batch for one in self.curve.traces), default=0) if self.curve else 0

    def _through(self, newest: Trace) -> TraceCurve | None:
        """The curve through the newest trace and those that do the same: a line, or a parabola where no line holds."""
        alike = [one for one in self._made.values() if TraceCurve.through(newest, one)]
        latest = sorted(alike[-_MOST_POINTS:], key=lambda one: one.micro_batch)
        if len(latest) < 2:
            return None
        line = TraceCurve.through(latest[0], latest[-1])
        return line if line and all(map(line.agrees, latest)) else TraceCurve.through(*latest)


def depends_on_size(error: NotTraceable) -> bool:
    """Whether a step that failed at one micro-batch may do at another: not where a name or an argument is wrong."""
    if isinstance(error, EndlessLoop):
        return False
    return not isinstance(error.__cause__, (TypeError, AttributeError, NameError, LookupError, ImportError))
