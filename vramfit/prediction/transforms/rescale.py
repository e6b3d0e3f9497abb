"""A job's memory as a function of the micro-batch: two traces, and a straight line through every storage.

Everything in a training step that depends on the batch is proportional to it, or does not change: the size of each
storage is a + b B, with whole numbers a and b. Two traces whose events match give both; a job whose events do not
match (its shapes depend on the batch in another way) has no such line.

B is the micro-batch.
"""

from dataclasses import dataclass, replace

from vramfit.prediction.trace_records import Convolution, OperationRecord, StorageRecord, Trace


@dataclass(frozen=True, slots=True)
class AffineTrace:
    """Two traces of one job, the second at a larger micro-batch; `at` gives any other."""

    small: Trace
    large: Trace

    @classmethod
    def through(cls, small: Trace, large: Trace) -> "AffineTrace | None":
        """The line through two traces, or None if their events do not match."""
        if small.events != large.events or len(small.operations) != len(large.operations):
            return None
        storages = zip(small.storages, large.storages, strict=True)
        operations = zip(small.operations, large.operations, strict=True)
        if any(a.op != b.op or a.module != b.module for a, b in storages):
            return None
        if any(a.name != b.name for a, b in operations):
            return None
        return cls(small, large)

    def at(self, micro_batch: int) -> Trace:
        """The trace at a micro-batch."""
        line = _Line(self.small.micro_batch, self.large.micro_batch, micro_batch)
        return Trace(
            micro_batch,
            [line.storage(a, b) for a, b in zip(self.small.storages, self.large.storages, strict=True)],
            self.small.events,
            [line.operation(a, b) for a, b in zip(self.small.operations, self.large.operations, strict=True)],
            self.small.marks,
            self.small.calls,
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """Values at `to` on the line through values at `first` and `second`, rounded to whole numbers."""

    first: int
    second: int
    to: int

    def value(self, first: int, second: int) -> int:
        if first == second:
            return first
        run = self.second - self.first
        return max(0, first + (second - first) * (self.to - self.first) // run)

    def storage(self, first: StorageRecord, second: StorageRecord) -> StorageRecord:
        if first.size_bytes == second.size_bytes:
            return first
        return replace(first, size_bytes=self.value(first.size_bytes, second.size_bytes))

    def operation(self, first: OperationRecord, second: OperationRecord) -> OperationRecord:
        if first == second:
            return first
        convolution = first.convolution
        if convolution is not None and second.convolution is not None:
            convolution = self._convolution(convolution, second.convolution)
        return replace(
            first,
            flops=self.value(first.flops, second.flops),
            read_bytes=self.value(first.read_bytes, second.read_bytes),
            written_bytes=self.value(first.written_bytes, second.written_bytes),
            convolution=convolution,
        )

    def _convolution(self, first: Convolution, second: Convolution) -> Convolution:
        return replace(
            first,
            input_shape=self._shape(first.input_shape, second.input_shape),
            weight_shape=self._shape(first.weight_shape, second.weight_shape),
            output_shape=self._shape(first.output_shape, second.output_shape),
        )

    def _shape(self, first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.value(a, b) for a, b in zip(first, second, strict=True))
