"""The process in which a script runs: `python -m vramfit.script.child SCRATCH`.

It believes in the card, writes into the scratch folder alone, and ends as soon as all is seen.
"""

import os
import pickle
import runpy
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import NoReturn

import torch
import torch._dynamo  # optimizers load it; it must not see what is replaced below

from vramfit.cards import find_card
from vramfit.errors import NotTraceable
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.assumptions import NeedsValues
from vramfit.script.checkpoints import shapes_alone
from vramfit.script.command import Command
from vramfit.script.emulated_card import emulated_card
from vramfit.script.landlock import confine_writes
from vramfit.script.loaders import short_loaders
from vramfit.script.observer import Observer
from vramfit.script.outcome import REQUEST, Ending, Outcome, Request
from vramfit.script.outside import nothing_outside
from vramfit.script.recorder import ScriptRecorder
from vramfit.script.scratch_files import ScratchFiles, scratch_files

_OURS = str(Path(__file__).parents[1])
_TORCH = str(Path(torch.__file__).parent)
_STANDARD = str(Path(os.__file__).parent)


class Watch:
    """One script under way."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.trace = Trace(1)
        self.card = find_card(request.card)
        self.recorder = ScriptRecorder(self.trace, self.card.compute_capability)
        self.files = ScratchFiles(request.scratch)
        self.observer = Observer(self.recorder, request.steps, lambda: self.end("seen"))
        self._began = time.monotonic()

    def run(self) -> NoReturn:
        """Run the script, and end this process."""
        try:
            with self._believing():
                execute(self.request.command)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)  # noqa: T201  # as Python does
            self.end("failed" if code else "ended", exit_code=code)
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException as error:
            self._failed(error)
        self.end("ended")

    @contextmanager
    def _believing(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(emulated_card(self.card, self.recorder))
            stack.enter_context(shapes_alone())
            stack.enter_context(short_loaders(self.observer))
            stack.enter_context(self.observer.watching())
            stack.enter_context(scratch_files(self.files))
            confined = confine_writes([self.request.scratch, Path("/dev")])
            stack.enter_context(nothing_outside(processes=confined))
            stack.enter_context(self.recorder)
            stack.enter_context(self.recorder.calls())
            yield

    def _failed(self, error: BaseException) -> NoReturn:
        """A script's own fault is shown as its own; what cannot be followed is ours to explain."""
        if self.observer.done:
            self.end("seen", note=f"After its steps the script failed ({type(error).__name__}: {error}).")
        if isinstance(error, (NeedsValues, NotTraceable)) or _last_frame(error).startswith(_OURS):
            self.end("not traceable", error=explained(error, self.request.command))
        traceback.print_exception(error.with_traceback(_without_ours(error)))
        self.end("failed", exit_code=1)

    def end(self, ending: Ending, *, exit_code: int = 0, error: str = "", note: str = "") -> NoReturn:
        """Hand over what was seen, and end this process without running more of the script."""
        self.recorder.mark("end")
        self.recorder.stop()
        self.trace.micro_batch = self.observer.batch_size or 1
        Outcome(
            ending=ending,
            trace=self.trace if self.observer.steps_made else None,
            steps_made=self.observer.steps_made,
            validated=any("validation" in name for name in self.trace.marks),
            batch_size=self.observer.batch_size,
            cudnn_benchmark=bool(torch.backends.cudnn.benchmark),
            exit_code=exit_code,
            error=error,
            seconds=time.monotonic() - self._began,
            host_peak_bytes=_host_peak_bytes(),
            written=self.files.written,
            notes=(note,) if note else (),
        ).save(self.request.scratch)
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


def explained(error: BaseException, command: Command) -> str:
    """Why a script cannot be followed, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith((_OURS, _TORCH, _STANDARD, "<"))]
    where = f" at {theirs[-1].filename}:{theirs[-1].lineno} `{theirs[-1].line}`" if theirs else ""
    return f"'{command.name}' cannot be followed without a card{where}: {error}; run it on a card."


def _last_frame(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].filename if frames else ""


def _without_ours(error: BaseException) -> TracebackType | None:
    """The traceback from the script's first line on."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame):
        trace = trace.tb_next
    return trace or error.__traceback__


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


if __name__ == "__main__":
    with (Path(sys.argv[1]) / REQUEST).open("rb") as opened:
        asked = pickle.load(opened)
    Watch(asked).run()
