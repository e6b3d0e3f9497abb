"""What a recorded stack says of an allocation: in which phase it was made, and by which line.

A stack is PyTorch's list of frames, the innermost first, each a dict of `name`, `filename` and `line`. A backward pass
runs in a thread of C++: its frames name the engine, or there are none where Python's alone were recorded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Phase = Literal["build", "copy", "load", "forward", "backward", "optimizer", "script", "unknown"]
Frames = Sequence[Mapping[str, Any]]

_PYTHON = re.compile(r"\.py$|^<ipython-input|ipykernel_")
_LIBRARY = re.compile(
    r"/(site|dist)-packages/|/lib/python[23]|^<frozen|/Lib/|^torch/|/torch/(nn|optim|utils|autograd)/"
)
_TORCH = re.compile(r"(^|/)torch/")
_BUILDS = {"__init__", "reset_parameters", "_apply", "convert", "to_empty"}
_CALLS = {"_call_impl", "_wrapped_call_impl"}
_ENGINE = re.compile(r"autograd::(\w+::)*\w*Engine|^_engine_run_backward$")
_ALLOCATOR = "CUDACachingAllocator"
_TENSOR = re.compile(r"empty|resize", re.IGNORECASE)
_WORKSPACE = re.compile(r"Workspace|getCurrentCUDABlas")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of code: its file as it was recorded, its number, the function it is in.

    `alias` is what its file and its function are called where their names are to be kept private.
    """

    file: str
    number: int
    function: str
    alias: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.alias[0] if self.alias else self.short_file}:{self.number}"

    @property
    def shown_function(self) -> str:
        """The function's name, as it may be shown."""
        return self.alias[1] if self.alias else self.function

    @property
    def short_file(self) -> str:
        """The file's own name, without its folders."""
        return self.file.replace("\\", "/").rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a block of memory comes from.

    Attributes:
        phase: what ran.
        line: the innermost line of one's own code, or of a library where there is none; None for no frame of Python.
        outside: the lines outside of the network or optimizer in which that is, the innermost first.
        layer: the module of `torch.nn` that ran, such as `batchnorm`; "" where none did.
        workspace: whether a library took it for itself, and no tensor shows it.

    """

    phase: Phase
    line: Line | None = None
    outside: tuple[Line, ...] = ()
    layer: str = ""
    workspace: bool = False

    @property
    def caller(self) -> Line | None:
        """The line that calls or makes the network, or `line` itself outside of any."""
        return self.outside[0] if self.outside else self.line


NOWHERE = Origin("unknown")


def origin_of(frames: Frames, *, recorded: bool = True) -> Origin:
    """What a stack says; `recorded` is whether stacks were recorded at all, so that an empty one tells something."""
    if not frames:
        return Origin("backward") if recorded else NOWHERE
    seen = tuple((str(one["name"]), str(one["filename"]), int(one["line"])) for one in frames)
    return _origin(seen)


@lru_cache(maxsize=65536)
def _origin(frames: tuple[tuple[str, str, int], ...]) -> Origin:
    python = [frame for frame in frames if _PYTHON.search(frame[1])]
    own = [frame for frame in python if not is_library(frame[1])]
    named = own or [frame for frame in python if not _TORCH.search(_slashed(frame[1]))] or python
    backward = any(_ENGINE.search(name) for name, _, _ in frames)
    return Origin(
        phase="backward" if backward else _phase(python),
        line=_line(named[0]) if named else None,
        outside=tuple(map(_line, _outer_frames(python, named))),
        layer=_layer(python),
        workspace=_is_workspace(frames),
    )


def _phase(python: Sequence[tuple[str, str, int]]) -> Phase:
    """The innermost frame that says what runs."""
    for name, file, _ in python:
        found = _phase_of_frame(name.rsplit(".", 1)[-1], file)
        if found is not None:
            return found
    return "script" if python else "unknown"


@lru_cache(maxsize=8192)
def _phase_of_frame(name: str, file: str) -> Phase | None:  # noqa: PLR0911  # one answer a kind of frame
    path = _slashed(file)
    if path.endswith("torch/nn/modules/module.py") and name in _CALLS:
        return "forward"
    if "torch/nn/" in path and (name in _BUILDS or path.endswith("torch/nn/init.py")):
        return "build"
    if (path.endswith("/copy.py") and name == "deepcopy") or name == "__deepcopy__":
        return "copy"
    if path.endswith(("torch/serialization.py", "safetensors/torch.py")):
        return "load"
    if _is_optimizer(path):
        return "optimizer"
    if path.endswith(("torch/_tensor.py", "torch/autograd/__init__.py")) and name == "backward":
        return "backward"
    return None


def _is_optimizer(path: str) -> bool:
    if path.endswith("swa_utils.py"):  # averages of weights
        return False
    return is_library(path) and re.search(r"/(optim|optimizers)/|/ops/adam/", path) is not None


def _outer_frames(
    python: Sequence[tuple[str, str, int]], named: Sequence[tuple[str, str, int]]
) -> Sequence[tuple[str, str, int]]:
    """The frames that call the outermost network or optimizer, or make it; the outermost one at least."""
    inside = [place for place, frame in enumerate(python) if _is_inside(*frame)]
    if not inside:
        return named
    return [frame for frame in python[inside[-1] + 1 :] if frame in named] or named[-1:]


def _is_inside(name: str, file: str, _: int) -> bool:
    function, path = name.rsplit(".", 1)[-1], _slashed(file)
    calls = function in _CALLS and path.endswith("torch/nn/modules/module.py")
    return calls or function == "__init__" or path.endswith("torch/optim/optimizer.py")


def _layer(python: Sequence[tuple[str, str, int]]) -> str:
    for name, file, _ in python:
        path = _slashed(file)
        if "torch/nn/modules/" in path and not path.endswith(("module.py", "container.py")) and name != "__init__":
            return path.rsplit("/", 1)[-1].removesuffix(".py")
    return ""


def _is_workspace(frames: Sequence[tuple[str, str, int]]) -> bool:
    native = [name for name, file, _ in frames if not _PYTHON.search(file)]
    if any(_WORKSPACE.search(name) for name in native):
        return True
    return any(_ALLOCATOR in name for name in native) and not any(_TENSOR.search(name) for name in native)


@lru_cache(maxsize=8192)
def is_library(file: str) -> bool:
    """Whether a file is of a library, and not the code of who recorded."""
    return _LIBRARY.search(_slashed(file)) is not None


def _line(frame: tuple[str, str, int]) -> Line:
    return Line(frame[1], frame[2], frame[0])


def _slashed(file: str) -> str:
    return file.replace("\\", "/")
