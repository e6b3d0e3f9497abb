"""Cross-validation: the films of training and validation, dealt to folds.

A film's fold depends on its id and split, those of the other films, and the seed: on no order and no machine. Films
whose files are the same byte for byte are dealt together, so that none is learned from and judged by.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vramfit.errors import DataError, UsageError
from vramfit.landmarks.data.films import Film, FilmSet


@dataclass(frozen=True)
class Fold:
    """The fold to validate on, from 1, of how many, as dealt by a seed."""

    number: int
    of: int
    seed: int = 0


def pooled(splits: Sequence[FilmSet]) -> FilmSet:
    """Some splits as one set; a film whose id is in several is called `SPLIT-ID`."""
    counts = Counter(film.id for films in splits for film in films.films)
    films = [
        replace(film, id=f"{films.split}-{film.id}") if counts[film.id] > 1 else film
        for films in splits
        for film in films.films
    ]
    skipped = tuple(one for films in splits for one in films.skipped)
    return replace(splits[0], split="pool", films=tuple(films), skipped=skipped)


def deal(films: Sequence[Film], folds: int, seed: int) -> list[int]:
    """The fold of each film, from 1; sizes differ by one film at most, duplicates apart.

    Raises:
        UsageError: more folds than different films.
        DataError: a film cannot be read.

    """
    groups = _same_files(films)
    if folds > len(groups):
        raise UsageError(f"--folds {folds}: there are {len(groups)} different films; use at most as many folds.")
    order = sorted(groups, key=lambda group: _lot(films[group[0]].id, seed))
    fold_of = {place: number % folds + 1 for number, group in enumerate(order) for place in group}
    return [fold_of[place] for place in range(len(films))]


def _lot(film_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{film_id}".encode()).digest()


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise DataError(f"{path}: the film cannot be read ({error.strerror}).") from None


def _same_files(films: Sequence[Film]) -> list[list[int]]:
    """The places of films in groups of equal files, each in order of id; only files of one size are read."""
    by_size = defaultdict(list)
    for place in sorted(range(len(films)), key=lambda place: films[place].id):
        by_size[films[place].path.stat().st_size].append(place)
    groups: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for size, places in by_size.items():
        for place in places:
            groups[size, _digest(films[place].path) if len(places) > 1 else b""].append(place)
    return list(groups.values())
