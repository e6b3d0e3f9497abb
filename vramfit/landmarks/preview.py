"""Films as the network sees them in training, with their points, as one picture.

H W image pixels; the picture is uint8 RxCx3 in OpenCV's order of colours.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from vramfit.landmarks.augment import Augmentation
from vramfit.landmarks.cache import FilmCache
from vramfit.landmarks.dataset import FilmDataset, Sample
from vramfit.landmarks.photometric import MEAN, STD, augment

Picture = NDArray[np.uint8]

_POINT_COLOUR = (60, 220, 255)
_GAP = 4


def preview(cache: FilmCache, augmentation: Augmentation, *, films: int, draws: int, seed: int = 0) -> Picture:
    """A row for each of the first films: the film as it is, then as the first `draws` epochs would change it."""
    plain, changed = FilmDataset(cache), FilmDataset(cache, augmentation, seed=seed)
    rows = []
    for index in range(min(films, len(cache))):
        samples = [plain[0, index], *(changed[epoch, index] for epoch in range(draws))]
        rows.append(np.concatenate([_tile(sample) for sample in samples], axis=1))
    return np.concatenate(rows)


def _tile(sample: Sample) -> Picture:
    import cv2

    inputs, points, _ = sample
    seen = augment(inputs["films"].unsqueeze(0), inputs["photometric"].unsqueeze(0))
    grey = ((seen * STD + MEAN).clamp(0, 1) * 255).to(torch.uint8)[0, 0].numpy()
    tile = np.stack([grey] * 3, axis=2)
    radius = max(2, round(min(grey.shape) / 150))
    for x, y in points.tolist():
        if np.isfinite(x):
            cv2.circle(tile, (round(x), round(y)), radius, _POINT_COLOUR, -1, cv2.LINE_AA)
    return np.pad(tile, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
