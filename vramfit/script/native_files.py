"""Files that libraries open past Python's functions, by name: each goes where `ScratchFiles` puts its path.

A library is changed when the script imports it. Known limitation: the libraries and functions listed here alone; what
others write by themselves the kernel refuses, where it can.
"""

import importlib.abc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from vramfit.prediction.tracing.swapping import swap
from vramfit.script.scratch_files import ScratchFiles

Opening = Callable[..., Any]
Replacement = Callable[[ScratchFiles, Opening], Opening]


def _reads(place: int = 0) -> Replacement:
    """A function that reads the file which its argument at a place names."""
    return lambda files, original: _with_path(original, place, lambda path, _: files.to_read(path))


def _writes(place: int = 0) -> Replacement:
    """A function that writes the file which its argument at a place names."""
    return lambda files, original: _with_path(original, place, lambda path, _: files.to_write(path))


def _by_mode(files: ScratchFiles, original: Opening) -> Opening:
    """A constructor with a path and then a mode, as that of `h5py.File`."""

    def placed(path: Any, rest: Sequence[Any]) -> Any:
        mode = rest[0] if rest else "r"
        return files.to_read(path) if mode == "r" else files.to_write(path, keep=mode in ("a", "r+"))

    return _with_path(original, 1, placed)


def _database(files: ScratchFiles, original: Opening) -> Opening:
    """`sqlite3.connect`, whose names may also be no files."""

    def placed(path: Any, _: Sequence[Any]) -> Any:
        name = os.fsdecode(path)
        return path if not name or name.startswith((":memory:", "file:")) else files.to_write(path, keep=True)

    return _with_path(original, 0, placed)


_LIBRARIES: dict[str, dict[str, Replacement]] = {
    "sqlite3": {"connect": _database},
    "h5py": {"File.__init__": _by_mode},
    "cv2": {"imread": _reads(), "imwrite": _writes(), "VideoCapture": _reads()},
    "torchvision.io.image": {"read_file": _reads(), "write_file": _writes()},
}


def _with_path(original: Opening, place: int, placed: Callable[[Any, Sequence[Any]], Any]) -> Opening:
    def opened(*args: Any, **kwargs: Any) -> Any:
        is_path = len(args) > place and isinstance(args[place], (str, bytes, os.PathLike))
        if is_path:
            rest = [*args[place + 1 :], *([kwargs["mode"]] if "mode" in kwargs else [])]
            args = (*args[:place], placed(args[place], rest), *args[place + 1 :])
        return original(*args, **kwargs)

    return opened


@contextmanager
def native_files(files: ScratchFiles) -> Iterator[None]:
    """Within it, what the listed libraries write goes to the scratch folder, and is read from there."""
    with ExitStack() as stack:
        finder = _Finder(lambda module: _place(stack, module, files))
        for name in filter(sys.modules.__contains__, _LIBRARIES):
            _place(stack, sys.modules[name], files)
        sys.meta_path.insert(0, finder)
        stack.callback(sys.meta_path.remove, finder)
        yield


def _place(stack: ExitStack, module: ModuleType, files: ScratchFiles) -> None:
    for name, replacement in _LIBRARIES[module.__name__].items():
        *path, last = name.split(".")
        owner: Any = module
        for part in path:
            owner = getattr(owner, part)
        if hasattr(owner, last):
            swap(stack, owner, last, replacement(files, getattr(owner, last)))


class _Finder(importlib.abc.MetaPathFinder):
    """Tells of a listed library when it has been imported."""

    def __init__(self, imported: Callable[[ModuleType], None]) -> None:
        self._imported = imported

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that others find, of a listed library."""
        if fullname not in _LIBRARIES:
            return None
        others = (one for one in sys.meta_path if one is not self and hasattr(one, "find_spec"))
        spec = next(filter(None, (one.find_spec(fullname, path, target) for one in others)), None)
        if spec is not None and spec.loader is not None:
            loader, run = spec.loader, spec.loader.exec_module

            def ran(module: ModuleType) -> None:
                run(module)
                self._imported(sys.modules.get(fullname, module))

            loader.exec_module = ran  # type: ignore[method-assign]
        return spec
