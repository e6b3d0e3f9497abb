"""What a person at a terminal sees while something is done; a pipe or a file gets nothing of it.

It stands on stderr from the first second, and is cleaned away when the result is printed.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from vramfit.records import OomEvent


@contextmanager
def working(what: str, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A line of what is done and for how long already; called with a word of how far it is."""
    with _progress(shown=shown) as line:
        task = line.add_task(what, total=None)
        yield lambda word: line.update(task, description=f"{what}: {word}")


@contextmanager
def film_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing that is done, called with its name, the films done and the films in all."""
    with _progress() as bars:
        names = {"loading": bars.add_task("loading", total=None)}

        def progress(what: str, done: int, total: int) -> None:
            if what not in names:
                names[what] = bars.add_task(what, total=total)
                bars.update(names["loading"], visible=False)
            bars.update(names[what], completed=done, total=total)

        yield progress


def _progress(*, shown: bool = True) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    words = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    return Progress(
        SpinnerColumn("line"),  # of letters that every code page has
        words,
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not (shown and sys.stderr.isatty()),
    )


def tell_oom(event: "OomEvent") -> None:
    """Say that the card ran out of memory, and how it goes on."""
    typer.echo(
        f"vramfit: out of memory with {event.micro_batch_before} films at once; going on with "
        f"{event.micro_batch_after}.",
        err=True,
    )
