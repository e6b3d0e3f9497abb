"""Fitting a film into the network's image: scaled by its longer side, centred, and exactly back.

H W image pixels. Pixel centres: x_image = (x_film + 1/2) scale - 1/2 + pad.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Letterbox:
    """The map of one film to its image: `inner` is the (width, height) it covers, `pad` what is left and above it."""

    film_size: tuple[int, int]
    image_size: tuple[int, int]
    inner: tuple[int, int]
    pad: tuple[int, int]

    @classmethod
    def of(cls, film_size: tuple[int, int], image_size: tuple[int, int]) -> Self:
        """The letterbox of a film of (width, height) in an image of (height, width)."""
        height, width = image_size
        scale = min(width / film_size[0], height / film_size[1])
        inner = max(1, round(film_size[0] * scale)), max(1, round(film_size[1] * scale))
        return cls(film_size, image_size, inner, ((width - inner[0]) // 2, (height - inner[1]) // 2))

    @property
    def scale(self) -> NDArray[np.float64]:
        """Image pixels to a film pixel, (x, y); the two differ by the rounding to whole pixels."""
        scale: NDArray[np.float64] = np.array(self.inner, dtype=np.float64) / np.array(self.film_size)
        return scale

    def to_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Film pixels (..., 2) to image pixels."""
        mapped: NDArray[np.float64] = (points + 0.5) * self.scale - 0.5 + np.array(self.pad)
        return mapped

    def to_film(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Image pixels (..., 2) to film pixels: the exact inverse."""
        mapped: NDArray[np.float64] = (points - np.array(self.pad) + 0.5) / self.scale - 0.5
        return mapped

    def apply(self, film: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image HxW of a film, black around it."""
        import cv2

        shrinks = self.inner[0] < self.film_size[0]
        # Averaging over the area is the only way of cv2 that shrinks without moiré.
        resized = cv2.resize(film, self.inner, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        image = np.zeros(self.image_size, dtype=np.uint8)
        left, top = self.pad
        image[top : top + self.inner[1], left : left + self.inner[0]] = resized
        return image

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of an image HxW that shows the film."""
        left, top = self.pad
        return image[top : top + self.inner[1], left : left + self.inner[0]]

    def changed(
        self, image: NDArray[np.uint8], change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """A copy of an image HxW with the part that shows the film changed, and black around it still."""
        whole = image.copy()
        self.cut(whole)[...] = change(self.cut(image))
        return whole
