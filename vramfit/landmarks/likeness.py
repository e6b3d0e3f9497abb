"""Whether two films show the same picture, whatever their format, size or compression.

N pictures, S pixels a side. Two exposures of one patient differ in more than a copy in another format does.
"""

import numpy as np
from numpy.typing import NDArray

# The cosine of two centred thumbnails, above which they show the same.
SAME_PICTURE = 0.999


def thumbnail(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A grey uint8 HxW image averaged down to SxS."""
    import cv2

    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def directions(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """NxSxS thumbnails as float32 vectors Nx(S*S), each less its mean and of length 1: their products are cosines."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    centred = flat - flat.mean(axis=1, keepdims=True)
    found: NDArray[np.float32] = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return found
