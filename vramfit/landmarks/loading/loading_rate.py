"""How fast this machine makes training samples: a few of a film of noise, through the code that training uses."""

import time
from functools import lru_cache
from statistics import median

import numpy as np

from vramfit.landmarks.loading.augment import draw, preset
from vramfit.landmarks.loading.dataset import sample_of

_SAMPLES = 20
_LIMIT_S = 0.1


@lru_cache
def loading_rate(image_size: tuple[int, int], landmarks: int, augmentation: str = "standard") -> float:
    """Images a second that one process makes of films that lie in the cache; takes a tenth of a second, once.

    The median of up to 20 samples: on a busy machine the few that were interrupted do not count.

    Args:
        image_size: (H, W).
        landmarks: points on a film.
        augmentation: a preset's name.

    """
    random = np.random.Generator(np.random.Philox(0))
    film = random.integers(0, 256, size=image_size, dtype=np.uint8)
    points = random.uniform(0, min(image_size), size=(landmarks, 2))
    times: list[float] = []
    began = time.perf_counter()
    for number in range(_SAMPLES):
        start = time.perf_counter()
        sample_of(film, points, draw(preset(augmentation), image_size, 0, number, "film"), number)
        times.append(time.perf_counter() - start)
        if time.perf_counter() - began > _LIMIT_S and number:
            break
    # The first loads OpenCV.
    return 1 / median(times[1:])
