"""Adaptive wing loss with its weight map, for heatmaps (Wang, Bo and Fuxin, ICCV 2019).

B batch, K landmarks, h w heatmap pixels. With d = |target - prediction|, y = target, epsilon = 1:

    d < theta: omega ln(1 + d^(alpha - y))          slope omega (alpha - y) d^(alpha - y - 1) / (1 + d^(alpha - y))
    else:      A d - C                              slope A

    A = omega (alpha - y) theta^(alpha - y - 1) / (1 + theta^(alpha - y))
    C = theta A - omega ln(1 + theta^(alpha - y))

times 10 M + 1, where M is 1 if the 3x3 grey dilation of the target exceeds 0.2.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

OMEGA, THETA, ALPHA = 14.0, 0.5, 2.1
MAP_WEIGHT, MAP_THRESHOLD = 10.0, 0.2

# Elements of each sample worked on at once. A dozen temporaries of this many float32 are 6 MiB a sample; the number
# of pieces must not depend on the batch, or memory would not grow along a straight line with it.
_CHUNK_ELEMENTS = 2**17


def adaptive_wing(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean adaptive wing loss of heatmaps, in float32 or wider.

    The gradient is analytic and is worked out in pieces: backward keeps prediction and target, nothing else.

    Args:
        prediction: BxKxhxw, any floating type.
        target: BxKxhxw in [0, 1], float32 or wider; takes no gradient.
        weights: BxK, 0 for a missing landmark; None means 1 for all.

    Returns:
        A scalar, the mean over all BxKxhxw elements. Missing landmarks count as zeros, so the mean over a
        batch is the mean of the means of its equal parts.

    """
    if weights is None:
        weights = torch.ones(target.shape[:2], dtype=target.dtype, device=target.device)
    loss: Tensor = _AdaptiveWing.apply(prediction, target, weights)
    return loss


class _AdaptiveWing(torch.autograd.Function):
    """Adaptive wing over BxKxhxw heatmaps, part by part."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(prediction, target, weights)
        total = torch.zeros((), dtype=_wide(target), device=target.device)
        for part in _parts(target):
            p, y, w = _piece(part, prediction, target, weights)
            total += _value(p, y).mul_(_weight_map(y)).sum(dim=(2, 3)).mul_(w).sum()
        return total / target.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        prediction, target, weights = ctx.saved_tensors
        scale = gradients[0] / target.numel()
        result = torch.empty_like(prediction)
        for part in _parts(target):
            p, y, w = _piece(part, prediction, target, weights)
            result[part] = _slope(p, y).mul_(_weight_map(y)).mul_((w * scale)[:, :, None, None])
        return result, None, None


def _parts(target: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of the landmarks of all samples."""
    _, landmarks, height, width = target.shape
    planes = max(1, _CHUNK_ELEMENTS // (height * width))
    for plane in range(0, landmarks, planes):
        yield slice(None), slice(plane, plane + planes)


def _piece(
    part: tuple[slice, slice], prediction: Tensor, target: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    wide = _wide(target)
    # A prediction in NHWC order is brought into the target's order, a piece at a time.
    p = prediction[part].to(wide, memory_format=torch.contiguous_format)
    return p, target[part].to(wide), weights[part].to(wide)


def _wide(target: Tensor) -> torch.dtype:
    return torch.promote_types(target.dtype, torch.float32)


def _weight_map(y: Tensor) -> Tensor:
    dilated = F.max_pool2d(y, kernel_size=3, stride=1, padding=1)
    return (dilated > MAP_THRESHOLD).to(y.dtype).mul_(MAP_WEIGHT).add_(1)


def _value(p: Tensor, y: Tensor) -> Tensor:
    distance = (p - y).abs_()
    slope, offset = _line(y)
    curve = OMEGA * torch.log1p(distance.pow(ALPHA - y))
    return torch.where(distance < THETA, curve, slope * distance - offset)


def _slope(p: Tensor, y: Tensor) -> Tensor:
    difference = p - y
    distance = difference.abs()
    power = ALPHA - y
    curve = OMEGA * power * distance.pow(power - 1) / (1 + distance.pow(power))
    line, _ = _line(y)
    return torch.where(distance < THETA, curve, line).mul_(difference.sign_())


def _line(y: Tensor) -> tuple[Tensor, Tensor]:
    power = ALPHA - y
    at_theta = torch.pow(THETA, power)
    slope = OMEGA * power * at_theta / THETA / (1 + at_theta)
    return slope, THETA * slope - OMEGA * torch.log1p(at_theta)
