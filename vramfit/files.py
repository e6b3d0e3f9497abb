"""Writing files so that nothing is ever lost: a new file appears whole, or the old one stays."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from vramfit.errors import CannotWrite

# Virus scanners and indexers on Windows hold a file for moments, in which it cannot be replaced.
_REPLACE_ATTEMPTS, _REPLACE_PAUSE_S = 10, 0.2

Content = bytes | str | Callable[[BinaryIO], None]


def write_atomically(path: str | Path, content: Content) -> None:
    """Write a whole file or leave what was there: temporary file beside it, flush to disk, rename.

    Args:
        path: the file; missing parent folders are made.
        content: bytes, text (UTF-8), or a function that writes to the open binary file.

    Raises:
        CannotWrite: no space, no permission, or any other refusal of the file system.

    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotWrite(f"{path} could not be written ({reason}); what was there before is untouched.") from error
    finally:
        _discard(temporary)


def user_cache_folder() -> Path:
    """Where files lie that can be made again: VRAMFIT_CACHE, or this user's own place in the system for them."""
    if chosen := os.environ.get("VRAMFIT_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vramfit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vramfit"


def _replace(temporary: Path, path: Path) -> None:
    for _ in range(_REPLACE_ATTEMPTS - 1):
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(_REPLACE_PAUSE_S)
        else:
            return
    temporary.replace(path)


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return  # the folder itself refused; the first error says why
