"""Which machine took a film, how large its pixels are, and its split: one row a film.

In 'Aariz layout the table is cephalogram_machine_mappings.csv: cephalogram_id, machine, pixel_size (mm), image_format,
mode. Beside other formats it is films.csv: film, machine, pixel_size, split. Where pixels are not square, pixel_size_x
and pixel_size_y stand in place of pixel_size; the row of film `*` is for all that have none.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vramfit.errors import DataError
from vramfit.landmarks.data.formats.csv_files import number, read_rows, without_suffix
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import SPLITS, split_called

_ID, _MODE, _EVERY = "cephalogram_id", "mode", "*"
_ALIASES = {"film": _ID, "split": _MODE}


@dataclass(frozen=True)
class MachineOfFilm:
    """A machine's name and the (width, height) of its pixels in mm."""

    name: str
    pixel_size_mm: tuple[float, float]


@dataclass(frozen=True)
class Scanners:
    """The rows of the file, as written and by film id and split: an id that two splits use has a row for each."""

    path: Path
    records: Sequence[Mapping[str, str]]
    rows: Mapping[tuple[str, str], Mapping[str, str]]

    @property
    def has_pixel_sizes(self) -> bool:
        """Whether it has a column for them."""
        return any(name.startswith("pixel_size") for record in self.records[:1] for name in record)

    def of(self, film_id: str, split: str) -> MachineOfFilm:
        """The machine of a film.

        Raises:
            DataError: no row, or no usable pixel size in it; a size is never assumed.

        """
        row = self._row(film_id, split)
        if row is None:
            raise DataError(f"{self.path}: no row for film '{film_id}', so its pixel_size is unknown; add it.")
        across = self._millimetres(row, film_id, "pixel_size_x" if "pixel_size_x" in row else "pixel_size")
        down = self._millimetres(row, film_id, "pixel_size_y" if "pixel_size_y" in row else "pixel_size")
        return MachineOfFilm(row.get("machine") or "unknown", (across, down))

    def split_of(self, film_id: str) -> str:
        """The split that a film's row names, as it is written; empty where none does."""
        row = self._row(film_id, "")
        return row.get(_MODE, "") if row else ""

    def _row(self, film_id: str, split: str) -> Mapping[str, str] | None:
        # A spreadsheet drops the zeros in front of an id; one that is written out in full comes first.
        for name in (film_id, _without_zeros(film_id), _EVERY):
            for mode in (split, ""):
                if (name, mode) in self.rows:
                    return self.rows[name, mode]
        return None

    def _millimetres(self, row: Mapping[str, str], film_id: str, field: str) -> float:
        text = row.get(field, "")
        try:
            size = number(text)
        except ValueError:
            size = math.nan
        if not 0 < size < math.inf:
            said = f"is '{text}'" if text else "is missing"
            raise DataError(f"{self.path}: field '{field}' of film '{film_id}' {said}; write it in mm, such as 0.1.")
        return size


def read_scanners(path: Path) -> Scanners:
    """The file's rows; a byte-order mark, capitals, semicolons and tabs are accepted.

    Raises:
        DataError: unreadable, or without a column of ids.

    """
    header, *rows = read_rows(path) or [[]]
    columns = [_ALIASES.get(name.lower(), name.lower()) for name in header]
    if _ID not in columns:
        raise DataError(f"{path}: no column '{_ID}' or 'film'; its first line must name the columns.")
    records = [{**dict.fromkeys(columns, ""), **dict(zip(columns, row, strict=False))} for row in rows if any(row)]
    records = [{**record, _ID: without_suffix(record[_ID])} for record in records]
    return Scanners(path, records, _by_film(records))


def row_findings(machines: Scanners, films: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """What is odd about the rows, beside films as (split, id)."""
    splits: dict[str, set[str]] = {}
    for split, film_id in films:
        splits.setdefault(film_id, set()).add(split)
        splits.setdefault(_without_zeros(film_id), set()).add(split)
    said: dict[tuple[str, str], Mapping[str, str]] = {}
    for row in machines.records:
        film_id, mode = row[_ID], split_called(row.get(_MODE, ""))
        if film_id not in splits and film_id != _EVERY:
            yield finding("orphan_row", machines.path, f"there is no film '{film_id}'.")
        elif mode and mode not in splits.get(film_id, SPLITS):
            yield finding("wrong_mode", machines.path, f"film '{film_id}' is not in '{mode}' as its row says.")
        if said.setdefault((film_id, mode), row) != row:
            yield finding("conflicting_rows", machines.path, f"film '{film_id}' has two rows that differ.")


def _by_film(records: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], Mapping[str, str]]:
    rows: dict[tuple[str, str], Mapping[str, str]] = {}
    # Ids as written come before ids without their zeros, for '1' and '01' may be two films.
    for shorten in (str, _without_zeros):
        for row in records:
            film_id = shorten(row[_ID])
            rows.setdefault((film_id, split_called(row.get(_MODE, ""))), row)
            rows.setdefault((film_id, ""), row)
    return rows


def _without_zeros(film_id: str) -> str:
    return film_id.lstrip("0")
