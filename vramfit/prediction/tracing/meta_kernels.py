"""Shapes of results that torch's own meta kernels refuse to tell, of operations that a card runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.recurrent import META_KERNELS as RECURRENT

_ATEN = torch.ops.aten


def _grouped_mm(
    a: Tensor,
    b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,  # noqa: ARG001  # the signature of torch's own
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Products of groups of rows, of columns or of whole matrices, in any floating dtype; torch's takes half alone.

    [M, K] x [G, K, N] -> [M, N]; [M, K] x [K, N] -> [G, M, N]; [G, M, K] x [K, N] -> [M, N]; [G, M, K] x [G, K, N].
    """
    rows, columns = a.shape[-2], b.shape[-1]
    if a.dim() == b.dim():
        groups = [a.shape[0]] if a.dim() == 3 else [] if offs is None else [offs.shape[0]]
        return a.new_empty([*groups, rows, columns], dtype=out_dtype or a.dtype)
    return a.new_empty([rows, columns], dtype=out_dtype or a.dtype)


META_KERNELS: dict[Any, Callable[..., Any]] = {**RECURRENT, _ATEN._grouped_mm.default: _grouped_mm}
