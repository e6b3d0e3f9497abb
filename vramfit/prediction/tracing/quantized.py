"""Products with quantized weights, as bitsandbytes 0.50 runs them on CUDA: bytes beside the results, and FLOP.

With more than a few rows a 4-bit weight is dequantized whole, in the dtype of the product, and dropped after it
(backends/cuda/ops.py `gemm_4bit`), and so are its scales, which are quantized themselves as QLoRA has them. An 8-bit
product is summed in int32 before it is scaled (`int8_scaled_mm`).

Known limitation: between 9 and 1536 rows bitsandbytes chooses by card and shape; the larger of its two ways is taken.
"""

from collections.abc import Callable
from math import prod
from typing import Any

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


def flops_of_product(name: str, args: tuple[Any, ...]) -> int:
    """FLOP of a product with a quantized weight, by the operation's name; 0 for any other operation."""
    if name == "bitsandbytes::gemm_4bit":
        return 2 * int(args[0].shape[:-1].numel()) * int(prod(args[2]))
    if name in WORKSPACES:
        first = int(name.endswith("mixed_scaled_mm"))
        rows, weights = args[first].shape[:-1].numel(), args[first + 1].numel()
        return 2 * int(rows) * int(weights)
    return 0
