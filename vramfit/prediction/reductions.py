"""What CUDA's sums hold while they run: partial results of blocks that share an output (Reduce.cuh, `setReduceConfig`).

A sum over rows that keeps columns, such as the gradient of a bias or of a norm's weight, is cut into pieces of rows for
enough blocks to fill the card; every piece writes its partial sums before the last block adds them. That is a fixed
amount for large tensors, 100 MB on a card with 128 multiprocessors, and counts where a network is small beside it.
The recorded step of a language model has 49 such blocks of 16 MiB and as many of 32 bytes, as this gives them.

Known limitation: sums within other kernels, such as those of a convolution's bias in NHWC order, are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vramfit.cards import Card
from vramfit.prediction.trace_records import OperationRecord, Reduction

_THREADS = 512  # of a block, at most, for one value a thread
_WARP = 32
_VECTOR = 4  # columns that a thread sums at once
_FEWEST_VALUES, _MOST_VALUES = 16, 256  # of a thread
_PARTIAL_BYTES, _SEMAPHORE_BYTES = 4, 4  # sums of half precision are float32


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How blocks of threads are laid over rows and columns."""

    width: int
    height: int
    vector: int

    @property
    def threads(self) -> int:
        return self.width * self.height

    def across(self, columns: int) -> int:
        """Blocks side by side."""
        return -(-(columns // self.vector) // self.width)


def staging_workspaces(operations: Sequence[OperationRecord], card: Card) -> dict[int, int]:
    """Event number -> bytes of partial sums that a sum holds there on a card, where there are any."""
    found = {op.position: staging_bytes(op.reduction, card) for op in operations if op.reduction is not None}
    return {position: size for position, size in found.items() if size}


def staging_bytes(reduction: Reduction, card: Card) -> int:
    """Partial sums and their semaphores of one sum on a card; 0 where no blocks share an output."""
    rows, columns = reduction.rows, reduction.columns
    blocks = _blocks(rows, columns)
    grid = blocks.across(columns)
    pieces = _pieces(rows, blocks, grid, card.resident_threads // card.sms, card.sms)
    if pieces <= 1:
        return 0
    return _PARTIAL_BYTES * columns * pieces * blocks.width * blocks.vector + _SEMAPHORE_BYTES * grid


def _blocks(rows: int, columns: int) -> _Blocks:
    vector = next(size for size in (_VECTOR, 2, 1) if columns % size == 0)
    most = _THREADS // vector
    wide, high = min(_last_power(columns // vector), most), min(_last_power(rows), most)
    height = min(high, most // min(wide, _WARP))
    return _Blocks(min(wide, most // height), height, vector)


def _pieces(rows: int, blocks: _Blocks, grid: int, resident: int, multiprocessors: int) -> int:
    """Blocks that share an output, so that the card is full and a thread has work."""
    if rows < min(blocks.height * _FEWEST_VALUES, _MOST_VALUES):
        return 1  # every row of threads has outputs of its own
    values = -(-rows // blocks.height)
    wanted = multiprocessors * (resident // blocks.threads)
    if values < _MOST_VALUES or grid > wanted:
        return 1
    return max(min(-(-wanted // grid), -(-values // _FEWEST_VALUES)), -(-values // _MOST_VALUES))


def _last_power(value: int) -> int:
    """The largest power of two that is not above it."""
    return 1 << (max(1, value).bit_length() - 1)
