"""Floating-point operations of an operation, a multiply-add counted as two; torch's own formulas."""

from typing import Any

from torch.utils.flop_counter import flop_registry


def flops_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """FLOP of matrix products, convolutions and attention; 0 for what only moves bytes."""
    formula = flop_registry.get(func.overloadpacket)
    return int(formula(*args, **kwargs, out_val=out)) if formula else 0
