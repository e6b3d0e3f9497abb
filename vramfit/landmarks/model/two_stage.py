"""Coarse to fine: a network that sees the whole film small, and one that looks closer around each of its points.

B batch, K landmarks, H W image pixels, h w coarse pixels, c side of a crop in image pixels, s heatmap stride.

    films B1HW --area--> B1hw --coarse network--> K points --crops BxKxcxc--> crop network --> BxKx(c/s)x(c/s)

The crop network is one for all landmarks: which one a crop is of is added to its deepest features, and its last layer
has weights of its own for each. Cascades of this kind are those of Toshev and Szegedy (DeepPose, CVPR 2014); the crop
network is a U-Net (Ronneberger et al., MICCAI 2015). A landmark that the coarse network misses by more than half a crop
is out of the second one's sight, and stays wrong.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from vramfit.errors import DataError
from vramfit.landmarks.model.network import HeatmapNetwork, read_state

COARSE = "coarse"
# Strides 2, 4, 8 and 16.
_WIDTHS = (24, 48, 96, 128)
# Below this height, of a target's 1, a crop's peak may be lower than zeros around it, at once or after decoding's blur.
# Up to twice the height the surroundings rise to zero: a jump would tell one runtime's rounding from another's.
_LOW_PEAK = 0.05
# How much lower the surroundings of such a crop are than its lowest pixel: in a flat one too the point stays within.
_BELOW = 0.01


@dataclass(frozen=True)
class StageSizes:
    """The film as the second stage sees it (H, W), as the first does (h, w), the crops' side c and heatmap stride s."""

    image_size: tuple[int, int]
    coarse_size: tuple[int, int]
    crop_size: int
    heatmap_stride: int


class TwoStageNetwork(nn.Module):
    """Films to heatmaps: float B1HW -> BxKx(H/s)x(W/s), zero outside each landmark's crop.

    Around a crop with a peak below 0.1 they fall below zero, from 0.05 on below the crop's lowest pixel: the highest
    pixel is always in the crop.

    With `centres`, BxKx2 in image pixels, the crops lie around those, the coarse network does not run, and the heatmaps
    are of the crops alone: BxKx(c/s)x(c/s). So the second stage learns.
    """

    def __init__(self, model: str, landmarks: int, sizes: StageSizes) -> None:
        super().__init__()
        self.coarse = HeatmapNetwork(model, landmarks)
        self.fine = CropNetwork(landmarks, sizes.heatmap_stride)
        self.sizes = sizes
        # Rebuilt from the sizes: not part of a checkpoint.
        for name, axis in (("shrink_down", 0), ("shrink_across", 1)):
            weights = area_weights(sizes.image_size[axis], sizes.coarse_size[axis])
            self.register_buffer(name, weights, persistent=False)

    def forward(self, films: Tensor, centres: Tensor | None = None) -> Tensor:
        """Heatmaps of films, or of the crops around `centres`."""
        origins = crop_origins(self._seen_small(films) if centres is None else centres, self.sizes)
        heatmaps: Tensor = self.fine(cut(films, origins, self.sizes.crop_size))
        return self._placed(heatmaps, origins) if centres is None else heatmaps

    def _seen_small(self, films: Tensor) -> Tensor:
        """The coarse network's points in image pixels, BxKx2: its highest pixels, a crop needs no better."""
        small = self.shrink_down @ films @ self.shrink_across.T  # type: ignore[operator]  # buffers
        heatmaps = self.coarse(small)
        places, width = heatmaps.flatten(2).argmax(dim=2), heatmaps.shape[3]
        places = torch.stack([places % width, torch.div(places, width, rounding_mode="floor")], dim=-1)
        per_pixel = [
            side / coarse for side, coarse in zip(self.sizes.image_size[::-1], heatmaps.shape[:1:-1], strict=True)
        ]
        return (places + 0.5) * torch.tensor(per_pixel, device=films.device) - 0.5

    def _placed(self, heatmaps: Tensor, origins: Tensor) -> Tensor:
        """Each crop's heatmap at its place in one of the whole image."""
        batch, landmarks, side, _ = heatmaps.shape
        height, width = (length // self.sizes.heatmap_stride for length in self.sizes.image_size)
        x, y = torch.div(origins, self.sizes.heatmap_stride, rounding_mode="floor").unbind(dim=-1)
        along = torch.arange(side, device=heatmaps.device)
        places = (y[..., None, None] + along[:, None]) * width + x[..., None, None] + along
        flat = heatmaps.flatten(2)
        peak, lowest = flat.amax(dim=2, keepdim=True), flat.amin(dim=2, keepdim=True)
        around = (lowest.clamp_max(0) - _BELOW) * (2 - peak / _LOW_PEAK).clamp(0, 1)
        whole = around.expand(batch, landmarks, height * width)
        return whole.scatter(2, places.flatten(2), flat).view(batch, landmarks, height, width)


class CropNetwork(nn.Module):
    """Crops to heatmaps: float BxKxcxc -> BxKx(c/s)x(c/s); c is a multiple of 16."""

    def __init__(self, landmarks: int, heatmap_stride: int) -> None:
        super().__init__()
        from timm.layers.conv_bn_act import ConvNormAct

        wide = (1, *_WIDTHS)
        self.down = nn.ModuleList(
            nn.Sequential(ConvNormAct(before, after, 3, stride=2), ConvNormAct(after, after, 3))
            for before, after in pairwise(wide)
        )
        levels = range(len(_WIDTHS) - 1, heatmap_stride.bit_length() - 2, -1)
        outs = [max(wide[level], _WIDTHS[0]) for level in levels]
        ins = [before + wide[level] for before, level in zip((_WIDTHS[-1], *outs), levels, strict=False)]
        self.up = nn.ModuleList(ConvNormAct(before, after, 3) for before, after in zip(ins, outs, strict=True))
        self.which = nn.Parameter(torch.zeros(landmarks, _WIDTHS[-1]))
        self.last = nn.Parameter(torch.randn(landmarks, outs[-1]) * 0.001)
        self.last_bias = nn.Parameter(torch.zeros(landmarks))

    def forward(self, crops: Tensor) -> Tensor:
        """Heatmaps of crops."""
        batch, landmarks = crops.shape[:2]
        features = [crops.flatten(0, 1).unsqueeze(1)]
        for down in self.down:
            features.append(down(features[-1]))
        found = features.pop() + self.which.repeat(batch, 1)[:, :, None, None]
        for up in self.up:
            found = up(torch.cat([nn.functional.interpolate(found, scale_factor=2.0), features.pop()], dim=1))
        found = found.unflatten(0, (batch, landmarks))
        heatmaps: Tensor = (found * self.last[:, :, None, None]).sum(dim=2) + self.last_bias[:, None, None]
        return heatmaps


def load_stages(network: TwoStageNetwork, source: str) -> str:
    """Give a new network its first stage, or both of a file that has both; one sentence of what was loaded.

    Raises:
        DataError: no file is named, or one that is no checkpoint of this first stage.

    """
    if source in ("auto", "imagenet", "none"):
        raise DataError("--coarse-size needs a first stage: name its checkpoint with --weights FILE.")
    state = dict(read_state(Path(source)))
    if not any(name.startswith(f"{COARSE}.") for name in state):
        state = {f"{COARSE}.{name}": value for name, value in state.items()}
    mine = network.state_dict()
    unfit = [
        name for name in mine if name.startswith(COARSE) and getattr(state.get(name), "shape", ()) != mine[name].shape
    ]
    if unfit:
        raise DataError(
            f"{source}: {len(unfit)} weights do not fit the first stage (first: '{unfit[0]}'); use a checkpoint of the "
            "same --model and landmarks."
        )
    fitting = {name: value for name, value in state.items() if name in mine and mine[name].shape == value.shape}
    network.load_state_dict(fitting, strict=False)
    return f"Weights: both stages of {source}." if len(fitting) == len(mine) else f"Weights: first stage of {source}."


def area_weights(length: int, shorter: int) -> Tensor:
    """The matrix, shorter x length, that averages over areas as OpenCV's INTER_AREA does along one axis."""
    step = length / shorter
    edges = torch.arange(shorter + 1, dtype=torch.float64) * step
    pixels = torch.arange(length, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (overlap.clamp_min(0) / step).float()


def crop_origins(centres: Tensor, sizes: StageSizes) -> Tensor:
    """The first pixel (x, y) of the crop around each centre, int64 BxKx2: within the image, a multiple of the stride.

    A centre that is NaN is taken for the image's middle.
    """
    (height, width), crop_size, stride = sizes.image_size, sizes.crop_size, sizes.heatmap_stride
    limit = torch.tensor([width - crop_size, height - crop_size], device=centres.device)
    known = torch.where(centres.isnan(), (limit + crop_size) / 2, centres)
    origins = ((known - crop_size / 2) / stride).round().long() * stride
    return torch.minimum(origins.clamp_min(0), limit)


def cut(films: Tensor, origins: Tensor, crop_size: int) -> Tensor:
    """The crops BxKxcxc of films B1HW."""
    width, along = films.shape[3], torch.arange(crop_size, device=films.device)
    x, y = origins.unbind(dim=-1)
    places = (y[..., None, None] + along[:, None]) * width + x[..., None, None] + along
    crops = films.flatten(1).gather(1, places.flatten(1))
    return crops.view(*origins.shape[:2], crop_size, crop_size)


def scattered(points: Tensor, seeds: Tensor, crop_size: int) -> Tensor:
    """Points BxKx2 moved by up to a quarter of a crop to each side, as the coarse network misses them.

    A function of the B seeds alone, each in [0, 1): neither order nor the device's random state matter.
    """
    counter = torch.arange(points.shape[1] * 2, device=points.device, dtype=torch.float32).view(1, -1, 2)
    share = (torch.sin(counter * 12.9898 + seeds.view(-1, 1, 1) * 1000) * 43758.5453).remainder(1)
    return points + (share - 0.5) * (crop_size / 2)
