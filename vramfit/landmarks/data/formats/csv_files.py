"""CSV files as people's programs write them: byte-order marks, semicolons, tabs, decimal commas."""

import csv
import io
import math
from pathlib import Path, PurePosixPath

from vramfit.errors import DataError
from vramfit.landmarks.data.image import SUFFIXES

_DELIMITERS = ",;\t"
_MISSING = {"", "na", "n/a", "none", "null", "-"}


def read_rows(path: Path, most: int | None = None) -> list[list[str]]:
    """The cells of every line, without the spaces around them, none for an empty one; `most` lines at most.

    Raises:
        DataError: it cannot be read as UTF-8 text.

    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read() if most is None else "".join(line for line, _ in zip(file, range(most), strict=False))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read ({error}); save it as UTF-8.") from None
    first = text.split("\n", 1)[0]
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=max(_DELIMITERS, key=first.count)))
    except csv.Error as error:
        raise DataError(f"{path}: no CSV ({error}); export it again.") from None
    return [[cell.strip() for cell in row] for row in rows]


def without_suffix(film: str) -> str:
    """A film's name or path as its id: forward slashes, and no `.png` or the like."""
    film = film.replace("\\", "/")
    return film[: -len(PurePosixPath(film).suffix)] if PurePosixPath(film).suffix.lower() in SUFFIXES else film


def number(text: str) -> float:
    """A cell as a number, NaN for an empty one; a decimal comma is one.

    Raises:
        ValueError: it is something else, or infinite.

    """
    if text.lower() in _MISSING:
        return math.nan
    value = float(text.replace(",", "."))
    if math.isinf(value):
        raise ValueError("infinite")
    return value
