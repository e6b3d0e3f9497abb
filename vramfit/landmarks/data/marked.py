"""A film set as it was read, whatever its format, before anyone asked what of it can be used.

K landmarks. A format's reader fills these in and judges little: `of_split` refuses what training cannot use, and
`vramfit data check` lists everything at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation
from vramfit.landmarks.data.films import Film, FilmSet, Landmark, Points, Skipped
from vramfit.landmarks.data.image import ORIENTATIONS, film_size, orientation
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.raters import Annotator

# The three splits, and what else people call them.
SPLITS = {"train": ("train", "training"), "valid": ("valid", "val", "validation"), "test": ("test", "testing")}


def split_called(name: str) -> str:
    """The split that a name means, empty if none."""
    return next((split for split, names in SPLITS.items() if name.strip().lower() in names), "")


def split_of_file(path: Path) -> str:
    """The split that a file's name speaks of, val.json or person_keypoints_train2017.json, or else its folder's."""
    words = [*re.findall("[a-z]+", path.stem.lower()), path.parent.name]
    return next((split for split in map(split_called, words) if split), "")


@dataclass(frozen=True)
class MarkedFilm:
    """A film as its set describes it.

    `id` names it within its split; `annotations` are those of each rater, by name; `pixel_size_mm` is the (width,
    height) of a pixel and `size` that of the film in pixels, None if the set does not say; `faults` are why it cannot
    be used, each a whole sentence.
    """

    id: str
    split: str
    path: Path
    annotations: Mapping[str, Annotation]
    pixel_size_mm: tuple[float, float] | None
    machine: str = "unknown"
    size: tuple[int, int] | None = None
    faults: tuple[Finding, ...] = ()

    @property
    def is_marked(self) -> bool:
        """Whether a rater gave a position to a landmark."""
        places = (place for annotation in self.annotations.values() for place in annotation.positions.values())
        return any(np.isfinite(place).all() for place in places)

    def turned(self) -> tuple[Finding, ...]:
        """The finding that the film's file says it is to be shown turned or mirrored, if so."""
        tag = orientation(self.path)
        if tag == 1:
            return ()
        message = (
            f"its EXIF orientation is {tag} ({ORIENTATIONS[tag]}): programs that obey the tag and those that do not "
            "put points in different places; save the film as it is meant, without the tag."
        )
        return (finding("turned_film", self.path, message),)

    def wrong_size(self, size: tuple[int, int]) -> tuple[Finding, ...]:
        """The finding that the film's (width, height) is not what its set says, if so."""
        if self.size is None or self.size == size:
            return ()
        said, true = (f"{width}x{height}" for width, height in (self.size, size))
        message = f"it has {true} pixels where its set says {said}; its points would be in the wrong places."
        return (finding("wrong_size", self.path, message),)


@dataclass(frozen=True)
class MarkedSet:
    """All films of a set, of all splits.

    `root` is the folder or file that it was read from; `landmarks` what its films have, in the data's own order;
    `findings` what is odd and stops no film; `refusals` why a split cannot be read at all; `notes` decisions made in
    reading, such as how the films were split, one sentence each. `mean_rounds_up` is 'Aariz' policy: the mean of two
    raters is rounded up where both marked whole pixels.
    """

    root: Path
    landmarks: tuple[Landmark, ...]
    films: tuple[MarkedFilm, ...]
    findings: tuple[Finding, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mean_rounds_up: bool = False

    @property
    def has_millimetres(self) -> bool:
        """Whether a film of the set has a pixel size; where none has, everything is in pixels."""
        return any(film.pixel_size_mm is not None for film in self.films)

    def of_split(
        self,
        split: str,
        annotator: Annotator = "mean",
        *,
        skip_bad: bool = False,
        landmarks: tuple[Landmark, ...] | None = None,
    ) -> FilmSet:
        """The films of one split that can be used.

        Args:
            split: `train`, `valid` or `test`.
            annotator: whose points to learn. `mean` is that of all raters, and one rater does for both.
            skip_bad: leave out films that cannot be used and list them, in place of raising.
            landmarks: those wanted, in their order, such as those of a checkpoint; None for those of the set.

        Raises:
            DataError: no such split, a film that cannot be used, or other landmarks than those wanted.

        """
        if split in self.refusals:
            raise DataError(self.refusals[split])
        chosen = [film for film in self.films if film.split == split]
        if not chosen:
            there = ", ".join(dict.fromkeys(film.split for film in self.films)) or "no film at all"
            advice = "name another --split" if split == "test" else "use train --folds"
            raise DataError(
                f"{self.root}: no film of the split '{split}' in it, it has {there}; add a column `split` or {advice}."
            )
        wanted = landmarks or self.landmarks
        self._require(wanted)
        films: dict[str, Film] = {}
        skipped: list[Skipped] = []
        for film in chosen:
            try:
                _require_new(film, films)
                films[film.id] = self._usable(film, wanted, annotator)
            except DataError as error:
                if not skip_bad:
                    raise
                skipped.append(Skipped.of(film.id, str(error)))
        if not films:
            raise DataError(f"{self.root}: none of its {len(chosen)} films can be used; the first: {skipped[0].reason}")
        usable, rounds_up = tuple(films.values()), self.mean_rounds_up
        return FilmSet(self.root, split, annotator, wanted, usable, tuple(skipped), self.notes, rounds_up)

    def _require(self, wanted: tuple[Landmark, ...]) -> None:
        mine, theirs = ([landmark.symbol for landmark in some] for some in (self.landmarks, wanted))
        missing = [f"'{symbol}' is missing" for symbol in theirs if symbol not in mine]
        unknown = [f"'{symbol}' is not one of them" for symbol in mine if symbol not in theirs]
        if mine and (missing or unknown):
            differences = ", ".join((*missing[:1], *unknown[:1]))
            raise DataError(
                f"{self.root}: {len(mine)} landmarks where {len(theirs)} are wanted: {differences}; take a film set "
                "with the network's landmarks, or train a network on this one."
            )

    def _usable(self, film: MarkedFilm, landmarks: tuple[Landmark, ...], annotator: Annotator) -> Film:
        size = film_size(film.path)
        for fault in (*film.faults, *film.wrong_size(size), *film.turned()):
            raise DataError(f"{fault.place}: {fault.message.removesuffix('.')}, or use --skip-bad.")
        symbols = [landmark.symbol for landmark in landmarks]
        raters = {rater: annotation.checked(symbols, size) for rater, annotation in film.annotations.items()}
        points = self._chosen(raters, annotator, film.path)
        if film.pixel_size_mm is None and self.has_millimetres:
            raise DataError(
                f"{film.path}: the size of its pixels in mm is unknown; add it in a column `pixel_size` of the set's "
                "table or of films.csv beside it, or use --skip-bad."
            )
        return Film(film.id, film.path, size, film.pixel_size_mm or (np.nan, np.nan), film.machine, points, raters)

    def _chosen(self, raters: Mapping[str, Points], annotator: Annotator, path: Path) -> Points:
        if not any(np.isfinite(points).any() for points in raters.values()):
            raise DataError(f"{path}: no rater has marked this film; mark it or use --skip-bad.")
        if annotator == "mean":
            return combine(raters, rounds_up=self.mean_rounds_up)
        if annotator not in raters or not np.isfinite(raters[annotator]).any():
            raise DataError(f"{path}: not marked by the {annotator} rater; use --annotator mean or --skip-bad.")
        return raters[annotator]


def _require_new(film: MarkedFilm, before: Mapping[str, Film]) -> None:
    # Figures are kept by id: of two films of one id, one would be in no report.
    if film.id in before:
        same = before[film.id].path.name
        raise DataError(f"{film.path}: {same} has its id '{film.id}' too; rename one or use --skip-bad.")


def combine(raters: Mapping[str, Points], *, rounds_up: bool = False) -> Points:
    """The mean of all raters; a point that one lacks is that of the others, and NaN if nobody has it.

    With `rounds_up`, the mean of points that are all at whole pixels is rounded up to whole pixels.
    """
    every = np.stack(list(raters.values()))
    known = np.isfinite(every)
    count = known.sum(axis=0)
    mean = np.where(known, every, 0).sum(axis=0) / np.where(count, count, np.nan)
    whole = rounds_up and bool(np.all(every[known] == np.round(every[known])))
    combined: Points = np.ceil(mean) if whole else mean
    return combined
