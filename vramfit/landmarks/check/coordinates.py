"""Whether points are pixels of the films that they stand beside: the films themselves are asked.

N films, K landmarks. Around one landmark, films of one kind look alike. Points are therefore read in other ways too, as
fractions, per cent, millimetres, pixels of another resolution, with x and y swapped or another corner as their origin,
and the *agreement* of each reading is measured: the mean correlation of the pictures around a landmark on different
films, less the same where each film has the points of another. The second part takes away what is alike at a place
whatever its points, such as the background of a video. benchmarks/data_check.py states agreements of right and wrong
readings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import MarkedFilm

Array = NDArray[np.float64]

FEWEST_FILMS = 6
_MOST_FILMS = 32
# Points of all films that lie in so small a part of the film, beginning at its corner, are in no unit of pixels.
_SPOT = 0.05
_SIDE = 160
_SLOW = 8.0
_REACH, _STEP = 6, 1.5
_LEAST_CONTRAST = 2.0
# How much better another reading must agree before points are called wrong.
_LEAST_AGREEMENT, _GAIN, _TIMES = 0.3, 0.2, 2.0
# No reading of real or generated films agrees by twice this.
_ENOUGH = 0.4
_SAME = 0.03
_SCALES = (0.5, 2.0, 3.0, 4.0, *(1.05**power for power in range(-33, 38) if power))


@dataclass(frozen=True)
class _Reading:
    """A way to read points: `kind` of finding if it is the right one, and what the points are then."""

    kind: str
    said: str
    fractions: Array


@dataclass(frozen=True)
class _Films:
    """Films small and without their slow changes of grey; points NxKx2 as written, sizes and pixel sizes Nx1x2."""

    views: Sequence[NDArray[np.float32]]
    points: Array
    sizes: Array
    pixel_sizes_mm: Array


def coordinate_findings(films: Sequence[MarkedFilm], symbols: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with the coordinates of a set as a whole."""
    # Of a film that its file says to turn, nobody knows which way it was marked: a finding of its own.
    marked = [film for film in films if film.is_marked and not film.turned()]
    seen = _look([marked[place] for place in _spread(len(marked))], symbols)
    if not len(seen.views):
        return
    on_a_spot = _on_a_spot(seen)
    better = _better_reading(seen, on_a_spot=on_a_spot)
    if better is not None:
        yield finding(better.kind, "", f"the points fit the films {better.said}.")
    elif on_a_spot:
        message = f"the points of all films lie within {100 * _SPOT:g} % of the film; is their unit pixels of the film?"
        yield finding("wrong_unit", "", message)


def require_coordinates(films: Sequence[MarkedFilm], symbols: Sequence[str], root: object) -> None:
    """Refuse a set whose points are not pixels of its films.

    Raises:
        DataError: the first of `coordinate_findings`.

    """
    for found in coordinate_findings(films, symbols):
        raise DataError(f"{root}: {found.message}")


def agreement(views: Sequence[NDArray[np.float32]], fractions: Array) -> float:
    """How alike N films look around each of K points, NxKx2 in fractions of the film, -1 to 1; 0 is by chance."""
    turned = [[*views[turn:], *views[:turn]] for turn in (1, 3)]
    return _likeness(views, fractions) - max(_likeness(others, fractions) for others in turned)


def view_of(film: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A uint8 HxW film small, without its slow changes of grey."""
    import cv2

    height, width = film.shape
    scale = _SIDE / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(film, shape, interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(small - cv2.GaussianBlur(small, (0, 0), _SLOW), dtype=np.float32)


def _spread(count: int) -> list[int]:
    """Places of at most `_MOST_FILMS` of so many films, evenly spread."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, _MOST_FILMS))}) if count else []


def _look(films: Sequence[MarkedFilm], symbols: Sequence[str]) -> _Films:
    views, points, sizes, pixel_sizes = [], [], [], []
    for film in films:
        try:
            pixels = read_film(film.path)
        except DataError:
            continue  # a finding of its own
        annotation = next(iter(film.annotations.values()))
        views.append(view_of(pixels))
        points.append(annotation.points(symbols))
        sizes.append(pixels.shape[::-1])
        pixel_sizes.append(film.pixel_size_mm or (np.nan, np.nan))
    shape = (len(views), 1, 2)
    return _Films(
        views,
        np.array(points, dtype=np.float64).reshape(len(views), len(symbols), 2),
        np.array(sizes, dtype=np.float64).reshape(shape),
        np.array(pixel_sizes, dtype=np.float64).reshape(shape),
    )


def _on_a_spot(seen: _Films) -> bool:
    """Whether the points of all films lie in one tiny part of the film, at its top left corner."""
    fractions = seen.points / seen.sizes
    every = np.concatenate([fractions[np.isfinite(fractions).all(axis=2)], np.zeros((1, 2))])
    low, high = np.percentile(every, (2, 98), axis=0)
    return bool((high - np.minimum(low, 0) < _SPOT).all())


def _better_reading(seen: _Films, *, on_a_spot: bool) -> _Reading | None:
    """The reading that agrees far better than pixels do, None if none does or there are too few films to say."""
    if len(seen.views) < FEWEST_FILMS:
        return None
    as_written = agreement(seen.views, (seen.points + 0.5) / seen.sizes)
    if as_written > _ENOUGH and not on_a_spot:
        return None
    scored = [(agreement(seen.views, each.fractions), each) for each in _readings(seen)]
    best = max(score for score, _ in scored)
    # Of readings that say nearly the same, the first is the one that people mean.
    reading = next(each for score, each in scored if score > best - _SAME)
    # Points on one spot see one corner of their films, whose likeness says nothing for them.
    least = _LEAST_AGREEMENT if on_a_spot else max(_LEAST_AGREEMENT, as_written + _GAIN, _TIMES * as_written)
    return reading if best > least else None


def _readings(seen: _Films) -> Iterator[_Reading]:
    points, sizes = seen.points, seen.sizes
    yield _Reading("wrong_unit", _unit("fractions of the film's width and height"), points)
    yield _Reading("wrong_unit", _unit("per cent of the film's width and height"), points / 100)
    if np.isfinite(seen.pixel_sizes_mm).all():
        yield _Reading("wrong_unit", _unit("millimetres"), points / seen.pixel_sizes_mm / sizes)
    for scale in _SCALES:
        said = f"pixels of the films at about {1 / scale:.2g} times their size"
        yield _Reading("wrong_unit", _unit(said), (points + 0.5) * scale / sizes)
    yield _Reading("swapped_axes", _plainly("have x and y swapped"), (points[..., ::-1] + 0.5) / sizes)
    flipped: Mapping[str, tuple[Sequence[int], Sequence[int]]] = {
        "at the bottom left": ([0, 1], [1, -1]),
        "at the top right": ([1, 0], [-1, 1]),
        "at the bottom right": ([1, 1], [-1, -1]),
    }
    for corner, (start, sign) in flipped.items():
        said = f"have their origin {corner}"
        yield _Reading("wrong_origin", _plainly(said), start + np.array(sign) * (points + 0.5) / sizes)


def _unit(said: str) -> str:
    return f"as {said}, not as pixels of them; write them in pixels"


def _plainly(said: str) -> str:
    return f"far better if they {said}; write x, y from the top left corner"


def _likeness(views: Sequence[NDArray[np.float32]], fractions: Array) -> float:
    """The mean correlation of the pictures around each landmark on different films; 0 where there is nothing to see."""
    import cv2

    steps = np.arange(-_REACH, _REACH + 1) * _STEP
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    count, landmarks, _ = fractions.shape
    patches = np.zeros((count, landmarks, len(grid)), dtype=np.float32)
    for place, view in enumerate(views):
        middle = np.nan_to_num(fractions[place], nan=-9.0) * view.shape[::-1] - 0.5
        where = (middle[:, None] + grid).astype(np.float32)
        patches[place] = cv2.remap(view, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderValue=0.0)
    patches -= patches.mean(axis=2, keepdims=True)
    lengths = np.linalg.norm(patches, axis=2, keepdims=True)
    flat = lengths < _LEAST_CONTRAST * np.sqrt(len(grid))
    unit = np.where(flat, 0, patches / np.maximum(lengths, 1e-6))
    known = np.isfinite(fractions).all(axis=2).sum(axis=0)
    # The products of all pairs of films are the square of their sum, less that of each with itself.
    pairs = (unit.sum(axis=0) ** 2).sum(axis=1) - (unit**2).sum(axis=(0, 2))
    enough = known >= min(FEWEST_FILMS, count)
    return float((pairs[enough] / (known[enough] * (known[enough] - 1))).mean()) if enough.any() and count > 1 else 0.0
