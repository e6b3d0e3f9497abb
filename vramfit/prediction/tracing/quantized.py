"""Products with quantized weights, as bitsandbytes 0.50 runs them on CUDA: bytes beside the results, and FLOP.

With more than a few rows a 4-bit weight is dequantized whole, in the dtype of the product, and dropped after it
(backends/cuda/ops.py `gemm_4bit`), and so are its scales, which are quantized themselves as QLoRA has them. An 8-bit
product is summed in int32 before it is scaled (`int8_scaled_mm`).

Known limitation: between 9 and 1536 rows bitsandbytes chooses by card and shape; the larger of its two ways is taken.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

_FEW_ROWS = 8
_INT32_BYTES = _FLOAT_BYTES = 4


def _gemm_4bit(args: tuple[Any, ...]) -> list[int]:
    value, _, shape, _, block = args[:5]
    if value.shape[:-1].numel() <= _FEW_ROWS:
        return []
    return [prod(shape) * value.element_size(), prod(shape) // block * _FLOAT_BYTES]


def _int8_product(args: tuple[Any, ...]) -> list[int]:
    quantized, weight = args[0], args[1]
    return [quantized.shape[:-1].numel() * weight.shape[0] * _INT32_BYTES]


def _int8_mixed_product(args: tuple[Any, ...]) -> list[int]:
    return _int8_product(args[1:])


WORKSPACES: dict[str, Callable[[tuple[Any, ...]], list[int]]] = {
    "bitsandbytes::gemm_4bit": _gemm_4bit,
    "bitsandbytes::int8_scaled_mm": _int8_product,
    "bitsandbytes::int8_mixed_scaled_mm": _int8_mixed_product,
}


def _quantized_rows(args: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bytes, a scale for each row, and the columns that are left out for their outliers: none."""
    value, threshold = args[0], args[1] if len(args) > 1 else 0.0
    zero = torch.zeros((), dtype=torch.int8)
    rows = torch.zeros(()).expand(value.numel() // value.shape[-1])
    return zero.expand(value.shape), rows, torch.zeros(0, dtype=torch.int64) if threshold else None


def _mixed_product(args: tuple[Any, ...]) -> tuple[Tensor, None]:
    value, quantized, weight = args[:3]
    return torch.zeros((), dtype=value.dtype).expand(*quantized.shape[:-1], weight.shape[0]), None


# What operations return whose results have as many elements as there are columns with outliers (LLM.int8).
OUTLIERS = "no column of an 8-bit product has outliers"
WITHOUT_OUTLIERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "bitsandbytes::int8_vectorwise_quant": _quantized_rows,
    "bitsandbytes::int8_mixed_scaled_mm": _mixed_product,
}


def flops_of_product(name: str, args: tuple[Any, ...]) -> int:
    """FLOP of a product with a quantized weight, by the operation's name; 0 for any other operation."""
    if name == "bitsandbytes::gemm_4bit":
        return 2 * int(args[0].shape[:-1].numel()) * int(prod(args[2]))
    if name in WORKSPACES:
        first = int(name.endswith("mixed_scaled_mm"))
        rows, weights = args[first].shape[:-1].numel(), args[first + 1].numel()
        return 2 * int(rows) * int(weights)
    return 0
