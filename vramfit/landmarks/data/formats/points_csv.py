"""Points in a CSV file: a line a film, or a line a landmark.

    film,split,pixel_size,S_x,S_y,N_x,N_y          wide: two columns a landmark
    film,symbol,x,y                                long: what `vramfit infer --format csv` writes

More columns are read where they are there: split, rater, machine, pixel_size (or pixel_size_x and pixel_size_y), width
and height, title. An empty cell, or a landmark without a line, is a missing landmark. `csv_columns` knows what else
people call these columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.formats.assemble import FILMS_FILE, RATER, Draft, complete, find_film
from vramfit.landmarks.data.formats.csv_columns import FILM, canonical, film_column, landmark_columns, symbol_column
from vramfit.landmarks.data.formats.csv_files import Numerals, encoding_note, number, read_rows, without_suffix
from vramfit.landmarks.data.issues import finding
from vramfit.landmarks.data.marked import MarkedSet, split_called


class PointsCsv:
    """Film sets whose points are in CSV files: one, or one for each split named by it."""

    name = "csv"
    title = "CSV of points"

    def detect(self, path: Path) -> bool:
        """Whether the file, or one of the folder's, has columns of films and points."""
        return any(_is_points(file) for file in _files(path))

    def read(self, path: Path) -> MarkedSet:
        """The films of the file, or of all such files in the folder."""
        files = [file for file in _files(path) if path.is_file() or _is_points(file)]
        if not files:
            raise DataError(f"{path}: no CSV of points in it.")
        if len(files) > 1 and not all(split_called(file.stem) for file in files):
            names = ", ".join(file.name for file in files)
            raise DataError(f"{path}: several CSV files of points ({names}); name one, or call them by their splits.")
        tables = [_Table.read(file) for file in files]
        landmarks = [landmark for table in tables for landmark in table.landmarks()]
        notes = [note for file in files for note in encoding_note(file)]
        return complete(path, landmarks, [draft for table in tables for draft in table.drafts()], notes=notes)


@dataclass(frozen=True)
class _Table:
    """A file: `film`, `symbol`, `x` and `y` are columns; wide tables have no `symbol`."""

    path: Path
    columns: Sequence[str]
    lines: Sequence[tuple[int, Mapping[str, str]]]
    film: str
    symbol: str
    pairs: Mapping[str, tuple[str, str]]
    numerals: Numerals

    @classmethod
    def read(cls, path: Path) -> "_Table":
        header, *rows = read_rows(path) or [[]]
        columns = _columns(header)
        film, symbol = film_column(columns), symbol_column(columns)
        lines = [
            (line, {**dict.fromkeys(columns, ""), **dict(zip(columns, row, strict=False))})
            for line, row in enumerate(rows, 2)
            if any(row)
        ]
        symbol = symbol if {"x", "y"} <= set(columns) else ""
        pairs = {} if symbol else _pairs(path, columns)
        written = [row[column] for _, row in lines for pair in pairs.values() or [("x", "y")] for column in pair]
        table = cls(path, columns, lines, film, symbol, pairs, Numerals.of(written))
        if not film or not table.landmarks():
            raise DataError(
                f"{path}: no columns of films and points: film (or {', '.join(FILM[1:8])} ...), then S_x, S_y and so "
                f"on, or symbol, x, y; it has {', '.join(header[:8]) or 'none'}{' ...' if len(header) > 8 else ''}."
            )
        return table

    def landmarks(self) -> list[Landmark]:
        """Its landmarks in order."""
        if self.symbol:
            titles = {row[self.symbol]: row.get("title", "") for _, row in self.lines}
            return [named(symbol, title) for symbol, title in titles.items() if symbol]
        return [named(symbol) for symbol in self.pairs]

    def drafts(self) -> list[Draft]:
        """Its films, in order of their first line."""
        drafts: dict[tuple[str, str], Draft] = {}
        for line, row in self.lines:
            key = without_suffix(row[self.film]), row.get("split", "") or split_called(self.path.stem)
            if key not in drafts:
                drafts[key] = self._draft(*key, row)
            place = f"{self.path}, line {line}"
            try:
                self._mark(drafts[key], place, row)
            except ValueError as error:
                drafts[key].faults.append(finding("unreadable_annotation", place, f"{error}; correct the cell."))
        return list(drafts.values())

    def _draft(self, film_id: str, split: str, row: Mapping[str, str]) -> Draft:
        folder = self.path.parent
        path = find_film(row[self.film], (folder, folder / "images", folder / "films"))
        return Draft(film_id, path, split, machine=row.get("machine", ""))

    def _mark(self, draft: Draft, place: str, row: Mapping[str, str]) -> None:
        draft.pixel_size_mm = draft.pixel_size_mm or _pixel_size(row)
        draft.size = draft.size or _size(row)
        rater = row.get("rater", "").lower() or RATER
        if not self.symbol:
            draft.mark(
                rater, self._annotation(place, {symbol: (row[x], row[y]) for symbol, (x, y) in self.pairs.items()})
            )
            return
        one = self._annotation(place, {row[self.symbol]: (row["x"], row["y"])})
        known = draft.annotations.get(rater)
        if known is None:
            draft.mark(rater, one)
        elif known.positions.keys() & one.positions.keys():
            raise ValueError(f"landmark '{row[self.symbol]}' of film '{draft.id}' has a line already")
        else:
            positions = {**known.positions, **one.positions}
            draft.annotations[rater] = Annotation(known.place, known.landmarks + one.landmarks, positions)

    def _annotation(self, place: str, cells: Mapping[str, tuple[str, str]]) -> Annotation:
        positions = {named(symbol).symbol: self._position(symbol, *cell) for symbol, cell in cells.items()}
        return Annotation(place, tuple(named(symbol) for symbol in cells), positions)

    def _position(self, symbol: str, x: str, y: str) -> tuple[float, float]:
        try:
            place = self.numerals.number(x), self.numerals.number(y)
        except ValueError:
            raise ValueError(f"landmark '{symbol}' at '{x}', '{y}' has no numbers x and y") from None
        if np.isnan(place).sum() == 1:
            raise ValueError(f"landmark '{symbol}' has only one of x and y")
        return place


def _columns(header: Sequence[str]) -> list[str]:
    """The columns as they are looked up: those of landmarks as they are written, the others in small letters."""
    axes = {column for pair in landmark_columns(header).values() for column in pair.values()}
    return [name if name in axes else canonical(name) for name in header]


def _pairs(path: Path, columns: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The columns x and y of each landmark of a wide table."""
    found = landmark_columns(columns)
    for symbol, axes in found.items():
        if len(axes) != 2:
            raise DataError(f"{path}: landmark '{symbol}' has no column for its {'xy'['x' in axes]}; add it.")
    return {symbol: (axes["x"], axes["y"]) for symbol, axes in found.items()}


def _pixel_size(row: Mapping[str, str]) -> tuple[float, float] | None:
    across, down = (row.get(f"pixel_size_{axis}", "") or row.get("pixel_size", "") for axis in "xy")
    if not across and not down:
        return None
    try:
        size = number(across), number(down)
    except ValueError:
        size = (np.nan, np.nan)
    if not (0 < size[0] < np.inf and 0 < size[1] < np.inf):
        raise ValueError(f"its pixel size '{across}', '{down}' is none in mm, such as 0.1")
    return size


def _size(row: Mapping[str, str]) -> tuple[int, int] | None:
    try:
        return int(row["width"]), int(row["height"])
    except (KeyError, ValueError):
        return None


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.glob("*.csv") if file.name.lower() != FILMS_FILE)
    return [path] if path.suffix.lower() == ".csv" else []


def _is_points(file: Path) -> bool:
    try:
        rows = read_rows(file, most=1)
    except DataError:
        return False
    columns = _columns(rows[0]) if rows else []
    return _has_long(columns) or bool(landmark_columns(columns) and (film_column(columns) or len(columns) > 2))


def _has_long(columns: Sequence[str]) -> bool:
    return {"x", "y"} <= set(columns) and bool(film_column(columns) and symbol_column(columns))
