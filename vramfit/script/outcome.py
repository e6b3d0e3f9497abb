"""What a script's process is asked and what it hands back, as files in its scratch folder."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vramfit.choices import Amp
from vramfit.measure.memory import CardMemory, MemoryFigures
from vramfit.prediction.trace_records import Trace
from vramfit.records import Budget
from vramfit.script.command import Command

REQUEST = "request.pickle"
OUTCOME = "outcome.pickle"

Ending = Literal["seen", "ended", "failed", "not traceable", "out of memory"]


@dataclass(frozen=True)
class OnCard:
    """How a script is measured on the card that is here.

    `open_memory` gives the card's memory in the script's process; `whole_run` lets the script run to its end and
    write what it writes, where otherwise it ends after a few steps and nothing of the user's changes.
    """

    budget: Budget
    open_memory: Callable[[], CardMemory]
    whole_run: bool = False


@dataclass(frozen=True)
class Measured:
    """What a script took of a card: `phases`, `samples` and `held` as `CardRecorder` has them."""

    figures: MemoryFigures
    warm_up_retries: int
    step_time_s: float | None
    peak_phase: str
    phases: dict[str, int]
    samples: dict[str, int]
    amp: Amp | None = None
    held: tuple[int, ...] = ()


@dataclass(frozen=True)
class Request:
    """What a script's process is to do: `card` is a name of `vramfit.cards`, `scratch` its own folder.

    With `on_card` the card that is here is measured instead.
    """

    command: Command
    card: str
    steps: int
    scratch: Path
    on_card: OnCard | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a script.

    `ending`: all was seen that was asked; the script ended by itself before; it failed by its own fault; it did what
    cannot be followed, or ran out of the card's memory, as `error` says. `seconds` are those from its first line on;
    `written` are files that it would have written, and did in the scratch folder alone; `levers` those of the command
    that changed something.
    """

    ending: Ending
    trace: Trace | None = None
    measured: Measured | None = None
    steps_made: int = 0
    validated: bool = False
    batch_size: int = 0
    cudnn_benchmark: bool = False
    exit_code: int = 0
    error: str = ""
    seconds: float = 0.0
    host_peak_bytes: int = 0
    written: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    levers: tuple[str, ...] = ()

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
