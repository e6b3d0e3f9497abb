"""What a person at a terminal sees while films go through a network; a pipe or a file gets nothing of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from vramfit.records import OomEvent


@contextmanager
def film_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each thing that is done, called with its name, the films done and the films in all."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    tasks: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield progress


def tell_oom(event: "OomEvent") -> None:
    """Say that the card ran out of memory, and how it goes on."""
    typer.echo(
        f"vramfit: out of memory with {event.micro_batch_before} films at once; going on with "
        f"{event.micro_batch_after}.",
        err=True,
    )
