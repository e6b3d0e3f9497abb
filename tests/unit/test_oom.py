import pytest
import torch

from vramfit.errors import OutOfMemory, UsageError
from vramfit.oom import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        RuntimeError(
            "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input"
        ),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError(
            'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1123, please report'
        ),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 MB)"),
        RuntimeError("Invalid buffer size: 16.00 GB"),
        RuntimeError("FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::268435456 (256)MB"),
        RuntimeError("NCCL Error 1: unhandled cuda error. Last error: Cuda failure 2 'out of memory'"),
        OutOfMemory("out of memory in the forward of epoch 1, step 1, with a micro-batch of 1; free memory."),
    ],
)
def test_every_form_of_running_out_is_one(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
        RuntimeError("CUDA error: device-side assert triggered"),
        UsageError("the network has no parameters that learn"),
    ],
)
def test_other_errors_are_none(error):
    assert not is_out_of_memory(error)


def raised(act):
    try:
        act()
    except BaseException as error:  # whatever it is
        return error
    raise AssertionError


def handle(inner, outer, *, cause):
    try:
        raise inner
    except Exception as error:
        if cause == "from":
            raise outer from error
        if cause == "from None":
            raise outer from None
        raise outer  # noqa: B904  # code that handles one error and meets another


OOM = torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    ("inner", "outer", "cause", "is_one"),
    [
        (OOM, ValueError("training failed"), "from", True),
        (OOM, KeyError("while it was handled"), "context", True),
        (OOM, ValueError("mine alone"), "from None", False),
        (OOM, KeyboardInterrupt(), "context", False),
        (OOM, RuntimeError("CUDA error: an illegal memory access was encountered"), "from", False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), OOM, "from", False),
        (ValueError("no"), RuntimeError("nor this"), "from", False),
    ],
)
def test_an_error_that_was_raised_because_of_one_is_one(inner, outer, cause, is_one):
    error = raised(lambda: handle(inner, outer, cause=cause))
    assert is_out_of_memory(error) == is_one


def test_errors_that_are_each_others_cause_end():
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert not is_out_of_memory(one)
