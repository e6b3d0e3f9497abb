"""Films as the network sees them in training, with their points, as one picture.

H W image pixels; the picture is uint8 RxCx3 in OpenCV's order of colours.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.loading.augment import Augmentation, effects_of
from vramfit.landmarks.loading.dataset import FilmDataset, Sample
from vramfit.landmarks.loading.photometric import MEAN, STD, augment

Picture = NDArray[np.uint8]

_POINT_COLOUR = (60, 220, 255)
_GAP = 4
# Enough for one that shows: a cutout comes in three of ten.
_EPOCHS_SEEN = 12


def preview(cache: FilmCache, augmentation: Augmentation, *, films: int, draws: int, seed: int = 0) -> Picture:
    """A row for each of the first films: the film as it is, then as the first `draws` epochs would change it."""
    plain, changed = FilmDataset(cache), FilmDataset(cache, augmentation, seed=seed)
    rows = []
    for index in range(min(films, len(cache))):
        samples = [plain[0, index], *(changed[epoch, index] for epoch in range(draws))]
        rows.append(np.concatenate([_tile(sample) for sample in samples], axis=1))
    return np.concatenate(rows)


def preview_effects(cache: FilmCache, augmentation: Augmentation, *, films: int, seed: int = 0) -> Picture:
    """A row for each of the first films: the film as it is, then each effect alone, by name, at its strongest."""
    effects = {effect: FilmDataset(cache, how, seed=seed) for effect, how in effects_of(augmentation).items()}
    rows = []
    for index in range(min(films, len(cache))):
        plain = _tile(FilmDataset(cache)[0, index])
        tiles = [_labelled(_strongest(dataset, index, plain), effect) for effect, dataset in effects.items()]
        rows.append(np.concatenate([_labelled(plain, "as it is"), *tiles], axis=1))
    return np.concatenate(rows)


def _strongest(dataset: FilmDataset, index: int, plain: Picture) -> Picture:
    """Of the changes that some epochs make of a film, the one that shows most."""
    tiles = [_tile(dataset[epoch, index]) for epoch in range(_EPOCHS_SEEN)]
    return max(tiles, key=lambda tile: float(np.abs(tile.astype(np.float32) - plain).mean()))


def _labelled(tile: Picture, name: str) -> Picture:
    import cv2

    size = tile.shape[1] / 500
    place = (round(8 * size) + 2, round(26 * size) + 2)
    for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(tile, name, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, width, cv2.LINE_AA)
    return tile


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
