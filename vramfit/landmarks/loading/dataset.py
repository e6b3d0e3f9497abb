"""Films as a torch dataset.

K landmarks, P photometric parameters, H W image pixels. A sample is

    ({"films": uint8 1xHxW, "photometric": float32 P}, float32 Kx2 in image pixels, place in the film set)

all that crosses to the card: pixels as bytes, points in place of heatmaps.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.loading.augment import UNCHANGED, Augmentation, Change, draw

Sample = tuple[dict[str, Tensor], Tensor, int]
Place = tuple[int, int]


class FilmDataset(Dataset[Sample]):
    """The films of a cache, changed for training or as they are.

    It is indexed by (epoch, place): workers outlive an epoch, and what happens to a film depends on it.
    """

    def __init__(self, cache: FilmCache, augmentation: Augmentation | None = None, *, seed: int = 0) -> None:
        self.cache = cache
        self.augmentation = augmentation
        self.seed = seed
        self._points = cache.points()

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, place: Place) -> Sample:
        epoch, index = place
        change = self.change(epoch, index)
        image = self.cache.image(index)
        if change.artefacts is not None:
            image = self.cache.letterboxes[index].changed(image, change.artefacts.of)
        return sample_of(image, self._points[index], change, index)

    def change(self, epoch: int, index: int) -> Change:
        """What happens to a film in an epoch."""
        if self.augmentation is None:
            return UNCHANGED
        film_id = self.cache.film_set.films[index].id
        return draw(self.augmentation, self.cache.image_size, self.seed, epoch, film_id)


def sample_of(image: NDArray[np.uint8], points: NDArray[np.float64], change: Change, index: int) -> Sample:
    """The sample of a cached film HxW and its points Kx2 in image pixels, changed as told."""
    import cv2

    cv2.setNumThreads(0)  # the loader's workers are the threads
    changed = np.array(image) if change is UNCHANGED else change.of_image(image)
    moved = change.of_points(points, image.shape)
    inputs = {
        "films": torch.from_numpy(changed).unsqueeze(0),
        "photometric": torch.tensor(change.photometric, dtype=torch.float32),
    }
    return inputs, torch.from_numpy(moved.astype(np.float32)), index
