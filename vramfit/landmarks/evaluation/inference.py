"""Landmarks on films that nobody has marked: through the same cache, step and decoding as marked ones.

K landmarks. Films go through in groups, so that the space on disk and the time until the first result stay small
whatever their number.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from mimetypes import guess_type
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError, UsageError
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.films import Film, FilmSet, Landmark, Skipped
from vramfit.landmarks.data.image import SUFFIXES, film_size, pixel_size_mm
from vramfit.landmarks.evaluation.certainty import certainties
from vramfit.landmarks.evaluation.ensemble import ensemble_points, open_caches
from vramfit.landmarks.evaluation.predict_points import recovering
from vramfit.landmarks.model.calibration import Certainty
from vramfit.landmarks.model.decode import Method
from vramfit.landmarks.model.trained_network import Trained
from vramfit.records import OomEvent

_GROUP = 64


@dataclass(frozen=True)
class FoundLandmarks:
    """The landmarks found on one film: float64 Kx2 in its native pixels, and float64 K confidence, 0 to 1.

    `certainty` is in the film's pixels too, None from a network that was not calibrated, or not for
    points found this way.
    """

    film: Film
    points: NDArray[np.float64]
    confidence: NDArray[np.float64]
    certainty: Certainty | None = None


def unmarked_films(
    inputs: Sequence[str | Path],
    landmarks: tuple[Landmark, ...],
    *,
    skip_bad: bool = False,
    besides: Path | None = None,
) -> FilmSet:
    """Films without points: each input is a film, or a folder whose films are wanted, and those of its folders.

    A film's id is its name, for one in a folder's folder with that before it: `2024/anna`. Hidden folders are left
    out, and the folder `besides`, where pictures of an earlier run may lie, unless it is within the one that is given.

    Raises:
        DataError: an input that is not there, a folder without films, or a film whose header is damaged.
        UsageError: two films of one name, whose results would be one file.

    """
    found = [named for given in inputs for named in _films_in(Path(given), besides)]
    _require_names_apart(found)
    films, skipped = [], []
    for film_id, path in found:
        try:
            films.append(_unmarked(film_id, path, len(landmarks)))
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append(Skipped.of(film_id, str(error)))
    if not films:
        raise DataError(f"none of the {len(found)} films can be used; the first: {skipped[0].reason}")
    unread = [
        Skipped(path.name, f"{path}: of no type that is read.")
        for given in inputs
        for path in _other_images(Path(given))
    ]
    return FilmSet(Path(inputs[0]), "infer", "mean", landmarks, tuple(films), (*skipped, *unread))


def find_landmarks(
    trained: Trained,
    films: FilmSet,
    *,
    batch_size: int,
    others: Sequence[Trained] = (),
    method: Method = "dark",
    views: int = 1,
    skip_bad: bool = False,
    on_skip: Callable[[Skipped], None] = lambda _: None,
    on_event: Callable[[OomEvent], None] = lambda _: None,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Iterator[FoundLandmarks]:
    """The landmarks of each film, in order; less those that cannot be decoded, of which `on_skip` is told.

    With `others` of the same landmarks, points and confidence are the means of what all of them find. `on_batch` is
    told, after each batch, how many films have been dealt with.

    Raises:
        DataError: a film that cannot be decoded, unless `skip_bad`; or none of them can.
        OutOfMemory: a single film does not fit.

    """
    networks = [(each, recovering(each.step, batch_size, on_event)) for each in (trained, *others)]
    size = batch_size * max(1, _GROUP // batch_size)

    def found_in(group: FilmSet, start: int, folder: Path) -> list[FoundLandmarks]:
        opened = partial(FilmCache.open, folder=folder, skip_bad=skip_bad, may_be_empty=True)
        caches = open_caches((trained, *others), group, opened)
        cache = caches[0]
        for skipped in cache.film_set.skipped[len(group.skipped) :]:
            on_skip(skipped)
        lost = len(group) - len(cache)
        if not len(cache):
            on_batch(start + lost)
            return []
        found = ensemble_points(
            networks,
            caches,
            batch_size=batch_size,
            method=method,
            views=views,
            on_batch=lambda done: on_batch(start + lost + done // len(caches)),
        )
        rows = zip(
            cache.film_set.films, found.points, found.confidence, certainties(trained, found, cache), strict=True
        )
        return [FoundLandmarks(*row) for row in rows]

    none = True
    for start in range(0, len(films), size):
        group = replace(films, films=films.films[start : start + size])
        # Windows keeps a mapped file from being removed until the map is gone: not always at once.
        with TemporaryDirectory(prefix="vramfit-", ignore_cleanup_errors=True) as folder:
            found = found_in(group, start, Path(folder))
        none = none and not found
        yield from found
    if none:
        raise DataError(f"{films.root}: none of the {len(films)} films can be decoded.")


def _films_in(given: Path, besides: Path | None) -> list[tuple[str, Path]]:
    """Each film's id and file."""
    if not given.is_dir():
        if not given.is_file():
            raise DataError(f"{given}: no such film or folder.")
        return [(given.stem, given)]
    inside = {path: path.relative_to(given) for path in sorted(given.rglob("*")) if path.suffix.lower() in SUFFIXES}
    left_out = _within(given, besides)
    found = [
        (within.with_suffix("").as_posix(), path)
        for path, within in inside.items()
        if not any(part.startswith(".") for part in within.parts)
        and (left_out is None or left_out not in within.parents)
        and path.is_file()
    ]
    if not found:
        raise DataError(f"{given}: no films in it or its folders; the known types are {', '.join(SUFFIXES)}.")
    return found


def _other_images(given: Path) -> list[Path]:
    """The images in a folder, by their names, that are of no type that is read."""
    files = sorted(given.rglob("*")) if given.is_dir() else []
    others = (path for path in files if path.suffix.lower() not in SUFFIXES and not path.name.startswith("."))
    return [path for path in others if (guess_type(path.name)[0] or "").startswith("image/") or _is_volume(path)]


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".heic", ".heif", ".avif"))


def _within(folder: Path, other: Path | None) -> Path | None:
    """The other folder's place below this one; None where it is not below."""
    if other is None or folder.resolve() not in other.resolve().parents:
        return None
    return other.resolve().relative_to(folder.resolve())


def _require_names_apart(found: Iterable[tuple[str, Path]]) -> None:
    seen: dict[str, Path] = {}
    for film_id, path in found:
        # Case does not tell files apart on Windows and macOS.
        other = seen.setdefault(film_id.casefold(), path)
        if other is not path:
            raise UsageError(f"{other} and {path} have one name, and so would their results; infer them one by one.")


def _unmarked(film_id: str, path: Path, landmarks: int) -> Film:
    nowhere = np.full((landmarks, 2), np.nan)
    return Film(film_id, path, film_size(path), pixel_size_mm(path) or (np.nan, np.nan), "", nowhere, {})
