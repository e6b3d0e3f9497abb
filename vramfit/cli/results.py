"""Files that a verb writes beside what it prints: never over another one unasked, and each told of."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer

from vramfit.errors import CannotWrite, UsageError

_TOLD = ContextVar("next steps are told", default=True)


def require_free(*files: Path | None, force: bool) -> None:
    """Refuse, before anything is done, to write over a file that is there, or two results into one.

    Raises:
        CannotWrite: a file exists, and `force` is not given.
        UsageError: two results would be one file.

    """
    named = [file for file in files if file is not None]
    for place, file in enumerate(named):
        if file in named[:place]:
            raise UsageError(f"two results would go to {file}; give each a file of its own.")
        if file.exists() and not force:
            raise CannotWrite(f"{file} exists and was left as it is; give --force to overwrite it, or another name.")


def write_result(file: Path, content: str, what: str) -> str:
    """Write a file; the sentence that says so.

    Write before printing, and tell after: a reader of the output who leaves early, as `head` does, ends the command.
    """
    from vramfit.files import write_atomically

    write_atomically(file, content)
    return f"{what} written to {file}"


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document; paths and dates as text."""
    typer.echo(json.dumps(document, indent=2, default=str))


def next_step(line: str, *, as_json: bool) -> None:
    """Say on stderr what one would do next; nothing beside a document, or where a verb is a step of another one."""
    if _TOLD.get() and not as_json:
        typer.echo(f"Next: {line}", err=True)


@contextmanager
def without_next_steps() -> Iterator[None]:
    """For verbs that are run one after the other, so that the next step is no question."""
    before = _TOLD.set(False)
    try:
        yield
    finally:
        _TOLD.reset(before)


def tell(sentences: Iterable[str], *, as_json: bool) -> None:
    """Print what was written; on stderr where stdout holds a JSON document."""
    for sentence in sentences:
        typer.echo(sentence, err=as_json)
