"""Heatmaps of landmarks: where a landmark is, as an image that a network can learn.

B batch, K landmarks, H W image pixels, h w heatmap pixels, s stride: H = s h, W = s w.
Pixel centres: x_image = (x_heatmap + 1/2) s - 1/2, the same for rendering and for decoding.
"""

import torch
from torch import Tensor


def to_heatmap(points: Tensor, stride: int) -> Tensor:
    """Image pixels to heatmap pixels, any shape."""
    return (points + 0.5) / stride - 0.5


def to_image(points: Tensor, stride: int) -> Tensor:
    """Heatmap pixels to image pixels, any shape."""
    return (points + 0.5) * stride - 0.5


def render(points: Tensor, image_size: tuple[int, int], stride: int, sigma: float) -> Tensor:
    """Gaussians of height 1 at the landmarks, at their sub-pixel positions.

    Args:
        points: float BxKx2, (x, y) in image pixels; NaN where missing.
        image_size: (H, W).
        stride: image pixels to a heatmap pixel.
        sigma: standard deviation in heatmap pixels.

    Returns:
        float32 BxKxhxw; NaN points give a plane that `present` tells to ignore.

    """
    height, width = image_size[0] // stride, image_size[1] // stride
    centres = to_heatmap(torch.nan_to_num(points.float(), nan=-1e4), stride)
    # A Gaussian is the product of its two profiles: K (h + w) exponentials in place of K h w.
    across = _profile(centres[..., 0], width, sigma)
    down = _profile(centres[..., 1], height, sigma)
    return down.unsqueeze(-1) * across.unsqueeze(-2)


def present(points: Tensor, image_size: tuple[int, int]) -> Tensor:
    """1 where a landmark is known and inside the image, else 0: float32 BxK from points BxKx2."""
    height, width = image_size
    x, y = points[..., 0], points[..., 1]
    # NaN compares false, so a missing landmark is never inside.
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    return inside.float()


def _profile(centres: Tensor, length: int, sigma: float) -> Tensor:
    positions = torch.arange(length, dtype=torch.float32, device=centres.device)
    return torch.exp(-0.5 * ((positions - centres.unsqueeze(-1)) / sigma) ** 2)
