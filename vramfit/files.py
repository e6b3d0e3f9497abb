"""Writing files so that nothing is ever lost: a new file appears whole, or the old one stays."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vramfit.errors import CannotWrite


def write_atomically(path: str | Path, content: bytes | str | Callable[[BinaryIO], None]) -> None:
    """Write a whole file or leave what was there: temporary file beside it, flush to disk, rename.

    Args:
        path: the file; missing parent folders are made.
        content: bytes, text (UTF-8), or a function that writes to the open binary file.

    Raises:
        CannotWrite: no space, no permission, or any other refusal of the file system.

    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        with os.fdopen(descriptor, "wb") as file:
            _fill(file, content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        _discard(temporary)
        reason = error.strerror or str(error)
        raise CannotWrite(f"{path} could not be written ({reason}); what was there before is untouched.") from error
    except BaseException:
        _discard(temporary)
        raise


def _fill(file: BinaryIO, content: bytes | str | Callable[[BinaryIO], None]) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def _discard(temporary: str | None) -> None:
    if temporary is not None:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
