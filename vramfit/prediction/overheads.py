"""Memory that no tensor of the step shows: the CUDA context and the workspaces of cuBLAS and cuDNN. Bytes.

The model, whose constants are in `constants.json` with what they were fitted to:

- context: what the driver and its libraries keep for a process, outside the allocator: code, by architecture; a stack
  of 1 KiB for every thread that the card can hold; page tables of its whole memory. What NVML shows as used is more by
  `Card.driver_reserve_bytes`; a job cannot use that, and no budget counts it.
- cuBLAS: one workspace for each thread that multiplies matrices (forward, backward), taken from the allocator at the
  first product and kept. cuBLASLt, which adds a bias to a product, takes 1 MiB more while it runs.
- cuDNN: a convolution may run by Winograd's algorithm, whose transforms of a 3x3 convolution's input and output take
  four times their bytes (F(2x2, 3x3): 16 values for every 4), or copy both to NHWC order, or need nothing. Which one
  is not known without the card, so a step is replayed with several parts of the most. A workspace is one block: it
  costs memory where it is larger than any block that lies free, which is what widens reserved memory. In half
  precision since Ampere, replays without any are nearest to what is measured.
- cuDNN on Hopper: known from recorded allocations; see `hopper_convolutions.py`.
  Half-precision networks on an H100 and an H200 still reserve some 2 % more than the replay with them.
- slack: float32 convolutional networks reserve a few percent more than the replay of their steps, by measurements whose
  loops are not known. Where the loop is known (BERT and T5 on Ada and Hopper) replays are exact to 0.1 %.
  With cudnn.benchmark the few percent stay in half precision too: without them, of 829 sizes that ran or had not run on
  an RTX 3090 88.1 % are told right, with them 95.3 %.
"""

from collections.abc import Iterable, Mapping, Sequence

from vramfit.cards import Card
from vramfit.prediction import hopper_convolutions
from vramfit.prediction.constants import CONSTANTS, ContextConstants, HiddenConstants, MemoryKind
from vramfit.prediction.reductions import staging_workspaces
from vramfit.prediction.trace_records import OperationRecord, Trace
from vramfit.units import KIB, MIB

# What NCCL takes of a card past torch: 110 MiB a communicator (M40, NVIDIA/nccl#34) to 688 MiB (four A100 with NVLink,
# NVIDIA/nccl#964).
NCCL_BYTES = (110 * MIB, 688 * MIB)
# CUBLAS_WORKSPACE_CONFIG as torch sets it: 2 x 4 MiB and 8 x 16 KiB, on Hopper 32 MiB.
_CUBLAS_BYTES = 2 * 4 * MIB + 8 * 16 * KIB
_CUBLAS_HOPPER_BYTES = 32 * MIB
_CUBLASLT_BYTES = MIB  # CUBLASLT_WORKSPACE_SIZE as torch sets it
_HOPPER = (9, 0)
_LAZY_LOADING = (11, 7)
_HALF = ("float16", "bfloat16")
_PRODUCTS = frozenset(("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "addbmm"))


def context_bytes(
    card: Card, cuda: tuple[int, int] | None = None, constants: ContextConstants = CONSTANTS.hidden.context
) -> int:
    """What the driver keeps for a process that uses CUDA on a card, outside the caching allocator.

    `cuda` is the version of the runtime; None for one that loads kernels when they are first used, 11.7 or later.
    """
    if cuda is not None and cuda < _LAZY_LOADING:
        return constants.eager_bytes
    base = constants.base_bytes.get(card.architecture)
    if base is None:
        return constants.assumed_bytes
    tables = round(constants.memory_share * card.memory_bytes)
    return base + constants.thread_bytes * card.resident_threads + tables


def memory_kind(operations: Iterable[OperationRecord]) -> MemoryKind:
    """What decides how close a replay comes: the precision and the kind of most of a step's arithmetic."""
    half = convolved = total = 0
    for operation in operations:
        total += operation.flops
        half += operation.flops if operation.dtype in _HALF else 0
        convolved += operation.flops if operation.convolution is not None else 0
    if 2 * half > total:
        return "half convolution" if 2 * convolved > total else "half other"
    return "float32 convolution" if 2 * convolved > total else "float32 other"


def cublas_bytes(card: Card) -> int:
    """One workspace of cuBLAS."""
    return _CUBLAS_HOPPER_BYTES if card.compute_capability == _HOPPER else _CUBLAS_BYTES


def slack(
    kind: MemoryKind, card: Card, *, benchmark: bool = False, hidden: HiddenConstants = CONSTANTS.hidden
) -> float:
    """What a run reserves over the replay of its steps, as a factor; kept at the most of what was seen."""
    seen = [hidden.slack[kind]]
    if benchmark:
        seen.append(hidden.benchmark_slack)
    if kind == "half convolution" and card.compute_capability == _HOPPER:
        seen.append(hidden.hopper_slack)
    return max(seen)


def kept_workspaces(trace: Trace, card: Card) -> dict[int, int]:
    """Event number -> bytes that cuBLAS takes there and keeps, at the first product of either pass."""
    kept: dict[int, int] = {}
    for phases in (("forward", "loss"), ("backward",)):
        first = next((op.position for op in trace.operations if op.name in _PRODUCTS and op.phase in phases), None)
        if first is not None:
            kept[first] = kept.get(first, 0) + cublas_bytes(card)
    return kept


def passing_workspaces(
    operations: Sequence[OperationRecord], card: Card, *, benchmark: bool, part: float = 1.0
) -> dict[int, int]:
    """Event number -> bytes that a kernel needs there while it runs: a convolution, a biased product, or a sum.

    Kernels between the same two events run in turn, and are taken to use one block, of the largest's size.
    """
    convolutions = convolution_workspaces(operations, benchmark=benchmark, part=part, card=card)
    biased = {op.position: _CUBLASLT_BYTES for op in operations if op.name == "addmm"}
    return _largest([convolutions, biased, staging_workspaces(operations, card)])


def convolution_workspaces(
    operations: Sequence[OperationRecord],
    *,
    benchmark: bool,
    part: float = 1.0,
    card: Card | None = None,
    constants: HiddenConstants = CONSTANTS.hidden,
) -> dict[int, int]:
    """Event number -> bytes that cuDNN needs there while a convolution runs.

    `benchmark` is cudnn.benchmark; `part` the part of the most that any of its algorithms takes, where that is not
    known; of a `card` that is not known the most of any is taken.
    """
    if card is not None and card.compute_capability == _HOPPER:
        return _largest(map(hopper_convolutions.workspaces, operations))
    return _largest(
        {op.position: round(part * workspace_bytes(op, benchmark=benchmark, card=card, constants=constants))}
        for op in operations
        if op.convolution is not None
    )


def _largest(taken: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """What is taken by event number; the most, where several are taken at one."""
    largest: dict[int, int] = {}
    for one in taken:
        for place, size in one.items():
            largest[place] = max(size, largest.get(place, 0))
    return largest


def workspace_bytes(
    operation: OperationRecord,
    *,
    benchmark: bool,
    card: Card | None = None,
    constants: HiddenConstants = CONSTANTS.hidden,
) -> int:
    """The most that cuDNN takes for one convolution: a share of the bytes of its input and output."""
    convolution = operation.convolution
    if convolution is None or convolution.groups > 1:
        return 0  # grouped and depthwise kernels work in place
    if benchmark:
        shares = constants.benchmark_share
    else:
        in_half = operation.dtype in _HALF and card is not None and card.has_bf16
        shares = constants.half_share if in_half else constants.heuristic_share
    layout = "nhwc" if convolution.channels_last else "nchw"
    kernel = "pointwise" if max(convolution.weight_shape[2:], default=1) == 1 else "spatial"
    return round(shares[f"{layout} {kernel}"] * convolution.image_bytes(operation.dtype))
