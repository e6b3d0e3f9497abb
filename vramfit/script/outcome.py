"""What a script's process is asked and what it hands back, as files in its scratch folder."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vramfit.prediction.trace_records import Trace
from vramfit.script.command import Command

REQUEST = "request.pickle"
OUTCOME = "outcome.pickle"

Ending = Literal["seen", "ended", "failed", "not traceable"]


@dataclass(frozen=True)
class Request:
    """What a script's process is to do: `card` is a name of `vramfit.cards`, `scratch` its own folder."""

    command: Command
    card: str
    steps: int
    scratch: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a script.

    `ending`: all was seen that was asked; the script ended by itself before; it failed by its own fault; or it did
    what cannot be followed, which `error` says. `seconds` are those from its first line on; `written` are files that
    it would have written, and did in the scratch folder alone.
    """

    ending: Ending
    trace: Trace | None = None
    steps_made: int = 0
    validated: bool = False
    batch_size: int = 0
    cudnn_benchmark: bool = False
    exit_code: int = 0
    error: str = ""
    seconds: float = 0.0
    host_peak_bytes: int = 0
    written: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def save(self, folder: Path) -> None:
        """Hand it to the process that waits."""
        with (folder / OUTCOME).open("wb") as file:
            pickle.dump(self, file)

    @classmethod
    def load(cls, folder: Path) -> "Outcome | None":
        """What a script's process handed back; None if it did not come to that."""
        if not (folder / OUTCOME).exists():
            return None
        with (folder / OUTCOME).open("rb") as file:
            outcome = pickle.load(file)
        assert isinstance(outcome, cls)
        return outcome
