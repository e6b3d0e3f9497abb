"""The processes of a script: asked to end when this process is, and ended with all that they started."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

# How long a script that was asked to end may take to save where it is: as long as SLURM waits, in seconds.
GRACE_S = 30.0
_END = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))


@contextmanager
def script_group(words: Sequence[str], *, for_real: bool, **settings: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process and all that it starts, none of which outlives the context; `settings` are those of `Popen`.

    What a script `for_real` leaves running when it has ended by itself stays, as without vramfit. A signal that asks
    this process to end goes to the whole group, which then has `GRACE_S` seconds to end by itself; a second one ends it
    at once. Off the main thread no signal comes, and none is passed on. Known limitation: on Windows a process that is
    terminated hears of nothing, and its script goes on; Ctrl-Break is passed on.

    Raises:
        SystemExit: a signal came; the code is 128 and its number, as a shell has it.

    """
    process = subprocess.Popen(words, start_new_session=True, **settings)
    before = {number: signal.signal(number, _passing_on(process)) for number in _END if _is_main_thread()}
    try:
        yield process
    except SystemExit:
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE_S)
        end_all(process)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if not for_real or process.poll() is None:
            end_all(process)


def end_all(process: "subprocess.Popen[bytes]") -> None:
    """End a script's process and all that it started."""
    if hasattr(os, "killpg"):
        _send(process, signal.SIGKILL)
    elif process.poll() is None:  # Windows
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _passing_on(process: "subprocess.Popen[bytes]") -> Any:
    def passed_on(number: int, _frame: FrameType | None) -> NoReturn:
        _send(process, number)
        raise SystemExit(128 + number)

    return passed_on


def _send(process: "subprocess.Popen[bytes]", number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
