"""Files of a watched script: what it writes goes to a scratch folder, where it finds it again; nothing else changes.

Each path that Python's functions are given to write is put below the scratch folder instead; a path that was written
there is read from there. A file that is changed in part is copied first, one that is deleted
is only remembered as gone.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NOT_FILES = ("/dev/", "/proc/", "/sys/")
# Files in memory, by which processes share; torch and multiprocessing open theirs past Python.
_SHARED_MEMORY = "/dev/shm/"
# A larger file is not copied to be changed in part: what a script would append to is then empty.
_COPIED_BYTES = 256 << 20


class ScratchFiles:
    """An overlay: `root` is the scratch folder, in which every path has its place."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._layer = os.path.join(self._root, "files")
        self._gone: set[str] = set()
        self._written: dict[str, None] = {}
        self._real = {name: getattr(os, name) for name in ("stat", "lstat", "makedirs", "mkdir", "listdir")}
        self._exists = os.path.lexists

    @property
    def written(self) -> tuple[str, ...]:
        """Files that were written, by the names that the script gave them."""
        return tuple(path for path in self._written if path not in self._gone)

    def below(self, path: str) -> str:
        """The scratch folder's place for an absolute path."""
        drive, rest = os.path.splitdrive(path)
        return os.path.join(self._layer, drive.strip(":\\/") + rest if drive else rest.lstrip("/"))

    def to_read(self, path: Any) -> Any:
        """Where a path is to be read."""
        name = self.absolute(path)
        if name is None:
            return path
        place = self.below(name)
        if self._is_there(place):
            return self._as_given(path, place)
        if self.is_gone(name):
            return self._as_given(path, place)  # where nothing is
        return path

    def to_write(self, path: Any, *, keep: bool = False) -> Any:
        """Where a path is to be written; with what it holds now, where it is to be kept."""
        name = self.absolute(path)
        if name is None:
            return path
        place = self.below(name)
        if not self._is_there(place):
            if not self._is_folder(os.path.dirname(name)):
                return self._as_given(path, place)  # fails there as it would have here
            self._real["makedirs"](os.path.dirname(place), exist_ok=True)
            if keep and os.path.isfile(name) and not self.is_gone(name) and os.path.getsize(name) <= _COPIED_BYTES:
                _copy(name, place)
        self._gone.discard(name)
        self._written[name] = None
        return self._as_given(path, place)

    def removed(self, path: Any, remove: Callable[[str], None]) -> None:
        """Remove a path as the script sees it."""
        name = self.absolute(path)
        if name is None:
            remove(path)
            return
        place = self.below(name)
        if self._is_there(place):
            remove(place)
        elif self.is_gone(name) or not self._is_there(name):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        self._gone.add(name)

    @contextmanager
    def as_named(self, path: Any) -> Iterator[None]:
        """Within it, an error of a file in the scratch folder is told of the path as the script has it."""
        try:
            yield
        except OSError as error:
            if isinstance(error.filename, str) and error.filename.startswith(self._root):
                error.filename = os.fspath(path)
            raise

    def forget(self, path: Any) -> None:
        """Remember a path as gone."""
        name = self.absolute(path)
        if name is not None:
            self._gone.add(name)

    def names_in(self, path: Any) -> list[str]:
        """The names in a folder as the script sees it."""
        name = self.absolute(path)
        if name is None:
            listed: list[str] = self._real["listdir"](path)
            return listed
        place, found = self.below(name), dict[str, None]()
        below, here = self.is_folder_at(place), self.is_folder_at(name) and not self.is_gone(name)
        if here or not below:
            kept = (one for one in self._real["listdir"](name) if os.path.join(name, one) not in self._gone)
            found.update(dict.fromkeys(kept))
        if below:
            found.update(dict.fromkeys(self._real["listdir"](place)))
        return list(found)

    def absolute(self, path: Any) -> str | None:
        """The real path of a name, None for what is no file of the script's."""
        if isinstance(path, int) or path is None:
            return None
        name = os.fspath(path)
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        name = os.path.abspath(name)
        if name.startswith(self._root) or (name.startswith(_NOT_FILES) and not name.startswith(_SHARED_MEMORY)):
            return None
        return str(name)

    @staticmethod
    def _as_given(path: Any, place: str) -> Any:
        return os.fsencode(place) if isinstance(path, bytes) else place

    def is_gone(self, name: str) -> bool:
        """Whether the script removed an absolute path, or a folder above it."""
        return bool(self._gone) and any(name == gone or name.startswith(gone + os.sep) for gone in self._gone)

    def _is_there(self, name: str) -> bool:
        try:
            self._real["lstat"](name)
        except (OSError, ValueError):
            return False
        return True

    def is_folder_at(self, name: str) -> bool:
        """Whether there is a folder at this very place, whatever the script did."""
        import stat

        try:
            return stat.S_ISDIR(self._real["stat"](name).st_mode)
        except (OSError, ValueError):
            return False

    def _is_folder(self, name: str) -> bool:
        if self.is_folder_at(self.below(name)):
            return True
        return self.is_folder_at(name) and not self.is_gone(name)


def _copy(source: str, target: str) -> None:
    with io.open(source, "rb") as read, io.open(target, "wb") as written:  # noqa: UP020  # kept from the swap
        shutil.copyfileobj(read, written)
