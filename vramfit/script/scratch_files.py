"""Files of a watched script: what it writes goes to a scratch folder, where it finds it again; nothing else changes.

Each path that Python's functions are given to write is put below the scratch folder instead; a path that was written
there is read from there. A file that is changed in part is copied first, one that is deleted
is only remembered as gone.
"""

import builtins
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vramfit.prediction.tracing.swapping import swap

_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NOT_FILES = ("/dev/", "/proc/", "/sys/")
# Files in memory, by which processes share; torch and multiprocessing open theirs past Python.
_SHARED_MEMORY = "/dev/shm/"
# A larger file is not copied to be changed in part: what a script would append to is then empty.
_COPIED_BYTES = 256 << 20
_READING = ("chdir", "stat", "lstat", "access", "readlink", "getxattr", "listxattr")
_CHANGING = ("chmod", "chown", "lchown", "utime", "truncate", "setxattr", "removexattr")


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
        name = self._absolute(path)
        if name is None:
            return path
        place = self.below(name)
        if self._is_there(place):
            return self._as_given(path, place)
        if self._is_gone(name):
            return self._as_given(path, place)  # where nothing is
        return path

    def to_write(self, path: Any, *, keep: bool = False) -> Any:
        """Where a path is to be written; with what it holds now, where it is to be kept."""
        name = self._absolute(path)
        if name is None:
            return path
        place = self.below(name)
        if not self._is_there(place):
            if not self._is_folder(os.path.dirname(name)):
                return self._as_given(path, place)  # fails there as it would have here
            self._real["makedirs"](os.path.dirname(place), exist_ok=True)
            if keep and os.path.isfile(name) and not self._is_gone(name) and os.path.getsize(name) <= _COPIED_BYTES:
                _copy(name, place)
        self._gone.discard(name)
        self._written[name] = None
        return self._as_given(path, place)

    def removed(self, path: Any, remove: Callable[[str], None]) -> None:
        """Remove a path as the script sees it."""
        name = self._absolute(path)
        if name is None:
            remove(path)
            return
        place = self.below(name)
        if self._is_there(place):
            remove(place)
        elif self._is_gone(name) or not self._is_there(name):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(path))
        self._gone.add(name)

    def _forget(self, path: Any) -> None:
        name = self._absolute(path)
        if name is not None:
            self._gone.add(name)

    def names_in(self, path: Any) -> list[str]:
        """The names in a folder as the script sees it."""
        name = self._absolute(path)
        if name is None:
            listed: list[str] = self._real["listdir"](path)
            return listed
        place, found = self.below(name), dict[str, None]()
        below, here = self._is_folder_at(place), self._is_folder_at(name) and not self._is_gone(name)
        if here or not below:
            kept = (one for one in self._real["listdir"](name) if os.path.join(name, one) not in self._gone)
            found.update(dict.fromkeys(kept))
        if below:
            found.update(dict.fromkeys(self._real["listdir"](place)))
        return list(found)

    def _absolute(self, path: Any) -> str | None:
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

    def _is_gone(self, name: str) -> bool:
        return bool(self._gone) and any(name == gone or name.startswith(gone + os.sep) for gone in self._gone)

    def _is_there(self, name: str) -> bool:
        try:
            self._real["lstat"](name)
        except (OSError, ValueError):
            return False
        return True

    def _is_folder_at(self, name: str) -> bool:
        import stat

        try:
            return stat.S_ISDIR(self._real["stat"](name).st_mode)
        except (OSError, ValueError):
            return False

    def _is_folder(self, name: str) -> bool:
        if self._is_folder_at(self.below(name)):
            return True
        return self._is_folder_at(name) and not self._is_gone(name)


def _copy(source: str, target: str) -> None:
    with io.open(source, "rb") as read, io.open(target, "wb") as written:  # noqa: UP020  # kept from the swap
        shutil.copyfileobj(read, written)


@contextmanager
def scratch_files(files: ScratchFiles) -> Iterator[None]:
    """Within it, what Python writes goes to the scratch folder."""
    with ExitStack() as stack:
        for owner in (builtins, io):
            swap(stack, owner, "open", _opened(files, owner.open))
        swap(stack, os, "open", _opened_low(files, os.open))
        for name in _READING:
            if hasattr(os, name):
                swap(stack, os, name, _placed(getattr(os, name), files.to_read))
        for name in _CHANGING:
            if hasattr(os, name):
                swap(stack, os, name, _placed(getattr(os, name), lambda path: files.to_write(path, keep=True)))
        for name, replacement in _folders(files).items():
            swap(stack, os, name, replacement)
        # shutil would walk by descriptors, past every name.
        swap(stack, shutil, "_use_fd_functions", False)
        swap(stack, shutil, "_USE_CP_SENDFILE", False)
        yield


def _opened(files: ScratchFiles, original: Callable[..., Any]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not isinstance(file, int):
            writing = set(mode) & set("wax+")
            if "x" in mode and os.path.lexists(file):
                raise FileExistsError(17, "File exists", os.fspath(file))
            file = files.to_write(file, keep="w" not in mode) if writing else files.to_read(file)
        return original(file, mode, *args, **kwargs)

    return opened


def _opened_low(files: ScratchFiles, original: Callable[..., int]) -> Callable[..., int]:
    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is None and flags & _WRITING_FLAGS:
            if flags & os.O_EXCL and os.path.lexists(path):
                raise FileExistsError(17, "File exists", os.fspath(path))
            path = files.to_write(path, keep=not flags & os.O_TRUNC)
        elif dir_fd is None:
            path = files.to_read(path)
        return original(path, flags, mode, dir_fd=dir_fd)

    return opened


def _placed(original: Callable[..., Any], place: Callable[[Any], Any]) -> Callable[..., Any]:
    def called(path: Any, *args: Any, **kwargs: Any) -> Any:
        return original(place(path), *args, **kwargs)

    return called


def _folders(files: ScratchFiles) -> dict[str, Callable[..., Any]]:
    """Replacements for what makes, moves, lists and removes."""
    mkdir, remove, rmdir, listdir, scandir = os.mkdir, os.remove, os.rmdir, os.listdir, os.scandir
    rename, symlink = os.replace, os.symlink

    def made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if dir_fd is None and os.path.lexists(path):
            raise FileExistsError(17, "File exists", os.fspath(path))
        mkdir(files.to_write(path), mode, dir_fd=dir_fd)

    def removed(path: Any, *, dir_fd: int | None = None) -> None:
        files.removed(path, lambda place: remove(place, dir_fd=dir_fd))

    def removed_folder(path: Any, *, dir_fd: int | None = None) -> None:
        if files.names_in(path):
            raise OSError(39, "Directory not empty", os.fspath(path))
        files.removed(path, lambda place: rmdir(place, dir_fd=dir_fd))

    def moved(source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        place = files.to_write(target)
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
            for name in files.names_in(source):
                moved(os.path.join(source, name), os.path.join(target, name))
            removed_folder(source)
            return
        read = files.to_read(source)
        if read != source or files._absolute(source) is None:
            rename(read, place, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            files._forget(source)
        else:
            shutil.copyfile(source, target)
            removed(source)

    def linked(source: Any, target: Any, *args: Any, **kwargs: Any) -> None:
        symlink(source, files.to_write(target), *args, **kwargs)

    def copied_link(source: Any, target: Any, **_: Any) -> None:
        shutil.copyfile(source, target)

    def listed(path: Any = ".") -> list[Any]:
        if isinstance(path, int):
            return listdir(path)
        names = files.names_in(path)
        return [os.fsencode(name) for name in names] if isinstance(path, bytes) else names

    return {
        "mkdir": made,
        "remove": removed,
        "unlink": removed,
        "rmdir": removed_folder,
        "rename": moved,
        "replace": moved,
        "symlink": linked,
        "link": copied_link,
        "listdir": listed,
        "scandir": lambda path=".": _Entries(files, path, scandir),
    }


class _Entries:
    """What `os.scandir` returns: the entries of a folder and of its place in the scratch folder."""

    def __init__(self, files: ScratchFiles, path: Any, scandir: Callable[..., Any]) -> None:
        name = None if isinstance(path, int) else files._absolute(path)
        self._found = self._of_both(files, path, name, scandir) if name is not None else scandir(path)

    @staticmethod
    def _of_both(files: ScratchFiles, path: Any, name: str, scandir: Callable[..., Any]) -> Iterator[Any]:
        place = files.below(name)
        made = files._is_folder_at(place)
        below = {entry.name: entry for entry in scandir(place)} if made else {}
        if not made or (files._is_folder_at(name) and not files._is_gone(name)):
            for entry in scandir(path):
                if entry.name not in below and os.path.join(name, os.fsdecode(entry.name)) not in files._gone:
                    below[entry.name] = entry
        return iter(below.values())

    def __enter__(self) -> "_Entries":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> "_Entries":
        return self

    def __next__(self) -> Any:
        return next(self._found)

    def close(self) -> None:
        """Release the folder."""
        close = getattr(self._found, "close", None)
        if close is not None:
            close()
