"""What films of archives have besides what shows in them: negatives, collimated edges, markers, metal.

H W pixels of the part of an image that shows the film. They are drawn into the bytes by the loader, before the film is
turned and scaled, and take no memory of the card. No set of films with artefacts stands behind how many and how large
they are: the limits are chosen to look like films, and measured by what training with them does on others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_EDGE_DEPTH = 0.12
_EDGE_TILT = math.radians(4)
_MARKER_HEIGHT = (0.03, 0.08)
_MOST_PARTS = 5
_PART_SIZE = (0.004, 0.03)
_WHITE = (215, 255)
_BLACK = (0, 25)


@dataclass(frozen=True)
class Artefacts:
    """The artefacts of one film in one epoch: their kinds, in the order they are drawn, each with a seed."""

    drawn: tuple[tuple[str, int], ...]

    def of(self, film: Image) -> Image:
        """The film HxW with them; the one given stays as it is."""
        changed = film.copy()
        for kind, seed in self.drawn:
            KINDS[kind](changed, np.random.Generator(np.random.Philox(seed)))
        return changed


def draw_artefacts(chance: float, kinds: tuple[str, ...], random: np.random.Generator) -> Artefacts | None:
    """Each of these kinds with this chance; None where none comes up.

    As many numbers are taken from `random` whatever the kinds: leaving one out changes no other.
    """
    rows = zip(KINDS, random.uniform(size=len(KINDS)), random.integers(2**63, size=len(KINDS)), strict=True)
    drawn = tuple((kind, int(seed)) for kind, share, seed in rows if kind in kinds and share < chance)
    return Artefacts(drawn) if drawn else None


def _metal(film: Image, random: np.random.Generator) -> None:
    """Screws, brackets and rods: a few bright parts, each a short line or a disc, anywhere on the film."""
    import cv2

    height, width = film.shape
    for _ in range(random.integers(1, _MOST_PARTS, endpoint=True)):
        x, y = int(random.uniform(0, width)), int(random.uniform(0, height))
        size = random.uniform(*_PART_SIZE) * height
        length, angle = size * random.uniform(0, 4), random.uniform(0, math.pi)
        end = round(x + length * math.cos(angle)), round(y + length * math.sin(angle))
        grey = int(random.integers(*_WHITE, endpoint=True))
        cv2.line(film, (x, y), end, (grey,), max(1, round(size)), cv2.LINE_AA)


def _marker(film: Image, random: np.random.Generator) -> None:
    """The side's letter in lead, near a corner."""
    import cv2

    height, width = film.shape
    tall = random.uniform(*_MARKER_HEIGHT) * height
    x = round(width * random.choice([random.uniform(0.02, 0.2), random.uniform(0.75, 0.93)]))
    y = round(height * random.choice([random.uniform(0.08, 0.25), random.uniform(0.8, 0.97)]))
    scale, thick = tall / 22, max(1, round(tall / 8))  # a letter of scale 1 is 22 pixels high
    grey = int(random.integers(*_WHITE, endpoint=True))
    cv2.putText(film, str(random.choice(["L", "R"])), (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (grey,), thick)


def _collimation(film: Image, random: np.random.Generator) -> None:
    """One side dark, up to a slightly tilted edge: the beam was narrower than the film."""
    height, width = film.shape
    y, x = np.ogrid[:height, :width]
    along, across = ((x, y), (width, height)) if random.uniform() < 0.5 else ((y, x), (height, width))
    depth = along[0] if random.uniform() < 0.5 else across[0] - 1 - along[0]
    tilt = math.tan(random.uniform(-_EDGE_TILT, _EDGE_TILT))
    edge = random.uniform(0, _EDGE_DEPTH) * across[0] + tilt * (along[1] - across[1] / 2)
    film[depth < edge] = random.integers(*_BLACK, endpoint=True)


def _negative(film: Image, _random: np.random.Generator) -> None:
    """Black for white, as films are stored where the photometric interpretation was lost."""
    np.subtract(255, film, out=film)


# In the order they come about: what lies before the film, what the beam leaves out, and how it is stored.
KINDS: dict[str, Callable[[Image, np.random.Generator], None]] = {
    "metal": _metal,
    "marker": _marker,
    "collimation": _collimation,
    "negative": _negative,
}
