"""Tables and sentences as suits the stream: drawn and wrapped on a terminal, plain and whole everywhere else.

No number is ever cut: a table that is too wide for a terminal loses its columns of names first, then becomes several
tables of as many columns as fit, each with the first column; words alone are wrapped.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from io import StringIO
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

_NATURAL_WIDTH = 2000
_GAP = 2  # a column's padding, and the box's divider before the next one; the last has neither
_NARROWEST_WORDS, _LONGEST_WORD = 12, 20  # of a column whose cells are wrapped; a longer word is broken
_LONGEST_FIGURE = 36  # a time in hours with its range
# Names of films, machines and landmarks are the user's: brackets and colons in them are no markup of rich.
_AS_WRITTEN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
_LEFT = (
    "landmark",
    "choice",
    "levers",
    "why",
    "risk",
    "source",
    "image",
    "card",
    "name",
    "model",
    "torch",
    "made",
    "kind",
    "sources",
    "job",
    "phase",
)
# What the first column says already, in other words: left out where there is no room.
_NAMES = ("name", "what it is")
# Where a table of figures falls into two: memory up to here, time after it.
_LAST_OF_MEMORY = ("risk", "headroom GiB")


def make_table(columns: Sequence[str]) -> Table:
    """An empty table in the house's form; words to the left, figures to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right", overflow="fold")
    return table


def show(table: Table, file: TextIO | None = None) -> None:
    """Print a table as suits the stream: drawn on a terminal, plain text elsewhere."""
    file = file or sys.stdout
    if not file.isatty():
        file.write(plain_text(table))
        return
    console = Console(file=file, **_AS_WRITTEN)
    for place, part in enumerate(drawn_for(table, console)):
        if place:
            console.print()
        console.print(part)


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print sentences, a line each, wrapped between words on a terminal; further lines are as far in as the first."""
    file = file or sys.stdout
    width = shutil.get_terminal_size().columns if file.isatty() else None
    for line in lines:
        file.write(f"{line if width is None else wrapped(line, width)}\n")


def wrapped(line: str, width: int) -> str:
    """A line in lines of at most `width`, broken between words alone."""
    if cell_len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def drawn_for(table: Table, console: Console) -> list[Table]:
    """The table, or on a terminal too narrow for it without its names, or several of its columns in turn."""
    columns = table.columns
    if _width(columns) > console.width:
        columns = [column for place, column in enumerate(columns) if place == 0 or _title(column) not in _NAMES]
    return [with_columns(table, [*map(_uncut, group)]) for group in _groups(columns, console.width)]


def plain_text(table: Table) -> str:
    """A table as aligned lines at its natural width, ending in a newline."""
    plain = with_columns(table, [replace(column, header=_title(column)) for column in table.columns])
    plain.box, plain.padding = None, (0, 2, 0, 0)
    console = Console(file=StringIO(), width=_NATURAL_WIDTH, color_system=None, force_terminal=False, **_AS_WRITTEN)
    with console.capture() as capture:
        console.print(plain)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _groups(columns: list[Column], room: int) -> list[list[Column]]:
    """The columns in groups that fit, each after the first led by the first column."""
    if _width(columns, least=True) <= room:
        return [columns]
    titles = [*map(_title, columns)]
    cut = next((titles.index(title) + 1 for title in _LAST_OF_MEMORY if title in titles), 0)
    for halves in _halves(columns, cut) if cut else ():
        if all(_width(half, least=True) <= room for half in halves):
            return halves
    groups: list[list[Column]] = []
    group = [columns[0]]
    for column in columns[1:]:
        if len(group) > 1 and _width([*group, column], least=True) > room:
            groups.append(group)
            group = [columns[0]]
        group.append(column)
    return [*groups, group]


def _halves(columns: list[Column], cut: int) -> Iterator[list[list[Column]]]:
    """Memory and time by themselves; then the same with the source, which is true of both, beside the memory."""
    yield [columns[:cut], [columns[0], *columns[cut:]]]
    source = [column for column in columns[cut:] if _title(column) == "source"]
    yield [[*columns[:cut], *source], [columns[0], *(column for column in columns[cut:] if column not in source)]]


def _width(columns: Sequence[Column], *, least: bool = False) -> int:
    """The width of a table of these columns; the `least` one with its words wrapped."""
    widths = [_column_width(column, least=least and _is_words(column)) for column in columns]
    return sum(widths) + _GAP * (len(widths) - 1)


def _column_width(column: Column, *, least: bool) -> int:
    cells = [column.header, *column._cells]
    lines = [line for cell in cells for line in _plain(cell).splitlines()]
    whole = max(map(cell_len, lines), default=0)
    if not least:
        return whole
    longest = max((cell_len(word) for line in lines for word in line.split()), default=0)
    return min(whole, max(_NARROWEST_WORDS, min(longest, _LONGEST_WORD)))


def _is_words(column: Column) -> bool:
    """Whether a column may be wrapped: words are on the left, figures on the right and never long."""
    return column.justify == "left" or _column_width(column, least=False) > _LONGEST_FIGURE


def _uncut(column: Column) -> Column:
    return (
        replace(column, min_width=_column_width(column, least=True))
        if _is_words(column)
        else replace(column, no_wrap=True)
    )


def with_columns(table: Table, columns: list[Column]) -> Table:
    """The table with these columns of it alone."""
    part = copy(table)
    # rich pads a column by its place, which it keeps in the column.
    part.columns = [replace(column, _index=place) for place, column in enumerate(columns)]
    return part


def _title(column: Column) -> str:
    return _plain(column.header).replace("\n", " ")


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
