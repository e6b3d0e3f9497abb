"""Cross-entropy in parts: N tokens, V classes.

What torch keeps of N x V logits in half precision is their float32 copy, the logarithm of their softmax and two
gradients, 14 bytes a logit in all. Here a backward pass goes through the tokens in parts again and writes the gradient
in the dtype of the logits: 4 bytes, and a part in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vramfit.jobs.batch import IGNORED
from vramfit.jobs.wrapped_forward import WrappedForward

_DEFAULTS = {"weight": None, "size_average": None, "ignore_index": IGNORED, "reduce": None, "label_smoothing": 0.0}
# Logits of one part: 64 MiB in float32.
_PART = 1 << 24


def chunked_cross_entropy(logits: Tensor, targets: Tensor, terms: Tensor | float | None = None) -> Tensor:
    """The mean cross-entropy of NxV logits, any floating dtype, and N int64 classes of which -100 are left out.

    Args:
        logits: NxV; other shapes go to torch's own function.
        targets: N class numbers.
        terms: what the sum is divided by, None for the targets that count.

    Known limitation: it has no second derivative.
    """
    if logits.dim() != 2 or targets.dim() != 1 or targets.is_floating_point():
        plain: Tensor = F.cross_entropy(logits, targets)
        return plain
    count: Any = terms if terms is not None else (targets != IGNORED).sum()
    with torch.autocast(logits.device.type, enabled=False):
        total: Any = _SumOfCrossEntropy.apply(logits, targets)
        mean: Tensor = total / count
    return mean


def causal_loss(
    logits: Tensor,
    labels: Tensor | None,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = IGNORED,
    **others: Any,
) -> Tensor:
    """The loss of a causal language model, as transformers' `ForCausalLMLoss` has it: each token predicts the next."""
    shift_labels: Tensor | None = others.get("shift_labels")
    if shift_labels is None:
        assert labels is not None
        shift_labels = F.pad(labels, (0, 1), value=ignore_index)[..., 1:].contiguous()
    targets = shift_labels.reshape(-1).to(logits.device)
    targets = targets if ignore_index == IGNORED else targets.masked_fill(targets == ignore_index, IGNORED)
    return chunked_cross_entropy(logits.reshape(-1, vocab_size), targets, num_items_in_batch)


class InParts(TorchFunctionMode):
    """Within it, torch's cross-entropy of NxV logits goes through the tokens in parts."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The call, or its place taken."""
        run = _cross_entropy if func is F.cross_entropy else func
        return run(*args, **(kwargs or {}))


@dataclass(frozen=True)
class LossInParts:
    """A loss whose cross-entropy goes through the tokens in parts; pickles where the loss does."""

    loss: Callable[[Any, Any], Tensor]

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The loss."""
        with InParts():
            return self.loss(outputs, targets)


class ForwardInParts(WrappedForward):
    """The forward of a network that computes its loss: with cross-entropy in parts."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the network's own forward returns."""
        with InParts():
            return self.own(*args, **kwargs)


def uses_cross_entropy(loss: Any) -> bool:
    """Whether a loss is torch's cross-entropy, or a function whose code names it."""
    if isinstance(loss, partial):
        return uses_cross_entropy(loss.func)
    names = getattr(getattr(loss, "__code__", None), "co_names", ())
    return isinstance(loss, nn.CrossEntropyLoss) or loss is F.cross_entropy or "cross_entropy" in names


def models_with_loss(model: nn.Module) -> list[Any]:
    """The parts of a network that are causal language models of Hugging Face."""
    return [part for part in model.modules() if getattr(_loss_function(part), "__name__", "") == "ForCausalLMLoss"]


def _loss_function(part: Any) -> Any:
    """What transformers chose for a model with an output of its own; None for any other."""
    has_loss = hasattr(type(part), "loss_function") and part.get_output_embeddings() is not None
    return part.loss_function if has_loss else None


def _cross_entropy(logits: Tensor, targets: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Torch's function where anything is asked but the mean or the sum over rows that are not -100."""
    others = {name: value for name, value in kwargs.items() if value != _DEFAULTS.get(name, ...)}
    reduction = others.pop("reduction", "mean")
    if args or others or logits.dim() != 2 or targets.dim() != 1 or reduction not in ("mean", "sum"):
        plain: Tensor = F.cross_entropy(logits, targets, *args, **kwargs)
        return plain
    return chunked_cross_entropy(logits, targets, 1.0 if reduction == "sum" else None)


class _SumOfCrossEntropy(torch.autograd.Function):
    """The sum over the tokens that count; a part's softmax is computed anew for its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        parts = zip(_parts(logits), _parts(targets, logits), strict=True)
        sums = [F.cross_entropy(one.float(), target, reduction="sum") for one, target in parts]
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for one, target, into in zip(_parts(logits), _parts(targets, logits), _parts(gradient), strict=True):
            into.copy_(_gradient(one, target).mul_(upstream[0]))
        return gradient, None


def _gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Of the sum: softmax less one at the target, zero where a token does not count; float32."""
    counts = targets != IGNORED
    softmax = logits.float().softmax(-1)
    softmax.scatter_add_(1, targets.clamp(min=0)[:, None], -torch.ones_like(targets, dtype=softmax.dtype)[:, None])
    return softmax.mul_(counts[:, None])


def _parts(value: Tensor, like: Tensor | None = None) -> tuple[Tensor, ...]:
    """Rows in parts of so many logits."""
    rows = max(1, _PART // (value if like is None else like).shape[1])
    parts: tuple[Tensor, ...] = value.split(rows)
    return parts
