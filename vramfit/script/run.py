"""Runs a script in a process of its own and takes what it hands back."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vramfit.allocator_environment import NAMES
from vramfit.errors import NotTraceable, ScriptFailed
from vramfit.measure.visible import VISIBLE, visible_entry
from vramfit.script.command import Command
from vramfit.script.levers import allocator_environment
from vramfit.script.outcome import REQUEST, OnCard, Outcome, Request
from vramfit.script.process_group import script_group

TIMEOUT_S = 600.0
# Trackers and hubs that would write or call home; each is told so in its own words.
_QUIET = {
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "COMET_MODE": "disabled",
    "NEPTUNE_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
    "MLFLOW_TRACKING_URI": "{scratch}/mlruns",
    "DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TMPDIR": "{scratch}/tmp",
    "TEMP": "{scratch}/tmp",
    "TMP": "{scratch}/tmp",
    "CUDA_CACHE_PATH": "{scratch}/cuda",
    "TRITON_CACHE_DIR": "{scratch}/triton",
    "TORCHINDUCTOR_CACHE_DIR": "{scratch}/inductor",
}


def watch_script(
    command: Command,
    card: str,
    *,
    steps: int = 3,
    quiet: bool = False,
    timeout_s: float | None = TIMEOUT_S,
    on_card: OnCard | None = None,
) -> Outcome:
    """Run a script on a card, until it made some optimizer steps.

    Args:
        command: what to run, from the current folder.
        card: the card that is not here, a name of `vramfit.cards`.
        steps: optimizer steps to see.
        quiet: keep what the script prints to itself; what it says of an error is in the error.
        timeout_s: the most that it may take; None for no limit.
        on_card: measure on the card that is here instead of believing in another.

    Raises:
        ScriptFailed: the script ended by its own fault; carries its exit code.
        NotTraceable: it does what cannot be followed, made no step, or took too long.

    """
    whole_run = on_card is not None and on_card.whole_run
    with _scratch() as scratch:
        (scratch / "tmp").mkdir()
        with (scratch / REQUEST).open("wb") as file:
            pickle.dump(Request(command, card, steps, scratch, on_card), file)
        environment = _environment(scratch, os.environ, dict(command.environment), whole_run=whole_run)
        if options := allocator_environment(command, os.environ):
            environment.update(dict.fromkeys(NAMES, options))
        if not whole_run:
            environment[VISIBLE] = visible_entry(0, os.environ) if on_card else ""
        said = _run(scratch, environment, quiet=quiet, whole_run=whole_run, timeout_s=timeout_s)
        outcome = Outcome.load(scratch)
    return _checked(outcome, command, said, timeout_s)


def _checked(outcome: Outcome | None, command: Command, said: "_Said", timeout_s: float | None) -> Outcome:
    if said.late and timeout_s is not None:
        raise NotTraceable(f"'{command.name}' did not make its steps within {timeout_s:.0f} s; give it less to load.")
    if outcome is None:
        raise ScriptFailed(f"'{command.name}' {_how_it_ended(said.code)}{said.tail}", exit_code=max(1, said.code))
    if outcome.ending == "failed":
        raise ScriptFailed(
            f"'{command.name}' failed by itself with exit code {outcome.exit_code}"
            f"{said.tail.removesuffix('.') + outcome.error if outcome.error else said.tail}",
            exit_code=outcome.exit_code,
        )
    if outcome.ending == "not traceable":
        raise NotTraceable(outcome.error)
    if outcome.ending != "out of memory" and not outcome.steps_made:
        raise NotTraceable(
            f"'{command.name}' ended without an optimizer step or a backward pass; give it the arguments with which it "
            "trains."
        )
    if outcome.trace is not None and not outcome.trace.storages:
        raise NotTraceable(
            f"'{command.name}' made its steps without a tensor on the card; give it the option with which it trains on "
            "one, such as --device cuda."
        )
    return outcome


def _how_it_ended(code: int) -> str:
    return f"was killed (signal {-code})" if code < 0 else f"ended its process with exit code {code}"


class _Said:
    """How a process ended, and the last that it printed if that was kept."""

    def __init__(self, code: int, printed: str = "", *, late: bool = False) -> None:
        self.code = code
        self.late = late
        lines = printed.strip().splitlines()
        self.tail = f": {lines[-1][:300]}" if lines else "."


def _run(scratch: Path, environment: dict[str, str], *, quiet: bool, whole_run: bool, timeout_s: float | None) -> _Said:
    output = subprocess.PIPE if quiet else _stderr()
    words = [sys.executable, "-m", "vramfit.script.child", str(scratch)]
    settings = {
        "stdin": None if whole_run else subprocess.DEVNULL,
        "stdout": output,
        "stderr": subprocess.STDOUT if quiet else output,
    }
    with script_group(words, for_real=whole_run, env=environment, **settings) as process:
        try:
            printed, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return _Said(1, late=True)
        except KeyboardInterrupt:
            if whole_run:  # a script may save where it is
                process.send_signal(signal.SIGINT)
                process.wait()
            raise
    return _Said(process.returncode, printed.decode(errors="replace") if printed else "")


def _stderr() -> int:
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError):  # a notebook's has no file, and a program without a console has none at all
        return 2


def _environment(
    scratch: Path, environment: Mapping[str, str], settings: Mapping[str, str], *, whole_run: bool
) -> dict[str, str]:
    """The environment of a script's process, with the command's `settings`; that of a whole run is the user's own."""
    quiet = {} if whole_run else {name: value.format(scratch=scratch) for name, value in _QUIET.items()}
    made = {**environment, **quiet, **settings}
    ours = str(Path(__file__).parents[2])
    return {**made, "PYTHONPATH": os.pathsep.join(filter(None, (made.get("PYTHONPATH"), ours)))}


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="vramfit-run-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
