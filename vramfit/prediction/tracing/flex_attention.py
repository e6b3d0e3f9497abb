"""`flex_attention` as a card runs it: compiled into one kernel, which keeps its output and the sums of its softmax.

The kernel is torch's Triton template (torch/_inductor/kernel/flex): forward it writes the output and, of each query,
the logarithm of its softmax's sum in float32; backward it needs these, and a product of output and gradient of the
same size. The memory-efficient kernel of `scaled_dot_product_attention` keeps the same and stands for it here. Scores
are never held, whatever `score_mod` and `mask_mod` do to them.

Known limitations: a call that is not compiled holds all scores on a card, and is predicted as if it were; FLOP are
those of attention without a mask; tensors that `score_mod` captures get gradients, and what it computes from them takes
no memory.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vramfit.prediction.tracing.swapping import swap

_FUSED = "flex_attention is compiled into one kernel"
_ATEN = torch.ops.aten


@contextmanager
def fused_flex_attention(note: Callable[[str], None]) -> Iterator[None]:
    """Within it, flex_attention runs fused, and `note` is told so."""
    module = sys.modules.get("torch.nn.attention.flex_attention")
    replacements = {
        "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG": True,  # else it compiles itself
        "_validate_device": lambda *_: None,  # of a query whose device C++ tells, which is a CPU that trains none
        "setup_compilation_env": lambda: nullcontext("eager"),
        "flex_attention_hop": partial(_fused, note),
    }
    with ExitStack() as stack:
        for name, value in replacements.items():
            if hasattr(module, name):
                swap(stack, module, name, value)
        yield


def _fused(note: Callable[[str], None], query: Tensor, key: Tensor, value: Tensor, score_mod: Any, *rest: Any) -> Any:
    """Output, sums of the softmax and no largest scores, of BNLE queries over BNSE keys and values."""
    note(_FUSED)
    scale = rest[1] if len(rest) > 1 else None
    query, key, value = (_cast(part) for part in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # views that take no memory: the kernel reads each head of keys for several of queries
        key, value = (part[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for part in (key, value))
    attention = _ATEN._scaled_dot_product_efficient_attention.default
    needs_sums = torch.is_grad_enabled()
    output, sums, *_ = attention(query, key, value, None, needs_sums, 0.0, False, scale=scale)
    captured = [cell.cell_contents for cell in getattr(score_mod, "__closure__", None) or ()]
    learned = [one for one in captured if isinstance(one, Tensor) and one.requires_grad]
    output = _Captured.apply(output, *learned) if learned else output
    return output, sums, query.new_empty(0)


def _cast(part: Tensor) -> Tensor:
    return part.to(torch.get_autocast_dtype("cuda")) if torch.is_autocast_enabled("cuda") else part


class _Captured(torch.autograd.Function):
    """Gives what a score_mod captured its gradients."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, *captured: Tensor) -> Tensor:  # torch's own names
        ctx.save_for_backward(*captured)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.empty_like(one) for one in ctx.saved_tensors)
