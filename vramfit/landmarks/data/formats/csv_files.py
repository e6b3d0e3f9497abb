"""CSV files as people's programs write them: any usual encoding, delimiter and way of writing numbers."""

import codecs
import csv
import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from vramfit.errors import DataError
from vramfit.landmarks.data.image import SUFFIXES

_DELIMITERS = ",;\t|"
_HEAD_BYTES = 256 * 1024
_MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "nil", "none", "null", "undefined", "missing", "-", "--", "?", "."}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Excel's first line that names the delimiter.
_NAMED_DELIMITER = re.compile(r"\s*\"?sep=(?P<delimiter>.)\"?\s*", re.IGNORECASE)
# Thousands apart by an apostrophe or a space, the narrow ones of typography among them.
_SPACED = re.compile(r"(?<=\d)['’ \u00a0\u2009\u202f](?=\d{3}(?:\D|$))")


def read_rows(path: Path, most: int | None = None) -> list[list[str]]:
    """The cells of every line, without the spaces around them, none for an empty one; `most` lines at most.

    Raises:
        DataError: it cannot be read as text.

    """
    text = _decoded(path, whole=most is None)
    lines = text.splitlines(keepends=True)
    named = _NAMED_DELIMITER.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    body = lines[1 if named else 0 :][:most]
    delimiter = named["delimiter"] if named else max(_DELIMITERS, key=(body[0] if body else "").count)
    try:
        rows = list(csv.reader(io.StringIO("".join(body), newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: no CSV ({error}); export it again.") from None
    return [[cell.strip() for cell in row] for row in rows]


def encoding_note(path: Path) -> tuple[str, ...]:
    """A sentence on how a file's text was read, where that is not UTF-8."""
    encoding = _encoding(_content(path))
    if encoding.startswith("utf-8"):
        return ()
    return (f"{path.name} is not UTF-8 and was read as {encoding}; save it as UTF-8 if names look wrong.",)


def without_suffix(film: str) -> str:
    """A film's name or path as its id: forward slashes, no `.png` or the like, of another machine's path the name."""
    path = PurePosixPath(film.replace("\\", "/"))
    name = path.name if is_foreign(path.as_posix()) else film.replace("\\", "/")
    return name[: -len(path.suffix)] if path.suffix.lower() in SUFFIXES else name


def is_foreign(path: str) -> bool:
    """Whether a path with forward slashes is not one within a film set: absolute, of a drive, upwards, or a URL."""
    return path.startswith(("/", "../", "~")) or re.match(r"\w{1,8}:/", path) is not None


def number(text: str) -> float:
    """A cell as a number, NaN for an empty one; a decimal comma is one.

    Raises:
        ValueError: it is something else, or infinite.

    """
    return Numerals().number(text)


@dataclass(frozen=True)
class Numerals:
    """How a table writes numbers: `grouping` is what stands between thousands, `,`, `.` or nothing."""

    grouping: str = ""

    @classmethod
    def of(cls, cells: Iterable[str]) -> Self:
        """As the cells of a table have it.

        `1,115.5` tells by itself. A comma alone, as in `1,115`, is between thousands only if it is so in every cell
        that has one, and if other cells hold whole hundreds without one: pixels of a film of more than 1000 pixels.
        """
        known = [text for cell in cells if (text := _SPACED.sub("", cell)).lower() not in _MISSING]
        return next((cls(mark) for mark, point in (",.", ".,") if _groups(mark, point, known)), cls())

    def number(self, text: str) -> float:
        """A cell as a number, NaN for an empty one.

        Raises:
            ValueError: it is something else, or infinite.

        """
        if text.lower() in _MISSING:
            return math.nan
        plain = _SPACED.sub("", text)
        value = float((plain.replace(self.grouping, "") if self.grouping else plain).replace(",", "."))
        if math.isinf(value):
            raise ValueError("infinite")
        return value


def _groups(mark: str, point: str, cells: list[str]) -> bool:
    """Whether `mark` stands between thousands in these cells, `point` before decimals."""
    grouped = re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+(?P<rest>{re.escape(point)}\d*)?")
    matches = [grouped.fullmatch(cell) for cell in cells if mark in cell]
    if not matches or not all(matches):
        return False
    if any(match and (match["rest"] or match[0].count(mark) > 1) for match in matches):
        return True
    leads = [match[0].lstrip("+-").split(mark)[0] for match in matches if match]
    hundreds = any(len(cell.lstrip("+-").split(point)[0]) >= 3 for cell in cells if mark not in cell)
    # Decimals of three places are more usual after a point: a few of them prove nothing.
    return hundreds and max(map(len, leads)) <= 2 and (mark == "," or len(leads) >= 5)


def _decoded(path: Path, *, whole: bool) -> str:
    content = _content(path, None if whole else _HEAD_BYTES)
    encoding = _encoding(content)
    try:
        # Not the last bytes of a head: a character may be cut in two.
        return codecs.getincrementaldecoder(encoding)().decode(content, final=whole)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as UTF-8 ({error}); save it as UTF-8.") from None


def _content(path: Path, most: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


def _encoding(content: bytes) -> str:
    """What the bytes are written in, by their mark, by the zeros of UTF-16, or by what UTF-8 refuses."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding
    zeros = content[:1024].count(0)
    if zeros > len(content[:1024]) // 4:
        return "utf-16-le" if content[:1024:2].count(0) < zeros / 2 else "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content, final=False)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"
