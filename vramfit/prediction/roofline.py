"""How long a step takes on a card: the sum over its operations of the slower of computing and moving bytes.

time = max(launches x launch time, sum over operations of max(FLOP / rate, bytes / bandwidth)). Seconds.
"""

from collections.abc import Iterable

from vramfit.cards import Card
from vramfit.prediction.constants import CONSTANTS, TimeConstants
from vramfit.prediction.record import OperationRecord


def step_time_s(operations: Iterable[OperationRecord], card: Card, constants: TimeConstants = CONSTANTS.time) -> float:
    """Seconds that one optimizer step's operations take on a card."""
    operations = list(operations)
    work = sum(operation_s(operation, card, constants) for operation in operations)
    return max(work, len(operations) * constants.launch_s)


def operation_s(operation: OperationRecord, card: Card, constants: TimeConstants = CONSTANTS.time) -> float:
    """Seconds that one operation keeps the card busy."""
    peak = card.fp16_flops if operation.dtype in ("float16", "bfloat16") else card.tf32_flops
    moved_s = (operation.read_bytes + operation.written_bytes) / (
        card.bandwidth_bytes_per_s * constants.bandwidth_share
    )
    return constants.kernel_s + max(operation.flops / (peak * _share(operation, constants)), moved_s)


def _share(operation: OperationRecord, constants: TimeConstants) -> float:
    if operation.convolution is None:
        return constants.product_share
    return constants.convolution_share["grouped" if operation.convolution.groups > 1 else "dense"]
