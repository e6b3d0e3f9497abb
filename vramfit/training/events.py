"""What a run tells those who listen: console, TensorBoard, a test."""

from dataclasses import dataclass
from pathlib import Path

from vramfit.records import EpochRecord, GrowBack, OomEvent, Profile


@dataclass(frozen=True)
class RunStart:
    """What is about to be trained; `notes` are decisions made for the user, each with its reason."""

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
    """How a run ended. Predicted and real figures are None where there was none."""

    epochs: int
    best_epoch: int | None
    best_mre_mm: float | None
    best_loss: float | None
    duration_s: float
    save_dir: Path
    profile: Profile | None = None
    micro_batch: int = 1
    device_used_bytes: int | None = None
    step_time_s: float | None = None
    finished_before: bool = False
    oom_events: tuple[OomEvent, ...] = ()
    grow_backs: tuple[GrowBack, ...] = ()
    history: tuple[EpochRecord, ...] = ()


class Listener:
    """Hears of a run; each method does nothing unless overridden. Only the first rank has listeners."""

    def on_films(self, split: str, done: int, total: int) -> None:
        """Films of a split are being decoded, once for all runs; it comes before `on_start`."""

    def on_start(self, start: RunStart) -> None:
        """The run begins."""

    def on_note(self, text: str) -> None:
        """Something was decided or noticed that the user should know; one sentence."""

    def on_progress(self, progress: Progress) -> None:
        """A step was done."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch was trained and validated."""

    def on_event(self, event: OomEvent) -> None:
        """The card ran out of memory, and the step goes again in smaller parts."""

    def on_grow_back(self, growth: GrowBack) -> None:
        """The next epoch takes larger micro-batches again."""

    def on_end(self, summary: RunSummary) -> None:
        """The run is over."""
