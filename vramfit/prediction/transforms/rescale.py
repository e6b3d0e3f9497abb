"""A job's memory as a function of the micro-batch: a polynomial through every storage of a few traces.

Most of what a training step holds is proportional to the batch or does not change: the size of each storage is
a + b B, with whole numbers a and b. A loss over pairs of samples adds c B^2. Traces whose events match give the
polynomial; whether it holds at another micro-batch only a trace made there tells (`agrees`).

B is the micro-batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

from vramfit.prediction.trace_records import Convolution, OperationRecord, Reduction, StorageRecord, Trace


@dataclass(frozen=True, slots=True)
class TraceCurve:
    """Traces of one job at different micro-batches, and the polynomial of least degree through each of their sizes.

    Two traces give a straight line, three a parabola.
    """

    traces: tuple[Trace, ...]

    @classmethod
    def through(cls, *traces: Trace) -> "TraceCurve | None":
        """The curve through traces, or None if their events do not match."""
        first = traces[0]
        return cls(traces) if all(_alike(first, other) for other in traces[1:]) else None

    def at(self, micro_batch: int) -> Trace:
        """The trace at a micro-batch."""
        curve = _Polynomial.through([trace.micro_batch for trace in self.traces], micro_batch)
        first = self.traces[0]
        storages = zip(*(trace.storages for trace in self.traces), strict=True)
        operations = zip(*(trace.operations for trace in self.traces), strict=True)
        return Trace(
            micro_batch,
            [curve.storage(same) for same in storages],
            first.events,
            [curve.operation(same) for same in operations],
            first.marks,
            first.calls,
            list(dict.fromkeys(said for trace in self.traces for said in trace.assumptions)),
            first.samples,
        )

    def agrees(self, trace: Trace) -> bool:
        """Whether the curve meets a trace that was made by itself, storage by storage."""
        if not _alike(self.traces[0], trace):
            return False
        curve = _Polynomial.through([known.micro_batch for known in self.traces], trace.micro_batch)
        known = zip(*(one.storages for one in self.traces), strict=True)
        return all(
            curve.value([one.size_bytes for one in same]) == direct.size_bytes
            for same, direct in zip(known, trace.storages, strict=True)
        )


@dataclass(frozen=True, slots=True)
class AffineTrace:
    """Two traces of one job, the second at a larger micro-batch; `at` gives any other on the line through them."""

    small: Trace
    large: Trace

    @classmethod
    def through(cls, small: Trace, large: Trace) -> "AffineTrace | None":
        """The line through two traces, or None if their events do not match."""
        return cls(small, large) if _alike(small, large) else None

    def at(self, micro_batch: int) -> Trace:
        """The trace at a micro-batch."""
        return TraceCurve((self.small, self.large)).at(micro_batch)


def _alike(one: Trace, other: Trace) -> bool:
    """Whether two traces allocate, free and compute the same things in the same order, whatever their sizes."""
    if one.events != other.events or len(one.operations) != len(other.operations):
        return False
    storages = zip(one.storages, other.storages, strict=True)
    operations = zip(one.operations, other.operations, strict=True)
    return all(a.op == b.op and a.module == b.module for a, b in storages) and all(
        a.name == b.name for a, b in operations
    )


@dataclass(frozen=True, slots=True)
class _Polynomial:
    """Values at one micro-batch from those at a few others: Lagrange's weights over a common denominator."""

    weights: tuple[int, ...]
    denominator: int

    @classmethod
    def through(cls, places: Sequence[int], to: int) -> "_Polynomial":
        weights = [_weight(places, place, to) for place in places]
        denominator = lcm(*(weight.denominator for weight in weights))
        return cls(tuple(int(weight * denominator) for weight in weights), denominator)

    def value(self, values: Sequence[int]) -> int:
        """The value at the new micro-batch, rounded down to a whole number, never negative."""
        if all(value == values[0] for value in values):
            return values[0]
        total = sum(weight * value for weight, value in zip(self.weights, values, strict=True))
        return max(0, total // self.denominator)

    def storage(self, same: Sequence[StorageRecord]) -> StorageRecord:
        first = same[0]
        size = self.value([one.size_bytes for one in same])
        return first if size == first.size_bytes else replace(first, size_bytes=size)

    def operation(self, same: Sequence[OperationRecord]) -> OperationRecord:
        first = same[0]
        if all(one == first for one in same[1:]):
            return first
        return replace(
            first,
            flops=self.value([one.flops for one in same]),
            read_bytes=self.value([one.read_bytes for one in same]),
            written_bytes=self.value([one.written_bytes for one in same]),
            convolution=self._convolution([one.convolution for one in same]),
            reduction=self._reduction([one.reduction for one in same]),
        )

    def _convolution(self, same: Sequence[Convolution | None]) -> Convolution | None:
        known = [one for one in same if one is not None]
        if len(known) < len(same):
            return same[0]
        return replace(
            known[0],
            input_shape=self._shape([one.input_shape for one in known]),
            weight_shape=self._shape([one.weight_shape for one in known]),
            output_shape=self._shape([one.output_shape for one in known]),
        )

    def _reduction(self, same: Sequence[Reduction | None]) -> Reduction | None:
        known = [one for one in same if one is not None]
        if len(known) < len(same):
            return None
        return Reduction(self.value([one.rows for one in known]), self.value([one.columns for one in known]))

    def _shape(self, same: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(self.value(lengths) for lengths in zip(*same, strict=True))


def _weight(places: Sequence[int], place: int, to: int) -> Fraction:
    """Lagrange's weight of the value at one place."""
    weight = Fraction(1)
    for other in places:
        if other != place:
            weight *= Fraction(to - other, place - other)
    return weight
