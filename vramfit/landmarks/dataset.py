"""Films as a torch dataset.

K landmarks, P photometric parameters, H W image pixels. A sample is

    ({"films": uint8 1xHxW, "photometric": float32 P}, float32 Kx2 in image pixels, place in the film set)

all that crosses to the card: pixels as bytes, points in place of heatmaps.
"""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vramfit.landmarks.augment import UNCHANGED, Augmentation, draw
from vramfit.landmarks.cache import FilmCache

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
        import cv2

        cv2.setNumThreads(0)  # the loader's workers are the threads
        epoch, index = place
        image = self.cache.image(index)
        change = UNCHANGED
        if self.augmentation is not None:
            film_id = self.cache.film_set.films[index].id
            change = draw(self.augmentation, self.cache.image_size, self.seed, epoch, film_id)
        image = np.array(image) if change is UNCHANGED else change.of_image(image)
        points = change.of_points(self._points[index], self.cache.image_size)
        inputs = {
            "films": torch.from_numpy(image).unsqueeze(0),
            "photometric": torch.tensor(change.photometric, dtype=torch.float32),
        }
        return inputs, torch.from_numpy(points.astype(np.float32)), index
