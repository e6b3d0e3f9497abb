"""What a run tells those who listen: console, TensorBoard, a test."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vramfit.records import EpochRecord, GrowBack, OomEvent, Profile


@dataclass(frozen=True)
class RunStart:
    """What is about to be trained.

    `notes` are decisions made for the user, each with its reason; `settings` the options of the run, in plain types;
    `metrics` the names of the task's metrics, and `metric_words` makes of an epoch's what a line shows.
    """

    model: str
    device: str
    samples: int
    validation_samples: int
    epochs: int
    first_epoch: int
    steps_per_epoch: int
    effective_batch: int
    micro_batch: int
    world_size: int
    save_dir: Path
    log_dir: Path | None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    metric_words: Callable[[Mapping[str, float]], Sequence[str]] = lambda _: ()


@dataclass(frozen=True)
class Example:
    """A validation sample and what the network made of it, as a picture; `tag` is its name in a log, as `images/7`.

    `picture` is uint8 HxWx3, red, green, blue.
    """

    tag: str
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class Progress:
    """A step that has been done; `loss` is that of the step before, which costs no wait. Epochs and steps from 1."""

    epoch: int
    step: int
    steps: int
    loss: float | None
    learning_rate: float
    images_per_s: float
    left_s: float | None


@dataclass(frozen=True)
class RunSummary:
    """How a run ended. Predicted and real figures are None where there was none.

    `best_words` is the best epoch's most telling metric as people read it, empty where only the loss was judged.
    """

    epochs: int
    best_epoch: int | None
    best_metrics: Mapping[str, float]
    best_loss: float | None
    duration_s: float
    save_dir: Path
    best_words: str = ""
    profile: Profile | None = None
    micro_batch: int = 1
    device_used_bytes: int | None = None
    step_time_s: float | None = None
    finished_before: bool = False
    oom_events: tuple[OomEvent, ...] = ()
    grow_backs: tuple[GrowBack, ...] = ()
    history: tuple[EpochRecord, ...] = ()

    def document(self) -> dict[str, Any]:
        """The summary as plain values; the profile is in a file of its own."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "profile"}
        records = ("oom_events", "grow_backs", "history")
        plain |= {name: [record.model_dump(mode="json") for record in plain[name]] for name in records}
        return plain | {"save_dir": str(self.save_dir), "best_metrics": dict(self.best_metrics)}


class Listener:
    """Hears of a run; each method does nothing unless overridden. Only the first rank has listeners.

    `examples` is how many validation samples it wants to see after each epoch.
    """

    examples = 0

    def on_data(self, what: str, done: int, total: int) -> None:
        """Data is made ready, once for all runs, such as "decoding images of 'train'"; it comes before `on_start`."""

    def on_start(self, start: RunStart) -> None:
        """The run begins."""

    def on_note(self, text: str) -> None:
        """Something was decided or noticed that the user should know; one sentence."""

    def on_progress(self, progress: Progress) -> None:
        """A step was done."""

    def on_examples(self, epoch: int, examples: Sequence[Example]) -> None:
        """Some validation samples of an epoch, the same in every one; it comes before `on_epoch`."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch was trained and validated."""

    def on_event(self, event: OomEvent) -> None:
        """The card ran out of memory, and the step goes again in smaller parts."""

    def on_grow_back(self, growth: GrowBack) -> None:
        """The next epoch takes larger micro-batches again."""

    def on_stop_asked(self) -> None:
        """Someone pressed Ctrl-C, and the step goes on to its end; called from a signal handler, amid anything."""

    def on_end(self, summary: RunSummary) -> None:
        """The run is over."""
