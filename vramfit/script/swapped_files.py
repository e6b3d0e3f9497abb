"""Python's functions of files, swapped while a watched script runs: each goes where `ScratchFiles` puts its path."""

import builtins
import bz2
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from vramfit.prediction.tracing.swapping import swap
from vramfit.script.scratch_files import ScratchFiles

_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READING = ("chdir", "stat", "lstat", "access", "readlink", "getxattr", "listxattr")
_CHANGING = ("chmod", "chown", "lchown", "utime", "truncate", "setxattr", "removexattr")


@contextmanager
def scratch_files(files: ScratchFiles) -> Iterator[None]:
    """Within it, what Python writes goes to the scratch folder."""
    with ExitStack() as stack:
        for owner, name in ((builtins, "open"), (io, "open"), (tarfile, "bltn_open"), (bz2, "_builtin_open")):
            swap(stack, owner, name, _opened(files, getattr(owner, name)))
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
        given = file
        if not isinstance(file, int):
            writing = set(mode) & set("wax+")
            if "x" in mode and os.path.lexists(file):
                raise FileExistsError(17, "File exists", os.fspath(file))
            file = files.to_write(file, keep="w" not in mode) if writing else files.to_read(file)
        with files.as_named(given):
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
        with files.as_named(path):
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
        if read != source or files.absolute(source) is None:
            rename(read, place, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            files.forget(source)
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
        name = None if isinstance(path, int) else files.absolute(path)
        self._found = self._of_both(files, path, name, scandir) if name is not None else scandir(path)

    @staticmethod
    def _of_both(files: ScratchFiles, path: Any, name: str, scandir: Callable[..., Any]) -> Iterator[Any]:
        place = files.below(name)
        made = files.is_folder_at(place)
        below = {entry.name: entry for entry in scandir(place)} if made else {}
        if not made or (files.is_folder_at(name) and not files.is_gone(name)):
            for entry in scandir(path):
                if entry.name not in below and not files.is_gone(os.path.join(name, os.fsdecode(entry.name))):
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
