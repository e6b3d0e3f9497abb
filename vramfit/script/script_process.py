"""A script under way in its own process: what is the same without a card and on one.

It is run as Python would run it, watched, and ended as soon as all is seen that was asked.
"""

import os
import runpy
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import NoReturn

import torch

from vramfit.errors import NotTraceable
from vramfit.prediction.tracing.assumptions import NeedsValues
from vramfit.script.command import Command
from vramfit.script.declared_options import names_optimizers, source_of
from vramfit.script.levers import OutsideLevers
from vramfit.script.observer import Observer
from vramfit.script.outcome import Ending, Outcome, Request
from vramfit.script.scratch_files import ScratchFiles

_BY_HAND = "It has no optimizer of torch, and moves its weights itself: a step is a backward pass."
_HELD = (
    "; in a run of a few steps the system lets no library write files past Python's own functions: have what it makes "
    "on disk beforehand, or use --whole-run on a card."
)
_OURS = str(Path(__file__).parents[1])
_TORCH = str(Path(torch.__file__).parent)
_STANDARD = str(Path(os.__file__).parent)


class ScriptProcess(ABC):
    """One script under way."""

    observer: Observer
    refusal = ("cannot be followed without a card", "run it on a card")
    writes_are_held = True  # whether what is written past Python's functions is refused

    def __init__(self, request: Request) -> None:
        self.request = request
        self.files = ScratchFiles(request.scratch)
        self.levers = OutsideLevers(request.command.levers)
        self._began = time.monotonic()

    def run(self) -> NoReturn:
        """Run the script, and end this process."""
        try:
            with self.surroundings(), self.levers.on_optimizers():
                self.observer.on_network = self.levers.on_network
                self.observer.awaits_optimizer = names_optimizers(source_of(self.request.command))
                execute(self.request.command)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)  # noqa: T201  # as Python does
            self.end("failed" if code else "ended", exit_code=code)
        except KeyboardInterrupt:
            self.leave(130)
        except BaseException as error:
            self.failed(error)
        self.end("ended")

    @abstractmethod
    def surroundings(self) -> AbstractContextManager[None]:
        """What the script runs in."""

    @abstractmethod
    def seen(self, outcome: Outcome) -> Outcome:
        """The outcome with what was seen of the card."""

    def failed(self, error: BaseException) -> NoReturn:
        """A script's own fault is shown as its own; what cannot be followed is ours to explain."""
        if self.observer.done:
            self.end("seen", note="" if _is_end_of_data(error) else _failed_late(error))
        if isinstance(error, (NeedsValues, NotTraceable)) or _is_of_ours(error):
            self.end("not traceable", error=explained(error, self.request.command, self.refusal))
        traceback.print_exception(error.with_traceback(_without_ours(error)))
        self.end("failed", exit_code=1, error=_HELD if self.writes_are_held and is_denied(error) else "")

    def end(self, ending: Ending, *, exit_code: int = 0, error: str = "", note: str = "") -> NoReturn:
        """Hand over what was seen, and end this process without running more of the script."""
        samples = tuple(self.observer.recorder.trace.samples.values())
        outcome = Outcome(
            ending=ending,
            steps_made=self.observer.steps_made,
            batch_size=self.observer.batch_size,
            cudnn_benchmark=bool(torch.backends.cudnn.benchmark),
            exit_code=exit_code,
            error=error,
            seconds=time.monotonic() - self._began,
            host_peak_bytes=_host_peak_bytes(),
            written=self.files.written,
            notes=tuple(filter(None, (_BY_HAND if self.observer.by_hand else "", own_search(samples), note))),
            levers=tuple(self.levers.pulled),
        )
        self.seen(outcome).save(self.request.scratch)
        self.leave(exit_code)

    def leave(self, exit_code: int) -> NoReturn:  # noqa: ARG002  # what was saved says it
        """End this process, and with it threads and whatever the script would do at its exit."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def execute(command: Command) -> None:
    """Run a program as Python itself would."""
    sys.argv = [command.target, *command.arguments]
    if command.kind == "module":
        sys.path.insert(0, os.getcwd())  # noqa: PTH109  # as Python does it
        runpy.run_module(command.target, run_name="__main__", alter_sys=True)
        return
    sys.path.insert(0, str(Path(command.target).resolve().parent))
    main = ModuleType("__main__")
    main.__dict__.update(__file__=command.target, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    code = compile(Path(command.target).read_bytes(), command.target, "exec")
    exec(code, main.__dict__)


def explained(error: BaseException, command: Command, refusal: tuple[str, str]) -> str:
    """Why a script cannot be followed, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith((_OURS, _TORCH, _STANDARD, "<"))]
    where = f" at {theirs[-1].filename}:{theirs[-1].lineno} `{theirs[-1].line}`" if theirs else ""
    what, advice = refusal
    return f"'{command.name}' {what}{where}: {error}; {advice}."


def own_search(samples: Sequence[int]) -> str:
    """What to know of a script that looks for its batch by doubling it, read from the samples of its steps; else ""."""
    grown = [(before, after) for before, after in pairwise(samples) if before != after]
    if not grown or any(after != 2 * before for before, after in grown):
        return ""
    return (
        f"Its batch doubled from step to step, up to {samples[-1]}: if it looks for its own, give it one, for these "
        "steps are of the search."
    )


def _is_end_of_data(error: BaseException) -> bool:
    """Whether a script took a batch from a loader that had ended, by itself or in a generator of its own."""
    return isinstance(error, StopIteration) or isinstance(error.__cause__, StopIteration)


def _failed_late(error: BaseException) -> str:
    return (
        f"After these steps its loaders were ended early, and it failed ({type(error).__name__}: {error}); "
        "a whole run need not."
    )


def is_denied(error: BaseException) -> bool:
    """Whether the system refused to open a file, as libraries say it that open theirs past Python."""
    words = str(error).lower()
    return isinstance(error, PermissionError) or "permission denied" in words or "unable to open database" in words


def _is_of_ours(error: BaseException) -> bool:
    """Whether an error came from what stands in for a card; one of syntax came before any line of the script ran.

    What stands in for functions of files hands on what the system says, and a wrong index is wrong on a card, too.
    """
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1].filename if frames else ""
    return (
        last.startswith(_OURS) and not last.endswith("_files.py") and not isinstance(error, (SyntaxError, IndexError))
    )


def _without_ours(error: BaseException) -> TracebackType | None:
    """The traceback from the script's first line to the last that is not ours; none of what is wrong before it runs."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame):
        trace = trace.tb_next
    part = last = trace
    while part is not None:
        last, part = (last if _is_ours(part.tb_frame) else part), part.tb_next
    if last is not None:
        last.tb_next = None
    return trace


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith((_OURS, "<frozen")) or name.endswith(("runpy.py", "contextlib.py"))


def _host_peak_bytes() -> int:
    """The most memory that this program held; `getrusage` on Linux has that of the process which started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next((one for one in status.read_text().splitlines() if one.startswith("VmHWM:")), "VmHWM: 0 kB")
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
