"""Address space that reads as zeros and holds no memory: what lies behind the storage of a traced tensor.

All traced storages begin at the same reserved address. Whoever reads one past the tracer (a compiled function, a
C extension, a pointer) finds zeros in place of a segmentation fault; whoever writes commits pages of this process,
which `release` gives back. Where the system cannot reserve so much (Windows), such a storage has no address at all.
"""

import mmap
import sys
from functools import cache

import torch
from torch import Tensor

_SPAN_BYTES = 1 << 44  # more than any card's memory; x86-64 has 2**47 for a process
# Kept, for a script that is traced is told other addresses.
_data_ptr = torch.UntypedStorage.data_ptr
_NO_RESERVE = {"linux": 0x4000, "darwin": 0x40}  # mmap.MAP_NORESERVE, which Python names since 3.13


class _Nothing(Tensor):
    """Only ever a source of storages that have a size and no memory."""

    @classmethod
    def __torch_dispatch__(cls, func: object, types: object, args: object = (), kwargs: object = None) -> object:  # type: ignore[override]  # torch's stub lacks func
        raise AssertionError("no operation runs on it")


def reserve(size_bytes: int) -> torch.UntypedStorage:
    """A storage of the given size that holds no memory; each call makes another one."""
    if size_bytes == 0:
        return torch.UntypedStorage(0)
    space = _space()
    if space is None or not 0 < size_bytes <= _SPAN_BYTES:
        source = Tensor._make_wrapper_subclass(_Nothing, (size_bytes,), dtype=torch.uint8, device=torch.device("cpu"))
        return source.untyped_storage()
    return torch.frombuffer(space, dtype=torch.uint8, count=size_bytes).untyped_storage()


def is_reserved(storage: torch.UntypedStorage) -> bool:
    """Whether a storage is one that `reserve` made, and so holds no values."""
    if storage.nbytes() == 0:
        return False
    try:
        return _data_ptr(storage) == _address()
    except RuntimeError:  # it has no address at all
        return True


def has_no_memory(tensor: Tensor) -> bool:
    """Whether a tensor's values lie in address space that `reserve` made; those of a sparse one count as such."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.layout is not torch.strided or is_reserved(tensor.untyped_storage())


def release() -> None:
    """Give back what was written into the reserved address space."""
    space = _space()
    if space is not None:
        space.madvise(mmap.MADV_DONTNEED)


@cache
def _address() -> int:
    space = _space()
    return 0 if space is None else _data_ptr(torch.frombuffer(space, dtype=torch.uint8, count=1).untyped_storage())


@cache
def _space() -> mmap.mmap | None:
    flag = _NO_RESERVE.get(sys.platform)
    if flag is None:
        return None
    try:
        return mmap.mmap(-1, _SPAN_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flag)
    except OSError:
        return None
