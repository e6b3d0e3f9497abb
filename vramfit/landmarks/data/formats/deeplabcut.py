"""DeepLabCut's labels: CollectedData_<scorer>.csv, or its .h5 where there is no such CSV.

    scorer,,,Anna,Anna,Anna,Anna
    bodyparts,,,S,S,N,N
    coords,,,x,y,x,y
    labeled-data,video,img001.png,311.5,402.25,,

The path of the image takes one column or three; an empty cell is a missing landmark. Of several animals, which a line
`individuals` names, each has its landmarks, `mouse1 S` and `mouse2 S`; one whose columns are empty is missing. A
project, a folder of one video or one file is read; scorers of the same images are raters. DeepLabCut knows neither
millimetres nor fixed splits: both may be given in films.csv, whose films are called as the images here are,
`video/img001`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.formats.assemble import Draft, complete, find_film
from vramfit.landmarks.data.formats.csv_files import number, read_rows, without_suffix
from vramfit.landmarks.data.formats.deeplabcut_h5 import looks_right, read_h5_rows
from vramfit.landmarks.data.issues import finding
from vramfit.landmarks.data.marked import MarkedSet

_HEADERS = {"scorer", "individuals", "bodyparts", "coords"}
_PATTERNS = ("CollectedData*", "labeled-data/*/CollectedData*", "*/CollectedData*")


class DeepLabCut:
    """Film sets as DeepLabCut's labels."""

    name = "deeplabcut"
    title = "DeepLabCut CSV or HDF5"

    def detect(self, path: Path) -> bool:
        """Whether the file, or one of the folder's, begins with DeepLabCut's lines of names."""
        return any(_looks_right(file) for file in _files(path))

    def read(self, path: Path) -> MarkedSet:
        """The images of the file, or of all files of labels in the folder or project."""
        files = [file for file in _files(path) if path.is_file() or _looks_right(file)]
        if not files:
            raise DataError(f"{path}: no CollectedData CSV or .h5 in it.")
        tables = [_Table.read(file) for file in files]
        drafts: dict[str, Draft] = {}
        for table in tables:
            for line, row in table.lines:
                _add(drafts, table, line, row)
        return complete(path, [mark for table in tables for mark in table.landmarks], list(drafts.values()))


@dataclass(frozen=True)
class _Table:
    """A file: how many columns the path takes, and the columns of each landmark's x and y."""

    path: Path
    scorer: str
    path_columns: int
    columns: dict[str, tuple[int, int]]
    lines: Sequence[tuple[int, Sequence[str]]]

    @classmethod
    def read(cls, path: Path) -> "_Table":
        rows = read_h5_rows(path) if _is_h5(path) else read_rows(path)
        headers = {row[0].lower(): row for row in rows[:4] if row and row[0].lower() in _HEADERS}
        if not {"scorer", "bodyparts", "coords"} <= headers.keys():
            raise DataError(f"{path}: its first lines are not scorer, bodyparts and coords.")
        first = next((place for place, cell in enumerate(headers["bodyparts"]) if place and cell), 1)
        lines = [(line, row) for line, row in enumerate(rows, 1) if line > len(headers) and any(row)]
        parts = _parts(headers["bodyparts"], headers.get("individuals", ()), first)
        columns = _columns(path, parts, headers["coords"], first)
        return cls(path, headers["scorer"][first], first, columns, lines)

    @property
    def landmarks(self) -> list[Landmark]:
        return [named(part) for part in self.columns]

    def image(self, row: Sequence[str]) -> str:
        """The path of a row's image as it is written."""
        return "/".join(part for part in row[: self.path_columns] if part).replace("\\", "/")

    def annotation(self, line: int, row: Sequence[str]) -> Annotation:
        """The row's points; ValueError if a cell is no number."""
        positions = {named(part).symbol: _position(part, row, *places) for part, places in self.columns.items()}
        return Annotation(f"{self.path}, line {line}", tuple(self.landmarks), positions)


def _add(drafts: dict[str, Draft], table: _Table, line: int, row: Sequence[str]) -> None:
    image = table.image(row)
    film_id = "/".join(without_suffix(image).split("/")[-2:])
    folder = table.path.parent
    names = [image.split("/")[-1], image]
    paths = [find_film(name, (folder, folder.parent.parent)) for name in names]
    found = next((path for path in paths if path.is_file()), paths[0])
    draft = drafts.setdefault(film_id, Draft(film_id, found))
    try:
        draft.mark(table.scorer.lower(), table.annotation(line, row))
    except ValueError as error:
        message = f"{error}; correct the cell."
        draft.faults.append(finding("unreadable_annotation", f"{table.path}, line {line}", message))


def _parts(parts: Sequence[str], individuals: Sequence[str], first: int) -> list[str]:
    """The name of each column's landmark: its body part, and before it the individual where there are several."""
    several = len(set(individuals[first:])) > 1
    padded = [*individuals, *[""] * (len(parts) - len(individuals))]
    pairs = zip(padded, parts, strict=False)
    # DeepLabCut calls parts of the scene, which no animal has, those of the individual "single".
    return [f"{one} {part}" if several and one and one != "single" else part for one, part in pairs]


def _columns(path: Path, parts: Sequence[str], coords: Sequence[str], first: int) -> dict[str, tuple[int, int]]:
    places: dict[str, dict[str, int]] = {}
    for column in range(first, min(len(parts), len(coords))):
        places.setdefault(parts[column], {})[coords[column].lower()] = column
    for part, axes in places.items():
        if not {"x", "y"} <= axes.keys():
            raise DataError(f"{path}: bodypart '{part}' has no columns x and y.")
    return {part: (axes["x"], axes["y"]) for part, axes in places.items()}


def _position(part: str, row: Sequence[str], x: int, y: int) -> tuple[float, float]:
    cells = [row[column] if column < len(row) else "" for column in (x, y)]
    try:
        place = number(cells[0]), number(cells[1])
    except ValueError:
        raise ValueError(f"bodypart '{part}' at '{cells[0]}', '{cells[1]}' has no numbers x and y") from None
    if np.isnan(place).sum() == 1:
        raise ValueError(f"bodypart '{part}' has only one of x and y")
    return place


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path] if path.suffix.lower() == ".csv" or looks_right(path) else []
    found = sorted({file for pattern in _PATTERNS for file in path.glob(pattern)})
    tables = [file for file in found if file.suffix.lower() == ".csv"]
    # DeepLabCut writes the same labels to both files.
    return tables + [file for file in found if _is_h5(file) and file.with_suffix(".csv") not in tables]


def _is_h5(file: Path) -> bool:
    return file.suffix.lower() in (".h5", ".hdf5")


def _looks_right(file: Path) -> bool:
    if _is_h5(file):
        return looks_right(file)
    try:
        return [*_first_cells(file)][:1] == ["scorer"] and "bodyparts" in _first_cells(file)
    except DataError:
        return False


def _first_cells(file: Path) -> Iterator[str]:
    yield from (row[0].lower() for row in read_rows(file, most=4) if row)
