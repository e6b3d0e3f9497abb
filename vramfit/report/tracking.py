"""TensorBoard: the scalars of every epoch, and OOM events as text."""

from typing import Any

from vramfit.records import EpochRecord, OomEvent
from vramfit.report.console import event_sentence
from vramfit.training.events import Listener, RunStart, RunSummary
from vramfit.units import GIB


class TensorBoardListener(Listener):
    """Writes a run's figures into its log folder."""

    def __init__(self) -> None:
        self._writer: Any = None

    def on_start(self, start: RunStart) -> None:
        """Open the log folder, and keep the notes in it."""
        from torch.utils.tensorboard import SummaryWriter

        if start.log_dir is not None:
            self._writer = SummaryWriter(str(start.log_dir))
            self._writer.add_text("notes", "\n\n".join(start.notes), start.first_epoch)

    def on_epoch(self, record: EpochRecord) -> None:
        """Every figure that the epoch has, at its number."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()

    def on_event(self, event: OomEvent) -> None:
        """An OOM, in words and as the micro-batch that follows."""
        self._writer.add_text("oom", event_sentence(event), event.epoch)
        self._writer.flush()

    def on_end(self, summary: RunSummary) -> None:  # noqa: ARG002  # the listener's signature
        """Close the log."""
        if self._writer is not None:
            self._writer.close()


def scalars(record: EpochRecord) -> dict[str, float]:
    """TensorBoard's names and values of an epoch; sizes in GiB, shares of 1, distances in mm."""
    named = {
        "train/loss": record.loss,
        "train/learning_rate": record.learning_rate,
        "train/images_per_s": record.images_per_s,
        "train/data_wait_share": record.data_wait_share,
        "train/micro_batch": record.micro_batch,
        "train/oom_events": len(record.oom_events),
        "valid/mre_mm": record.mre_mm,
        **{f"valid/sdr_{limit}": share for limit, share in record.sdr.items()},
        "vram/peak_allocated_gib": _gib(record.peak_allocated_bytes),
        "vram/peak_reserved_gib": _gib(record.peak_reserved_bytes),
        "vram/device_used_gib": _gib(record.device_used_bytes),
    }
    return {name: float(value) for name, value in named.items() if value is not None}


def _gib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / GIB
