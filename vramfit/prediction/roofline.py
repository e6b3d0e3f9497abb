"""How long a step takes on a card: the sum over its operations of the slower of computing and moving bytes.

time = max(launches x launch time, sum over operations of max(FLOP / rate, bytes / bandwidth)). Seconds.
"""

from collections.abc import Iterable

from vramfit.cards import Card
from vramfit.prediction.record import OperationRecord

_ARITHMETIC_SHARE = 0.45  # of the peak rate that large convolutions reach
_BANDWIDTH_SHARE = 0.8
_LAUNCH_S = 8e-6


def step_time_s(operations: Iterable[OperationRecord], card: Card) -> float:
    """Seconds that one optimizer step's operations take on a card."""
    operations = list(operations)
    work = sum(_operation_s(operation, card) for operation in operations)
    return max(work, len(operations) * _LAUNCH_S)


def _operation_s(operation: OperationRecord, card: Card) -> float:
    rate = card.fp16_flops if operation.dtype in ("float16", "bfloat16") else card.tf32_flops
    moved = operation.read_bytes + operation.written_bytes
    return max(operation.flops / (rate * _ARITHMETIC_SHARE), moved / (card.bandwidth_bytes_per_s * _BANDWIDTH_SHARE))
