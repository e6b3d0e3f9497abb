"""Fourier transforms of float16, which a card has and a CPU has not.

A card keeps half precision (aten/src/ATen/native/SpectralOps.cpp, `promote_type_fft`): float16 becomes complex32, of
lengths that are powers of two alone (aten/src/ATen/native/cuda/CuFFTPlanCache.h). No device transforms bfloat16.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from vramfit.prediction.tracing.op_schema import operation

_ATEN = torch.ops.aten
_KINDS = ("fft", "ifft", "rfft", "ihfft", "hfft")
_HALF = (torch.float16, torch.complex32)
Kernel = Callable[..., Any]


def fourier_kernels() -> dict[str, Kernel]:
    """What a card runs for transforms of real numbers, by the operation's name."""
    return {f"fft_{kind}{dims}": _transform(f"fft_{kind}{dims}") for kind in _KINDS for dims in ("", "2", "n")}


def _transform(name: str) -> Kernel:
    op = operation(name)

    def kernel(value: Tensor, *args: Any, **kwargs: Any) -> Any:
        if value.dtype is torch.bfloat16:
            raise TypeError("no card has a Fourier transform of bfloat16: give it float32, as in x.float()")
        if value.dtype is not torch.float16:
            return op.decompose(value, *args, **kwargs)
        with _disable_current_modes():
            shape = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
            with _Parts() as parts:
                op(shape, *args, **kwargs)
        for part, others, named in parts.called:
            value = part(value, *others, **named)
        return value

    return kernel


class _Parts(TorchDispatchMode):
    """The operations that a transform of one tensor is composed of, each of the result of the one before."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.called: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.append((func, args[1:], kwargs or {}))
        return func(*args, **(kwargs or {}))


def _checked(meta: Kernel, lengths: Callable[..., list[int]]) -> Kernel:
    """What a transform returns, unless cuFFT refuses its lengths."""

    def checked(value: Tensor, dim: list[int], *args: Any) -> Tensor:
        sizes = lengths(value, dim, *args)
        if value.dtype in _HALF and any(size & (size - 1) for size in sizes):
            raise RuntimeError(
                f"cuFFT transforms half precision of lengths that are powers of two alone, and these are {sizes}: "
                "give it float32, as in x.float()"
            )
        result: Tensor = meta(value, dim, *args)
        return result

    return checked


def _lengths(value: Tensor, dim: list[int], *_: Any) -> list[int]:
    return [value.shape[number] for number in dim]


def _lengths_of_real(value: Tensor, dim: list[int], _norm: int, last: int) -> list[int]:
    return [*_lengths(value, dim[:-1]), last]


META_KERNELS: dict[Any, Kernel] = {
    _ATEN._fft_r2c.default: _checked(_ATEN._fft_r2c.default, _lengths),
    _ATEN._fft_c2c.default: _checked(_ATEN._fft_c2c.default, _lengths),
    _ATEN._fft_c2r.default: _checked(_ATEN._fft_c2r.default, _lengths_of_real),
}
