"""A Job from a function of one's own, named as `package.module:function` or `file.py:function`."""

import difflib
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from vramfit.errors import UsageError, VramfitError
from vramfit.jobs.job import Job

Result = TypeVar("Result")


class NoSuchFactory(UsageError):
    """A name that leads to no module, file, job or function."""


def job_from_factory(name: str) -> Job:
    """The job of a name: that job itself, or what a function without arguments returns.

    Args:
        name: `package.module:function`, installed or in the current folder, or `folder/file.py:function`.

    Raises:
        NoSuchFactory: no such module or function.
        UsageError: it takes arguments, fails, or returns something else.

    """
    where, _, function = name.rpartition(":")
    module = _module_of_file(Path(where), name) if where.endswith(".py") else _module(where, name)
    factory = getattr(module, function, None)
    if isinstance(factory, Job):
        return factory
    if not callable(factory):
        near = [one for one in difflib.get_close_matches(function, dir(module), n=3) if one != function]
        hint = f"; near: {', '.join(near)}" if near else ""
        raise NoSuchFactory(f"'{where}' has no function '{function}'{hint}.")
    if _needs_arguments(factory):
        raise UsageError(f"'{name}' takes arguments; name a function that makes a vramfit.Job without any.")
    job = _or_told(factory, f"'{name}' failed")
    if not isinstance(job, Job):
        raise UsageError(f"'{name}' returned {type(job).__name__}; it must return a vramfit.Job.")
    return job


def _module(module: str, name: str) -> ModuleType:
    # As `python -m` would find it; last, so that nothing installed is hidden, and for good: a trial's process needs it.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    return _imported(module, name)


def _module_of_file(file: Path, name: str) -> ModuleType:
    if not file.is_file():
        raise NoSuchFactory(f"there is no file '{file}' to take '{name}' from; name one that is there.")
    # First, as Python itself has the folder of a script; for good, as above.
    if (folder := str(file.resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)
    module = _imported(file.stem, name)
    if Path(module.__file__ or "").resolve() != file.resolve():
        raise UsageError(f"'{file}' has the name of another module, {module.__file__}; give the file another name.")
    return module


def _imported(module: str, name: str) -> ModuleType:
    try:
        return _or_told(lambda: import_module(module), f"module '{module}' of '{name}' fails as it is imported")
    except ImportError as error:
        raise NoSuchFactory(f"module '{module}' of '{name}' cannot be imported: {error}.") from None


def _or_told(call: Callable[[], Result], what: str) -> Result:
    """What a call into a user's code returns; its failure told with file and line."""
    try:
        return call()
    except (VramfitError, ImportError):
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or "no message"
        raise UsageError(f"{what}, at {_place_of(error)}: {type(error).__name__}: {said}; mend it there.") from error


def _place_of(error: Exception) -> str:
    """The innermost line of the user's own code, neither of an installed package nor ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    theirs = [frame for frame in frames if "site-packages" not in Path(frame.filename).parts]
    frame = (theirs or frames)[-1]
    return f"{frame.filename}:{frame.lineno} `{frame.line}`"


def _is_ours(file: str) -> bool:
    return file.startswith("<frozen") or Path(file).is_relative_to(Path(__file__).parents[1])


def _needs_arguments(factory: Callable[..., Any]) -> bool:
    try:
        signature(factory).bind()
    except TypeError:
        return True
    except ValueError:  # written in C, and says nothing of its arguments
        return False
    return False
