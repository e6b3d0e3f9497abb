"""Films of a format without folders of its own, made into a set: splits, machines and pixel sizes from where they are.

A film's split, pixel size and machine are those that the format wrote beside it, else those of its row in films.csv.
Where no film has a split, each is drawn from its id.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.formats.csv_files import is_foreign
from vramfit.landmarks.data.formats.scanners import Scanners, read_scanners, row_findings
from vramfit.landmarks.data.image import SUFFIXES, pixel_size_mm
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import SPLITS, MarkedFilm, MarkedSet, split_called

FILMS_FILE = "films.csv"
# The name of a rater whom nobody named.
RATER = "rater"

_ANY_SUFFIX = tuple(suffix for known in SUFFIXES for suffix in (known, known.upper()))
_SHARES = {"test": 0.15, "valid": 0.15}
_SPLIT_SEED = 0


@dataclass
class Draft:
    """A film as far as its format describes it: `split` as it is written, empty if it is not.

    `image` is the id of the image that it was cut from, empty if from none: films of one image share a split.
    """

    id: str
    path: Path
    split: str = ""
    pixel_size_mm: tuple[float, float] | None = None
    machine: str = ""
    size: tuple[int, int] | None = None
    image: str = ""
    annotations: dict[str, Annotation] = field(default_factory=dict)
    faults: list[Finding] = field(default_factory=list)

    def mark(self, rater: str, annotation: Annotation) -> None:
        """Add a rater's points; a second time is a fault."""
        if rater in self.annotations:
            message = f"film '{self.id}' is marked twice by one rater, there and in {self.annotations[rater].place}."
            self.faults.append(finding("unreadable_annotation", annotation.place, message))
        self.annotations.setdefault(rater, annotation)


def complete(
    root: Path,
    landmarks: Iterable[Landmark],
    drafts: Sequence[Draft],
    findings: Iterable[Finding] = (),
    notes: Iterable[str] = (),
) -> MarkedSet:
    """The set of these films, its landmarks each named once.

    Raises:
        DataError: no film, or a films.csv that cannot be read.

    """
    if not drafts:
        raise DataError(f"{root}: no film is named in it.")
    by_symbol: dict[str, Landmark] = {}
    for landmark in landmarks:
        by_symbol.setdefault(landmark.symbol, landmark)
    table = _films_table(root)
    splits, drawn = _splits(drafts, table)
    pairs = sorted(zip(drafts, splits, strict=True), key=lambda pair: pair[0].id)
    films = tuple(_film(draft, split, tuple(by_symbol), table) for draft, split in pairs)
    found = [*findings, *_unknown_splits(drafts, splits)]
    if table is not None:
        found += row_findings(table, [(film.split, film.id) for film in films])
    return MarkedSet(root, tuple(by_symbol.values()), films, tuple(found), notes=(*notes, *drawn))


def image_size(width: object, height: object) -> tuple[int, int] | None:
    """(width, height) where both are whole numbers, or words for them."""
    try:
        size = int(str(width)), int(str(height))
    except ValueError:
        return None
    return size if min(size) > 0 else None


def find_film(named: str, folders: Iterable[Path]) -> Path:
    """The film of a name or path, with or without its suffix, in the first folder that has it.

    An absolute path, or one upwards, is taken as it is where it exists; one of another machine, `C:\\films\\001.png`,
    is looked for by its last name too. Where no folder has it, the place where it should be.
    """
    folders, name = list(folders), named.replace("\\", "/")
    last = PurePosixPath(name).name
    wanted = [folder / (last if is_foreign(name) else name) for folder in folders]
    as_written = [folder / name for folder in folders] if is_foreign(name) and not name.startswith("~") else []
    everywhere = dict.fromkeys((*as_written, *wanted, *(folder / last for folder in folders)))
    candidates = (candidate for path in everywhere for candidate in _spellings(path))
    return next((path for path in candidates if path.is_file()), wanted[0])


def _spellings(path: Path) -> Iterator[Path]:
    """A film's path as it is, with its suffix in other letters, and with each suffix that it may lack."""
    yield path
    yield from (path.with_suffix(suffix) for suffix in (path.suffix.lower(), path.suffix.upper()) if path.suffix)
    yield from (path.with_name(path.name + suffix) for suffix in _ANY_SUFFIX if path.name)


def splits_of_ids(film_ids: Iterable[str]) -> dict[str, str]:
    """The splits of some films by their ids, each split with a film where there are three or more.

    A split that the draw left empty takes the film of the lowest draw from the split with the most.
    """
    splits = {film_id: split_of_id(film_id) for film_id in sorted(film_ids, key=_draw)}
    for split in SPLITS:
        if split not in splits.values() and len(splits) >= len(SPLITS):
            most = Counter(splits.values()).most_common(1)[0][0]
            splits[next(film_id for film_id, drawn in splits.items() if drawn == most)] = split
    return splits


def split_of_id(film_id: str) -> str:
    """A split by a digest of the id alone: a film keeps its split whatever other films come or go."""
    share = _draw(film_id)
    for split, part in _SHARES.items():
        if share < part:
            return split
        share -= part
    return "train"


def _draw(film_id: str) -> float:
    """A number from 0 up to 1 that depends on the id alone."""
    digest = hashlib.sha256(f"{_SPLIT_SEED}/{film_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _films_table(root: Path) -> Scanners | None:
    path = (root if root.is_dir() else root.parent) / FILMS_FILE
    return read_scanners(path) if path.is_file() else None


def _splits(drafts: Sequence[Draft], table: Scanners | None) -> tuple[list[str], tuple[str, ...]]:
    written = [draft.split or (table.split_of(draft.id) if table else "") for draft in drafts]
    if any(written):
        return [split_called(name) for name in written], ()
    drawn = splits_of_ids(draft.image or draft.id for draft in drafts)
    splits = [drawn[draft.image or draft.id] for draft in drafts]
    counts = ", ".join(f"{splits.count(split)} {split}" for split in SPLITS)
    return splits, (f"The film set names no splits: each film's was drawn from its id, the same every time: {counts}.",)


def _unknown_splits(drafts: Sequence[Draft], splits: Sequence[str]) -> Iterable[Finding]:
    for draft, split in zip(drafts, splits, strict=True):
        if not split:
            said = f"its split '{draft.split}' is none of" if draft.split else "it names no split; the rest names"
            yield finding("unknown_split", draft.path, f"{said} {', '.join(SPLITS)}, so no verb sees this film.")


def _film(draft: Draft, split: str, symbols: Sequence[str], table: Scanners | None) -> MarkedFilm:
    size, machine, faults = draft.pixel_size_mm, draft.machine, draft.faults
    if size is None and table is not None and table.has_pixel_sizes:
        try:
            row = table.of(draft.id, split)
        except DataError as error:
            message = str(error).removeprefix(f"{table.path}: ")
            faults = [*faults, finding("missing_pixel_size", table.path, message)]
        else:
            size, machine = row.pixel_size_mm, machine or row.name
    size = size or pixel_size_mm(draft.path)
    annotations = {rater: _filled(annotation, symbols) for rater, annotation in draft.annotations.items()}
    return MarkedFilm(draft.id, split, draft.path, annotations, size, machine or "unknown", draft.size, tuple(faults))


def _filled(annotation: Annotation, symbols: Sequence[str]) -> Annotation:
    """The annotation with every landmark of the set: in these formats, one without a position need not be listed."""
    nowhere = dict.fromkeys(symbols, (np.nan, np.nan))
    return replace(annotation, positions={**nowhere, **annotation.positions})
