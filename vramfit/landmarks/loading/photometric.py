"""What a film looks like to the network: normalisation and photometric augmentation, on the card.

B batch, P photometric parameters, H W pixels.
The loader ships uint8 films and P numbers a film; what the network sees is made here.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Mean and spread of ImageNet in grey, in [0, 1]: what pretrained weights expect.
MEAN, STD = 0.449, 0.226


class Photometric(NamedTuple):
    """How one film is changed; the defaults change nothing. Grey values are in [0, 1], positions shares of the film.

    brightness is added; contrast multiplies around the middle by 1 + contrast; gamma is the logarithm of the exponent;
    noise its standard deviation, noise_seed its pattern; blur the share of a 5x5 Gaussian blur mixed in (negative
    sharpens); the cutout is a rectangle of middle grey, empty when its sides are 0.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    noise_seed: float = 0.0
    blur: float = 0.0
    cutout_x: float = 0.0
    cutout_y: float = 0.0
    cutout_width: float = 0.0
    cutout_height: float = 0.0


NEUTRAL = Photometric()


def normalise(films: Tensor) -> Tensor:
    """Films in [0, 255] to the network's scale, float32 B1HW."""
    return (films.float() / 255 - MEAN) / STD


def augment(films: Tensor, parameters: Tensor) -> Tensor:
    """Films changed as told, on the network's scale.

    Args:
        films: uint8 B1HW.
        parameters: float32 BxP, the fields of `Photometric` in order.

    Returns:
        float32 B1HW.

    """
    how = Photometric(*(column.view(-1, 1, 1, 1) for column in parameters.float().unbind(1)))  # type: ignore[arg-type]  # columns, not numbers
    grey = films.float() / 255
    grey = torch.lerp(grey, _blurred(grey), how.blur)
    grey = grey.clamp(1e-4, 1).pow(torch.exp(_tensor(how.gamma)))
    grey = (grey - 0.5) * (1 + how.contrast) + 0.5 + how.brightness
    grey = grey + how.noise * _noise(grey, _tensor(how.noise_seed))
    grey = torch.where(_cutout(grey, how), 0.5, grey.clamp(0, 1))
    return (grey - MEAN) / STD


def _tensor(value: float | Tensor) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _blurred(grey: Tensor) -> Tensor:
    # Made on the host and sent without waiting: a tensor made of numbers on a card waits for the card.
    kernel = (torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16).to(grey.device, non_blocking=True)
    padded = F.pad(grey, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))


def _noise(grey: Tensor, seed: Tensor) -> Tensor:
    """Noise of mean 0 and variance 1, a function of a film's seed alone: neither order nor the device's RNG matter.

    A sine of a large argument scrambles the position; the sum of two uniform numbers is a triangle, near a bell.
    """
    y = torch.arange(grey.shape[2], device=grey.device, dtype=torch.float32).view(1, 1, -1, 1)
    x = torch.arange(grey.shape[3], device=grey.device, dtype=torch.float32).view(1, 1, 1, -1)
    phase = x * 12.9898 + y * 78.233 + seed * 1000
    first = (torch.sin(phase) * 43758.5453).remainder(1)
    second = (torch.sin(phase + 0.5) * 24634.6345).remainder(1)
    # Each is uniform in [0, 1) with variance 1/12.
    noise: Tensor = (first + second - 1) * 6**0.5
    return noise


def _cutout(grey: Tensor, how: Photometric) -> Tensor:
    y = ((torch.arange(grey.shape[2], device=grey.device) + 0.5) / grey.shape[2]).view(1, 1, -1, 1)
    x = ((torch.arange(grey.shape[3], device=grey.device) + 0.5) / grey.shape[3]).view(1, 1, 1, -1)
    across = (x - how.cutout_x).abs() < how.cutout_width / 2
    down = (y - how.cutout_y).abs() < how.cutout_height / 2
    return across & down
