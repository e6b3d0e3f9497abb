"""From heatmaps back to points.

B batch, K landmarks, h w heatmap pixels.
`dark` is the distribution-aware decoding of Zhang et al. (CVPR 2020): blur, L = ln max(H, 1e-10), and one Newton step
-Hessian^-1 gradient from the highest pixel. `soft` is a centre of mass in a window around the highest pixel; over the
whole heatmap a flat background would pull it away. `argmax` is the highest pixel.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vramfit.landmarks.model.heatmap import to_image

Method = Literal["dark", "argmax", "soft"]

_BLUR_SIGMA, _BLUR_RADIUS = 1.5, 5
_BORDER = 2
_LARGEST_STEP = 1.0
_SOFT_RADIUS = 3


def decode(heatmaps: Tensor, stride: int, method: Method = "dark") -> tuple[Tensor, Tensor]:
    """Points and how sure they are.

    Args:
        heatmaps: BxKxhxw, any floating type.
        stride: image pixels to a heatmap pixel.
        method: how to find the point between pixels.

    Returns:
        points float32 BxKx2, (x, y) in image pixels; confidence float32 BxK, the heatmap's highest value, 0 to 1.

    """
    heatmaps = heatmaps.detach().float()
    confidence = heatmaps.flatten(2).amax(dim=2).clamp(0, 1)
    if method == "argmax":
        return to_image(_highest(heatmaps).float(), stride), confidence
    if method == "soft":
        return to_image(_soft(heatmaps), stride), confidence
    return to_image(_dark(_blurred(heatmaps)), stride), confidence


def half_area(heatmaps: Tensor, stride: int) -> Tensor:
    """The area on which each heatmap is at least half as high as its highest pixel.

    It grows where a peak is wide, and where there are several.

    Args:
        heatmaps: BxKxhxw.
        stride: image pixels to a heatmap pixel.

    Returns:
        float32 BxK, in square image pixels.

    """
    flat = heatmaps.detach().float().flatten(2)
    return (flat >= flat.amax(dim=2, keepdim=True) / 2).sum(dim=2).float() * stride**2


def _highest(heatmaps: Tensor) -> Tensor:
    """(x, y) of the highest pixel, int64 BxKx2."""
    place = heatmaps.flatten(2).argmax(dim=2)
    width = heatmaps.shape[3]
    return torch.stack([place % width, place // width], dim=-1)


def _blurred(heatmaps: Tensor) -> Tensor:
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, dtype=torch.float32, device=heatmaps.device)
    kernel = torch.exp(-0.5 * (offsets / _BLUR_SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    planes = F.pad(heatmaps.flatten(0, 1).unsqueeze(1), (_BLUR_RADIUS,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes.view_as(heatmaps)


def _dark(heatmaps: Tensor) -> Tensor:
    peak = _highest(heatmaps)
    x, y = peak.unbind(dim=-1)
    height, width = heatmaps.shape[2:]
    log = _around(heatmaps, peak, 2).clamp_min(1e-10).log()
    # log[..., 2 + dy, 2 + dx]; central differences as in the paper's reference.
    dx, dy = 0.5 * (log[..., 2, 3] - log[..., 2, 1]), 0.5 * (log[..., 3, 2] - log[..., 1, 2])
    dxx = 0.25 * (log[..., 2, 4] - 2 * log[..., 2, 2] + log[..., 2, 0])
    dyy = 0.25 * (log[..., 4, 2] - 2 * log[..., 2, 2] + log[..., 0, 2])
    dxy = 0.25 * (log[..., 3, 3] - log[..., 1, 3] - log[..., 3, 1] + log[..., 1, 1])
    determinant = dxx * dyy - dxy * dxy
    sound = (determinant > 1e-12) & (x >= _BORDER) & (x < width - _BORDER) & (y >= _BORDER) & (y < height - _BORDER)
    safe = torch.where(sound, determinant, 1.0)
    step = -torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], dim=-1) / safe.unsqueeze(-1)
    step = step.clamp(-_LARGEST_STEP, _LARGEST_STEP)
    return peak + torch.where(sound.unsqueeze(-1), step, 0.0)


def _soft(heatmaps: Tensor) -> Tensor:
    peak = _highest(heatmaps)
    window = _around(heatmaps, peak, _SOFT_RADIUS).clamp_min(0)
    offsets = torch.arange(-_SOFT_RADIUS, _SOFT_RADIUS + 1, dtype=torch.float32, device=heatmaps.device)
    mass = window.sum(dim=(2, 3)).clamp_min(1e-10)
    across = (window.sum(dim=2) * offsets).sum(dim=2) / mass
    down = (window.sum(dim=3) * offsets).sum(dim=2) / mass
    return peak + torch.stack([across, down], dim=-1)


def _around(heatmaps: Tensor, peak: Tensor, radius: int) -> Tensor:
    """The square around each peak, BxKx(2r+1)x(2r+1); beyond the border its edge is repeated."""
    batch, landmarks, height, width = heatmaps.shape
    offsets = torch.arange(-radius, radius + 1, device=heatmaps.device)
    columns = (peak[..., 0, None] + offsets).clamp(0, width - 1)
    rows = (peak[..., 1, None] + offsets).clamp(0, height - 1)
    places = rows.unsqueeze(-1) * width + columns.unsqueeze(-2)
    found = heatmaps.flatten(2).gather(2, places.flatten(2))
    return found.view(batch, landmarks, 2 * radius + 1, 2 * radius + 1)
