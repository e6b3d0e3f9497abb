"""Memory that no tensor of the step shows: the CUDA context and the workspaces of cuBLAS and cuDNN. Bytes.

The model, whose constants are in `constants.json` with what they were fitted to:

- context: what the driver and its libraries keep for a process, by architecture; outside the allocator.
- cuBLAS: one workspace for each thread that multiplies matrices (forward, backward), taken from the allocator at the
  first product and kept.
- cuDNN: a convolution may run by Winograd's algorithm, whose transforms of a 3x3 convolution's input and output take
  four times their bytes (F(2x2, 3x3): 16 values for every 4), or copy both to NHWC order, or need nothing. Which one
  is not known without the card, so a step is replayed with several parts of the most. A workspace is one block: it
  costs memory where it is larger than any block that lies free, which is what widens reserved memory.
- slack: a run reserves a few percent more than the replay of its steps; the reason is not known, convolutional networks
  show it and transformers hardly do.
"""

from collections.abc import Sequence

from vramfit.cards import Card
from vramfit.prediction.constants import CONSTANTS, HiddenConstants
from vramfit.prediction.trace_records import OperationRecord, Trace
from vramfit.units import KIB, MIB

# CUBLAS_WORKSPACE_CONFIG as torch sets it: 2 x 4 MiB and 8 x 16 KiB, on Hopper 32 MiB.
_CUBLAS_BYTES = 2 * 4 * MIB + 8 * 16 * KIB
_CUBLAS_HOPPER_BYTES = 32 * MIB
_HOPPER = (9, 0)
_PRODUCTS = frozenset(("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "addbmm"))


def context_bytes(card: Card, constants: HiddenConstants = CONSTANTS.hidden) -> int:
    """What the driver keeps for a process that uses CUDA on a card, outside the caching allocator."""
    return constants.context_bytes.get(card.architecture.lower(), constants.context_bytes["other"])


def cublas_bytes(card: Card) -> int:
    """One workspace of cuBLAS."""
    return _CUBLAS_HOPPER_BYTES if card.compute_capability == _HOPPER else _CUBLAS_BYTES


def kept_workspaces(trace: Trace, card: Card) -> dict[int, int]:
    """Event number -> bytes that cuBLAS takes there and keeps, at the first product of either pass."""
    kept: dict[int, int] = {}
    for phases in (("forward", "loss"), ("backward",)):
        first = next((op.position for op in trace.operations if op.name in _PRODUCTS and op.phase in phases), None)
        if first is not None:
            kept[first] = kept.get(first, 0) + cublas_bytes(card)
    return kept


def convolution_workspaces(
    operations: Sequence[OperationRecord],
    *,
    benchmark: bool,
    part: float = 1.0,
    constants: HiddenConstants = CONSTANTS.hidden,
) -> dict[int, int]:
    """Event number -> bytes that cuDNN needs there while a convolution runs.

    `benchmark` is cudnn.benchmark; `part` the part of the most that any of its algorithms takes.
    """
    return {
        op.position: round(part * workspace_bytes(op, benchmark=benchmark, constants=constants))
        for op in operations
        if op.convolution is not None
    }


def workspace_bytes(
    operation: OperationRecord, *, benchmark: bool, constants: HiddenConstants = CONSTANTS.hidden
) -> int:
    """The most that cuDNN takes for one convolution: a share of the bytes of its input and output."""
    convolution = operation.convolution
    if convolution is None or convolution.groups > 1:
        return 0  # grouped and depthwise kernels work in place
    shares = constants.benchmark_share if benchmark else constants.heuristic_share
    layout = "nhwc" if convolution.channels_last else "nchw"
    kernel = "pointwise" if max(convolution.weight_shape[2:], default=1) == 1 else "spatial"
    return round(shares[f"{layout} {kernel}"] * convolution.image_bytes(operation.dtype))
