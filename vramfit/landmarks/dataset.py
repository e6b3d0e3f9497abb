"""Films as a torch dataset, and the order in which an epoch takes them.

K landmarks, P photometric parameters, H W image pixels. A sample is

    ({"films": uint8 1xHxW, "photometric": float32 P}, float32 Kx2 in image pixels, place in the film set)

all that crosses to the card: pixels as bytes, points in place of heatmaps.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

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


class FilmSampler(Sampler[Place]):
    """The order of an epoch, a function of seed and epoch: places shuffled, or one after the other.

    `begin(epoch, done)` chooses the epoch and passes over the samples already done, which is how a run resumes. Each of
    `world_size` ranks takes every world_size-th place; the last ones of an uneven epoch are left to the next.
    """

    def __init__(self, films: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world_size: int = 1) -> None:
        self.films = films
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.begin(0)

    def begin(self, epoch: int, done: int = 0) -> None:
        """Set the epoch, and how many of its samples this rank has done."""
        self.epoch = epoch
        self.done = done

    def __len__(self) -> int:
        return self.films // self.world_size - self.done

    def __iter__(self) -> Iterator[Place]:
        order = np.arange(self.films)
        if self.shuffle:
            order = np.random.Generator(np.random.Philox(key=[self.seed, self.epoch])).permutation(self.films)
        mine = order[self.rank :: self.world_size][: self.films // self.world_size]
        return ((self.epoch, int(index)) for index in mine[self.done :])
