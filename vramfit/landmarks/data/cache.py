"""Films decoded once: letterboxed grey uint8 images in one memory-mapped file a film set.

N films, H W image pixels. The file's name holds a digest of every film's path, size and time of change, and of the
image size: a changed film makes another file. A file appears whole or not at all, so a crash leaves nothing half-made;
of two runs that build the same one, whichever ends last replaces it by its equal.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import CannotWrite, DataError
from vramfit.files import user_cache_folder, write_atomically
from vramfit.landmarks.data.films import Film, FilmSet
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.data.letterbox import Letterbox

# Called with the films done and the films in all.
Progress = Callable[[int, int], None]

_LAYOUT = 3
_OURS = re.compile(r"\w+-\d+x\d+-[0-9a-f]{20}\.(npy|json)")
_OURS_HALF = re.compile(rf"\.{_OURS.pattern}\..*\.partial")
_UNUSED_S = 30 * 24 * 3600
_ABANDONED_S = 6 * 3600


class FilmCache:
    """The images of a film set, read from a memory-mapped file; pickles as the file's name.

    `film_set` lacks the films that could not be decoded, if they were to be skipped; `rows` are the others' places.
    """

    def __init__(self, path: Path, film_set: FilmSet, image_size: tuple[int, int], rows: Sequence[int]) -> None:
        self.path = path
        self.film_set = film_set
        self.image_size = image_size
        self.rows = tuple(rows)
        self.letterboxes = tuple(Letterbox.of(film.size, image_size) for film in film_set.films)
        self._images: NDArray[np.uint8] | None = None

    @classmethod
    def open(
        cls,
        film_set: FilmSet,
        image_size: tuple[int, int],
        *,
        folder: Path | None = None,
        skip_bad: bool = False,
        may_be_empty: bool = False,
        progress: Progress | None = None,
    ) -> Self:
        """The cache of a film set, built if it is not there yet.

        Args:
            film_set: the films.
            image_size: (H, W).
            folder: where caches lie; None for `default_folder()`.
            skip_bad: leave out films that cannot be decoded, in place of raising.
            may_be_empty: whether all of them may be left out.
            progress: called as films are decoded.

        Raises:
            DataError: a film cannot be decoded, or none can, as the two options say.
            CannotWrite: no space or permission for the file, about H x W bytes a film.

        """
        folder = folder or default_folder()
        path = folder / _name(film_set, image_size)
        bad = _known_bad(path)
        if bad is None or not _is_whole(path, len(film_set), image_size):
            _sweep(folder)
            bad = _build(path, film_set.films, image_size, progress)
        _touch(path)
        cache = cls._of(path, film_set, image_size, bad, skip_bad)
        if not len(cache) and not may_be_empty:
            raise DataError(f"{film_set.root}: none of the {len(film_set)} films of '{film_set.split}' can be decoded.")
        return cache

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, places: Sequence[int]) -> Self:
        """The same file with some of its films, in this order."""
        films = tuple(self.film_set.films[place] for place in places)
        film_set = replace(self.film_set, films=films)
        return type(self)(self.path, film_set, self.image_size, [self.rows[place] for place in places])

    def without(self, bad: Mapping[str, str]) -> Self:
        """The same file less the films whose ids are keys of `bad`, listed as skipped; the values say why."""
        rows = [row for row, film in zip(self.rows, self.film_set.films, strict=True) if film.id not in bad]
        return type(self)(self.path, self.film_set.without(bad), self.image_size, rows)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The uint8 HxW image of a film; read-only, straight from the file."""
        if self._images is None:
            self._images = np.load(self.path, mmap_mode="r")
        image: NDArray[np.uint8] = self._images[self.rows[index]]
        return image

    def points(self) -> NDArray[np.float64]:
        """The landmarks of all films in image pixels, NxKx2."""
        pairs = zip(self.letterboxes, self.film_set.films, strict=True)
        return np.stack([letterbox.to_image(film.points) for letterbox, film in pairs])

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would pickle as all its pixels: a worker maps the file anew.
        return {**self.__dict__, "_images": None}

    @classmethod
    def _of(
        cls, path: Path, film_set: FilmSet, image_size: tuple[int, int], bad: Mapping[str, str], skip_bad: bool
    ) -> Self:
        if bad and not skip_bad:
            raise DataError(next(iter(bad.values())))
        rows = [row for row, film in enumerate(film_set.films) if film.id not in bad]
        return cls(path, film_set.without(bad), image_size, rows)


def default_folder() -> Path:
    """Where caches lie: VRAMFIT_CACHE, or the system's place for such files."""
    folder = user_cache_folder()
    return folder if os.environ.get("VRAMFIT_CACHE") else folder / "films"


def _name(film_set: FilmSet, image_size: tuple[int, int]) -> str:
    digest = hashlib.sha256(repr((_LAYOUT, image_size)).encode())
    for film in film_set.films:
        state = film.path.stat()
        digest.update(repr((str(film.path.resolve()), state.st_size, state.st_mtime_ns)).encode())
    return f"{film_set.split}-{image_size[0]}x{image_size[1]}-{digest.hexdigest()[:20]}.npy"


def _bad_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _known_bad(path: Path) -> dict[str, str] | None:
    """Films that could not be decoded, as noted when the cache was built; None if it was not."""
    try:
        bad: dict[str, str] = json.loads(_bad_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return bad


def _is_whole(path: Path, films: int, image_size: tuple[int, int]) -> bool:
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return bool(images.shape == (films, *image_size) and images.dtype == np.uint8)


def _build(path: Path, films: Sequence[Film], image_size: tuple[int, int], progress: Progress | None) -> dict[str, str]:
    bad: dict[str, str] = {}
    images = _decoded(films, image_size, bad, progress)
    try:
        write_atomically(path, partial(_write_images, images=images, shape=(len(films), *image_size)))
    except CannotWrite:
        # Windows lets nobody replace a file that another run has mapped; that run's file is the same.
        if not _is_whole(path, len(films), image_size):
            raise
    write_atomically(_bad_file(path), json.dumps(bad, ensure_ascii=False))
    return bad


def _write_images(file: BinaryIO, *, images: Iterator[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    # Written, not mapped: a full disk is then an error and not a dead process.
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for image in images:
        file.write(image.tobytes())


def _decoded(
    films: Sequence[Film], image_size: tuple[int, int], bad: dict[str, str], progress: Progress | None
) -> Iterator[NDArray[np.uint8]]:
    """Every film's image, in order; threads, for OpenCV decodes and resizes outside Python's lock."""
    workers = os.cpu_count() or 1
    window = 4 * workers  # so that at most this many wait to be written
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(films), window):
            group = films[start : start + window]
            results = pool.map(partial(_decode, image_size), group)
            for done, (film, result) in enumerate(zip(group, results, strict=True), start + 1):
                if isinstance(result, str):
                    bad[film.id] = result
                yield np.zeros(image_size, dtype=np.uint8) if isinstance(result, str) else result
                if progress is not None:
                    progress(done, len(films))


def _decode(image_size: tuple[int, int], film: Film) -> NDArray[np.uint8] | str:
    try:
        pixels = read_film(film.path)
    except DataError as error:
        return str(error)
    return Letterbox.of(film.size, image_size).apply(pixels)


def _touch(path: Path) -> None:
    try:
        for file in (path, _bad_file(path)):
            os.utime(file)
    except OSError:
        return  # someone else's cache, read-only: its age is theirs to tell


def _sweep(folder: Path) -> None:
    """Remove caches unused for a month, and the halves of builds that were killed hours ago.

    The folder may hold other people's files: only names that a cache has are looked at.
    """
    now = time.time()
    for file in folder.iterdir() if folder.is_dir() else ():
        if _OURS.fullmatch(file.name):
            _remove_older(file, now - _UNUSED_S)
        elif _OURS_HALF.fullmatch(file.name):
            _remove_older(file, now - _ABANDONED_S)


def _remove_older(file: Path, limit: float) -> None:
    try:
        if file.stat().st_mtime < limit:
            file.unlink()
    except OSError:
        return  # in use on Windows, or already gone
