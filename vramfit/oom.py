"""What counts as running out of GPU memory, and cleaning up after it.

A caught error's traceback keeps every tensor of the failed step alive. So set a flag inside the `except`,
leave it, and only then call `release_memory`.
"""

import gc

# Libraries report a failed allocation in their own words. "illegal memory access" is none of these:
# it poisons the process, and no smaller batch mends it.
_OOM_MESSAGES = (
    "out of memory",
    "_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSPARSE, cuSOLVER and cuFFT
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "unable to find an engine to execute this computation",
    "can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
_POISON = "illegal memory access"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an allocation that failed, in any of its forms.

    Covers `torch.OutOfMemoryError` and the `RuntimeError`s of the CUDA runtime, cuBLAS and cuDNN.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    if isinstance(error, MemoryError):
        return True
    message = str(error)
    if not isinstance(error, RuntimeError) or _POISON in message:
        return False
    return any(known.lower() in message.lower() for known in _OOM_MESSAGES)


def release_memory() -> None:
    """Collect garbage and hand cached blocks back to the driver; call it outside the `except`."""
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
