"""Augmentation of lateral films: one affine in the loader, the look of the film on the card.

H W image pixels. What happens to a film is a function of seed, epoch and the film's id: neither the order of films nor
the number of workers changes it.
"""

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import UsageError
from vramfit.landmarks.loading.artefacts import KINDS, Artefacts, draw_artefacts
from vramfit.landmarks.loading.elastic import KNOTS, move_elastic, warp_elastic
from vramfit.landmarks.loading.photometric import NEUTRAL, Photometric

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far films are changed; each value is drawn evenly between its limits.

    rotation_degrees, scale (share larger or smaller) and shift (share of the image) are limits to both sides;
    brightness, contrast, gamma and blur likewise, in the units of `Photometric`; noise and cutout (share of a side)
    are upper limits; elastic is the largest displacement of a knot as a share of the image's shorter side;
    cutout_probability and flip_probability are chances, and so is artefacts, of each of `artefact_kinds`. A lateral
    film faces one way: it is not flipped unless asked.
    """

    rotation_degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0
    cutout_probability: float = 0.0
    flip_probability: float = 0.0
    artefacts: float = 0.0
    artefact_kinds: tuple[str, ...] = tuple(KINDS)


_STANDARD = Augmentation(
    rotation_degrees=12,
    scale=0.15,
    shift=0.06,
    brightness=0.08,
    contrast=0.2,
    gamma=0.3,
    noise=0.04,
    blur=0.6,
    cutout=0.2,
    cutout_probability=0.3,
)
PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(
        rotation_degrees=5, scale=0.06, shift=0.03, brightness=0.06, contrast=0.15, gamma=0.15, noise=0.02, blur=0.3
    ),
    "standard": _STANDARD,
    "strong": replace(_STANDARD, rotation_degrees=20, scale=0.25, shift=0.1, contrast=0.35, gamma=0.5, noise=0.06),
    "elastic": replace(_STANDARD, elastic=0.02),
}


def preset(name: str, artefacts: float = 0.0) -> Augmentation:
    """An augmentation by name, with a chance of each of the artefacts of archives.

    Raises:
        UsageError: no such preset.

    """
    if name not in PRESETS:
        raise UsageError(f"no augmentation is called '{name}'; use one of {', '.join(PRESETS)}.")
    return replace(PRESETS[name], artefacts=artefacts)


# What changes a film, by the setting that says how far.
EFFECTS = {
    "rotation": "rotation_degrees",
    **{
        name: name
        for name in ("scale", "shift", "elastic", "brightness", "contrast", "gamma", "noise", "blur", "cutout")
    },
}


def effects_of(how: Augmentation) -> dict[str, Augmentation]:
    """Each effect that an augmentation has, by its name, alone; artefacts on every film."""
    none = Augmentation(cutout_probability=how.cutout_probability)
    values = {effect: getattr(how, setting) for effect, setting in EFFECTS.items()}
    found = {effect: replace(none, **{EFFECTS[effect]: value}) for effect, value in values.items() if value}
    artefacts = how.artefact_kinds if how.artefacts else ()
    return found | {kind: Augmentation(artefacts=1, artefact_kinds=(kind,)) for kind in artefacts}


@dataclass(frozen=True)
class Change:
    """What happens to one film in one epoch: `matrix` 2x3 from old to new image pixels, its look, and displacements.

    `knots` are KNOTSxKNOTSx2 displacements in pixels, or None; `artefacts` are drawn into the film before it is moved.
    """

    matrix: Matrix
    photometric: Photometric
    knots: Matrix | None = None
    artefacts: Artefacts | None = None

    def of_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The changed image HxW; its look changes on the card."""
        return warp(image, self.matrix) if self.knots is None else warp_elastic(image, self.matrix, self.knots)

    def of_points(self, points: NDArray[np.float64], image_size: tuple[int, int]) -> NDArray[np.float64]:
        """The points Kx2 on the changed image of (H, W)."""
        if self.knots is None:
            return move(points, self.matrix)
        return move_elastic(points, self.matrix, self.knots, image_size)


UNCHANGED = Change(np.eye(2, 3), NEUTRAL)


def draw(how: Augmentation, image_size: tuple[int, int], seed: int, epoch: int, film_id: str) -> Change:
    """The change of one film in one epoch."""
    numbers = np.random.Philox(key=[seed, epoch << 32 | zlib.crc32(film_id.encode())])
    random = np.random.Generator(numbers)
    # Drawn all at once and always: a setting changes its own effect and no other.
    spread = random.uniform(-1, 1, size=8).tolist()
    chance = random.uniform(0, 1, size=8).tolist()
    matrix = _matrix(how, image_size, spread, flip=chance[0] < how.flip_probability)
    side = how.cutout if chance[1] < how.cutout_probability else 0.0
    look = Photometric(
        brightness=how.brightness * spread[4],
        contrast=how.contrast * spread[5],
        gamma=how.gamma * spread[6],
        noise=how.noise * chance[2],
        noise_seed=chance[3],
        blur=how.blur * spread[7],
        cutout_x=chance[4],
        cutout_y=chance[5],
        cutout_width=side * chance[6],
        cutout_height=side * chance[7],
    )
    # From numbers that those of the other effects do not reach.
    apart = np.random.Generator(numbers.jumped())
    artefacts = draw_artefacts(how.artefacts, how.artefact_kinds, apart) if how.artefacts else None
    if not how.elastic:
        return Change(matrix, look, artefacts=artefacts)
    knots = random.uniform(-1, 1, size=(KNOTS, KNOTS, 2)) * how.elastic * min(image_size)
    return Change(matrix, look, knots, artefacts)


def warp(image: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    """The image HxW after an affine of its pixels, black where there was none."""
    import cv2

    height, width = image.shape
    warped: NDArray[np.uint8] = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]  # cv2 says any array
    return warped


def move(points: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Points (..., 2) after the same affine."""
    moved: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def undo(points: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Points (..., 2) before an affine, from those after it."""
    before: NDArray[np.float64] = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    return before


def _matrix(how: Augmentation, image_size: tuple[int, int], spread: list[float], *, flip: bool) -> Matrix:
    """Rotate and scale around the middle, then shift; pixel centres are whole numbers."""
    height, width = image_size
    angle = math.radians(how.rotation_degrees) * spread[0]
    scale = (1 + how.scale) ** spread[1]
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    middle = np.array([width - 1, height - 1]) / 2
    shift = np.array([width, height]) * how.shift * spread[2:4]
    return np.column_stack([turn, middle - turn @ middle + shift])
