"""JSON files of annotations: read whole, or told apart by how they begin and end."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vramfit.errors import DataError

_ENDS_BYTES = 64 * 1024


def load(path: Path) -> Any:
    """The content of a file; a byte-order mark is welcome.

    Raises:
        DataError: it cannot be read, or is no JSON.

    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); export it again.") from None


def begins(path: Path, start: str, *keys: str) -> bool:
    """Whether a file's first character is `start` and all keys are in its head or tail: quick, and it never raises."""
    try:
        with path.open("rb") as file:
            head = file.read(_ENDS_BYTES)
            file.seek(-min(_ENDS_BYTES, path.stat().st_size), 2)
            ends = head + file.read()
    except OSError:
        return False
    content = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return content.startswith(start.encode()) and all(f'"{key}"'.encode() in ends for key in keys)


def json_files(path: Path) -> list[Path]:
    """The JSON file itself, or those in a folder and in the folders directly below it."""
    if path.is_dir():
        return sorted(file for pattern in ("*.json", "*/*.json") for file in path.glob(pattern))
    return [path] if path.suffix.lower() == ".json" else []


def entries(content: Any, name: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a list within an object; nothing where there is none."""
    found = content.get(name) if isinstance(content, dict) else None
    yield from (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()
