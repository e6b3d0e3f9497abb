"""How long a step takes on a card: the sum over its operations of the slower of computing and moving bytes. Seconds.

    operation: kernel time + max(FLOP / (rate x its share), bytes / (bandwidth x its share))
    step:      max(sum of the operations, number of operations x launch time)

The shares are by kind of operation (`kind_of`), fitted to measured steps; the rates are a card's own. A card computes
in float32 what it has no arithmetic for: bf16 before compute capability 8.0, and any FP8. NHWC order is faster on
tensor cores alone; elsewhere a convolution is timed as in NCHW order, at best.

Known limitations: all bytes are taken to come from the card's memory. A large L2 cache (RTX 40: 24 to 72 MB, H100: 50
MB, beside 2 to 6 MB of RTX 30; NVIDIA's whitepapers on Ada and Hopper) keeps what an operation has just written for
the next one, so RTX 40 cards are faster beside RTX 30 than is predicted, most of all with small images: no measured
steps of theirs are at hand to fit a term to. A step that waits for the host is timed too low (see `is_host_bound`).
"""

from collections.abc import Iterable
from typing import Any

from vramfit.cards import Card
from vramfit.prediction.constants import CONSTANTS, TimeConstants
from vramfit.prediction.trace_records import FROM_HOST, TO_HOST, Convolution, OperationRecord

# Operations that take the same time on any card, each once and with how often it comes.
Work = tuple[tuple[OperationRecord, int], ...]


def work_of(operations: Iterable[OperationRecord]) -> Work:
    """What of a step its time depends on: a network repeats few operations many times."""
    alike: dict[tuple[Any, ...], tuple[OperationRecord, int]] = {}
    for operation in operations:
        moved = operation.read_bytes + operation.written_bytes
        key = (operation.name, operation.dtype, operation.flops, moved, operation.convolution)
        first, times = alike.get(key, (operation, 0))
        alike[key] = first, times + 1
    return tuple(alike.values())


_FAST_GROUPS = 32


def step_time_s(operations: Iterable[OperationRecord], card: Card, constants: TimeConstants = CONSTANTS.time) -> float:
    """Seconds that one optimizer step's operations take on a card."""
    return work_time_s(work_of(operations), card, constants)


def work_time_s(work: Work, card: Card, constants: TimeConstants = CONSTANTS.time) -> float:
    """Seconds that a step's work takes on a card."""
    return max(_busy_s(work, card, constants), _launching_s(work, constants))


def growing_time_s(work: Work, card: Card, constants: TimeConstants = CONSTANTS.time) -> float:
    """Seconds of a step's work that grow with the batch: without starting kernels, which a large batch does as often.

    For choosing between ways to run one job by a small batch, which is quick to trace, where a large one will be run.
    """
    return work_time_s(work, card, constants.model_copy(update={"kernel_s": 0.0, "launch_s": 0.0}))


def is_host_bound(work: Work, card: Card, constants: TimeConstants = CONSTANTS.time) -> bool:
    """Whether a step is so small that its time is that of launching its operations, for which the card waits.

    Known limitation: operations are counted, of which some launch several kernels, and not what Python takes between
    them; so the time of such a step is too low.
    """
    return _busy_s(work, card, constants) < _launching_s(work, constants)


def _busy_s(work: Work, card: Card, constants: TimeConstants) -> float:
    return sum(times * operation_s(operation, card, constants) for operation, times in work)


def _launching_s(work: Work, constants: TimeConstants) -> float:
    return sum(times for _, times in work) * constants.launch_s


def operation_s(operation: OperationRecord, card: Card, constants: TimeConstants = CONSTANTS.time) -> float:
    """Seconds that one operation keeps the card busy."""
    if operation.name in (TO_HOST, FROM_HOST):
        return operation.written_bytes / bus_bytes_per_s(card)
    rate_share, bandwidth_share = constants.shares[kind_of(operation, tensor_cores=on_tensor_cores(operation, card))]
    computing = operation.flops / (rate(operation, card) * rate_share)
    moving = (operation.read_bytes + operation.written_bytes) / (card.bandwidth_bytes_per_s * bandwidth_share)
    return constants.kernel_s + max(computing, moving)


def bus_bytes_per_s(card: Card) -> float:
    """Bytes a second between a card and page-locked host memory: 3/4 of what 16 lanes of its PCIe carry each way.

    PCIe 3.0 before Ampere, 4.0 up to Ada, 5.0 since Hopper: 16, 32 and 64 GB/s. Not fitted: no such step was measured.
    """
    lanes_bytes_per_s = 64e9 if card.compute_capability >= (9, 0) else 32e9 if card.has_bf16 else 16e9
    return 0.75 * lanes_bytes_per_s


def rate(operation: OperationRecord, card: Card) -> float:
    """A card's peak rate for an operation's dtype, FLOP/s; float32 convolutions run in TF32 where the card has it."""
    if operation.dtype == "float16" or (operation.dtype == "bfloat16" and card.has_bf16):
        return card.fp16_flops
    return card.tf32_flops if _in_tf32(operation) else card.fp32_flops


def on_tensor_cores(operation: OperationRecord, card: Card) -> bool:
    """Whether a card's tensor cores compute an operation: fp16 everywhere, bf16 and TF32 since Ampere."""
    if operation.dtype == "float16":
        return card.has_tensor_cores
    return card.has_bf16 and (operation.dtype == "bfloat16" or _in_tf32(operation))


def _in_tf32(operation: OperationRecord) -> bool:
    return operation.dtype == "float32" and operation.convolution is not None


def kind_of(operation: OperationRecord, *, tensor_cores: bool = True) -> str:
    """What decides how close to its peak an operation comes."""
    if operation.convolution is not None:
        nhwc = operation.convolution.channels_last and tensor_cores
        odd = "odd " if nhwc and _is_oddly_grouped(operation.convolution) else ""
        return f"{odd}{_kernel(operation.convolution)} {'nhwc' if nhwc else 'nchw'}"
    if operation.flops:
        return "product"
    return "normalisation" if "_norm" in operation.name else "moving"


def _kernel(convolution: Convolution) -> str:
    if convolution.groups == 1:
        return "pointwise" if max(convolution.weight_shape[2:], default=1) == 1 else "dense"
    return "depthwise" if convolution.weight_shape[1] == 1 else "grouped"


def _is_oddly_grouped(convolution: Convolution) -> bool:
    """Whether it is grouped, and cuDNN has no fast kernel for so many groups: it has them for multiples of 32.

    As ResNeXt has them. Networks with groups of one width, and so any number of them (RegNet, NFNet), run several times
    slower in NHWC order (PyTorch issue 70954); that the bound is 32 is by the steps that were measured.
    """
    return _kernel(convolution) == "grouped" and convolution.groups % _FAST_GROUPS != 0
