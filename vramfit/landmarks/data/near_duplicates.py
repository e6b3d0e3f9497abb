"""Films that show the same picture, whatever became of the file: another format, size, brightness, contrast, negative.

N pictures, S pixels a side. Compared is what is left of a small copy when its slow changes of grey are taken away: the
cosine of two such. benchmarks/data_check.py states those of different films and of copies. A copy that was cropped or
turned by more than a hundredth is not known again.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.data.cache import FilmCache

SIDE = 64
# The size of the cosine of two pictures' directions, above which they show the same.
SAME_PICTURE = 0.94

_SLOW = SIDE / 16


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey uint8 HxW image averaged down to SxS."""
    import cv2

    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def thumbnails(cache: FilmCache) -> NDArray[np.uint8]:
    """The films of a cache in uint8 NxSxS, without the black around them."""
    pairs = zip(range(len(cache)), cache.letterboxes, strict=True)
    return np.stack([thumbnail(box.cut(cache.image(index))) for index, box in pairs])


def directions(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """NxSxS thumbnails as float32 vectors Nx(S*S) of length 1, or 0 where there is nothing to see."""
    import cv2

    plain = thumbnails.astype(np.float32)
    fine = np.stack([picture - cv2.GaussianBlur(picture, (0, 0), _SLOW) for picture in plain])
    flat = fine.reshape(len(fine), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    found: NDArray[np.float32] = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1.0)
    return found


def twins(films: NDArray[np.float32], others: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """Places (film, other) of directions Nx(S*S) and Mx(S*S) that show the same."""
    # Film by film: the products of ten thousand films at once would take a gigabyte.
    for place, film in enumerate(films):
        yield from ((place, int(other)) for other in np.flatnonzero(np.abs(others @ film) > SAME_PICTURE))
