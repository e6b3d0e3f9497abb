"""What one traced step does to memory: every storage's life in order, and every operation between.

An event is one integer: `i` allocates storage number i, `~i` (negative) frees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

_ITEM_BYTES = {"float16": 2, "bfloat16": 2, "float64": 8}

# Operations that copy a tensor over the bus, as their records name them.
TO_HOST, FROM_HOST = "to host", "from host"

Kind = Literal[
    "parameter",
    "buffer",
    "average",
    "input",
    "cast weight",
    "activation",
    "loss",
    "gradient",
    "optimizer state",
    "temporary",
]
TracePhase = Literal["setup", "input", "forward", "loss", "backward", "optimizer", "validation"]


@dataclass(slots=True)
class StorageRecord:
    """One storage on the card: its size in bytes, the operation that made it, where, what for, and in which stream."""

    size_bytes: int
    op: str
    module: str
    phase: TracePhase
    kind: Kind = "temporary"
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution's shape: input and weight sizes, and how it steps; B is `input_shape[0]`.

    `image_gradient` and `weight_gradient` say what a backward pass makes; a forward pass makes neither.
    """

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    groups: int
    transposed: bool
    channels_last: bool
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    image_gradient: bool = False
    weight_gradient: bool = False

    def image_bytes(self, dtype: str) -> int:
        """Bytes of input and output together."""
        return (prod(self.input_shape) + prod(self.output_shape)) * self.item_bytes(dtype)

    @staticmethod
    def item_bytes(dtype: str) -> int:
        """Bytes of a number of a dtype."""
        return _ITEM_BYTES.get(dtype, 4)


@dataclass(frozen=True, slots=True)
class Reduction:
    """A sum over the rows of a contiguous matrix, which keeps its columns."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One operation: bytes it must read and write, its floating-point operations, where it ran.

    `position` is the number of events before its result was seen. `tensors` counts those that an operation works
    through as a list.
    """

    name: str
    module: str
    phase: TracePhase
    dtype: str
    flops: int
    read_bytes: int
    written_bytes: int
    position: int
    tensors: int = 1
    convolution: Convolution | None = None
    reduction: Reduction | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: numbers of events before and after it, and the storages it was given and returned."""

    module: str
    start: int
    stop: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(slots=True)
class Trace:
    """A traced job at one micro-batch: two optimizer steps or more, then a validation step.

    `events[:marks["step 1"]]` sets the job up; `marks` gives the number of events before each part. `calls` is every
    call of a module in a forward pass of training, in the order of their ends. `assumptions` are what was taken for
    granted of values that only a card has, each with the line that relies on it. `samples` are those of each step that
    was watched in a program whose batches may differ; empty where all are alike.
    """

    micro_batch: int
    storages: list[StorageRecord] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    operations: list[OperationRecord] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    calls: list["Call"] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    samples: dict[str, int] = field(default_factory=dict)

    def allocated_bytes(self) -> list[int]:
        """Bytes held after each event, before any rounding by the allocator."""
        held, total = [], 0
        for event in self.events:
            total += self.storages[event].size_bytes if event >= 0 else -self.storages[~event].size_bytes
            held.append(total)
        return held

    @property
    def peak_bytes(self) -> int:
        """The most bytes held at once, before any rounding by the allocator."""
        return max(self.allocated_bytes(), default=0)

    @property
    def fullest_steps(self) -> tuple[str, ...]:
        """The steps with the most samples, those after the first where there are such: the first sets state up."""
        if not self.samples:
            return ("step 2" if "step 2" in self.marks else "step 1",)
        most = max(self.samples.values())
        full = tuple(name for name, samples in self.samples.items() if samples == most)
        return tuple(name for name in full if name != "step 1") or full

    def part(self, name: str) -> Sequence[OperationRecord]:
        """The operations of one part: `step 1`, `step 2` or `validation`."""
        names = list(self.marks)
        start = self.marks[name]
        later = names[names.index(name) + 1 :]
        stop = self.marks[later[0]] if later else len(self.events) + 1
        return [operation for operation in self.operations if start <= operation.position < stop]
