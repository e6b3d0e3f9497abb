"""What counts as running out of accelerator memory, and cleaning up after it.

A caught error's traceback keeps every tensor of the failed step alive. So set a flag inside the `except`,
leave it, and only then call `release_memory`.
"""

import gc
from collections.abc import Iterator

from vramfit.errors import OutOfMemory

# Libraries report a failed allocation in their own words. "illegal memory access" is none of these:
# it poisons the process, and no smaller batch mends it.
_OOM_MESSAGES = (
    "out of memory",  # CUDA, HIP, XPU, MPS and NPU; NCCL, which quotes CUDA
    "_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSPARSE, cuSOLVER and cuFFT
    "cudaErrorMemoryAllocation",
    # A handle is made at its library's first call, and takes memory that a full card does not have.
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUSOLVER_STATUS_NOT_INITIALIZED",
    "CUSPARSE_STATUS_INSUFFICIENT_RESOURCES",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "unable to find an engine to execute this computation",
    # The allocator asks NVML only to word its OOM, and asserts that the answer came.
    "NVML_SUCCESS == r",
    "rocblas_status_memory_error",
    "MODULE:PT_DEVMEM Allocation failed",  # Gaudi (HPU)
    "ERROR_OUT_OF_DEVICE_MEMORY",  # Intel's XPU: Level Zero, unified runtime
    "ERROR_OUT_OF_HOST_MEMORY",
    "ERROR_OUT_OF_RESOURCES",
    "Invalid buffer size",  # Metal (MPS): one tensor beyond what it can hold
    "can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
_POISON = ("illegal memory access", "device-side assert")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocation that failed, in any of its forms, or was raised because of one.

    Covers `torch.OutOfMemoryError`, our own `OutOfMemory`, and the `RuntimeError`s of the CUDA runtime, cuBLAS, cuDNN,
    NVML, HIP, XPU, MPS and HPU; and the errors that other code raised from one (`__cause__`) or while it handled one
    (`__context__`, unless it wrote `from None`). A broken CUDA context anywhere among them is none.
    """
    if not isinstance(error, Exception):
        return False  # an interrupt while an OOM is handled stays an interrupt
    chain = list(_with_causes(error))
    return not any(_is_poison(one) for one in chain) and any(_is_allocation_failure(one) for one in chain)


def release_memory() -> None:
    """Collect garbage and hand cached blocks back to the driver; call it outside the `except`."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    elif torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those it came from, as a traceback would show them."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _is_poison(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _POISON)


def _is_allocation_failure(error: BaseException) -> bool:
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError, OutOfMemory)):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(known.lower() in message for known in _OOM_MESSAGES)
