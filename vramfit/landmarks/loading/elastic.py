"""Elastic changes of films: smooth random displacements laid over the affine, still one warp a sample.

H W image pixels. The new film at q shows the old one at p = A^-1 q + d(q), where d is a coarse grid of random
displacements made smooth. Points go the other way: q = A (p - d(q)), found by repetition, for d changes slowly.
"""

import numpy as np
from numpy.typing import NDArray

# Knots along a side; few, so that teeth and jaws bend together.
KNOTS = 5
_ROUNDS = 12

Field = NDArray[np.float32]


def displacements(knots: NDArray[np.float64], image_size: tuple[int, int]) -> Field:
    """Displacements in pixels at every pixel, float32 HxWx2, from KNOTSxKNOTSx2 at the knots."""
    import cv2

    height, width = image_size
    field: Field = cv2.resize(knots.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]  # cv2 says any array
    return field


def warp_elastic(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], knots: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """The image HxW after the affine and the displacements, black where there was none."""
    import cv2

    height, width = image.shape
    back = cv2.invertAffineTransform(matrix).astype(np.float32)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    places = displacements(knots, (height, width))
    places[..., 0] += back[0, 0] * x + back[0, 1] * y + back[0, 2]
    places[..., 1] += back[1, 0] * x + back[1, 1] * y + back[1, 2]
    warped: NDArray[np.uint8] = cv2.remap(image, places, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]  # a second map is optional
    return warped


def move_elastic(
    points: NDArray[np.float64], matrix: NDArray[np.float64], knots: NDArray[np.float64], image_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Points Kx2 after the same; NaN stays NaN."""
    field = displacements(knots, image_size)
    turn, shift = matrix[:, :2].T, matrix[:, 2]
    moved: NDArray[np.float64] = points @ turn + shift
    for _ in range(_ROUNDS):
        moved = (points - _at(field, moved)) @ turn + shift
    return moved


def _at(field: Field, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The displacements at points, between pixels too; beyond the border the border's."""
    import cv2

    height, width = field.shape[:2]
    inside = np.nan_to_num(points).clip(0, [width - 1, height - 1]).astype(np.float32)
    found = cv2.remap(field, inside[:, None, 0], inside[:, None, 1], cv2.INTER_LINEAR)
    return found.reshape(-1, 2).astype(np.float64)
