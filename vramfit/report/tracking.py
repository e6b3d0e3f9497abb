"""TensorBoard: the scalars of every epoch; notes, OOM events and micro-batches that grew back as text."""

from typing import Any

from vramfit.records import EpochRecord, GrowBack, OomEvent
from vramfit.report.console import event_sentence, grow_back_sentence
from vramfit.training.events import Listener, RunStart, RunSummary
from vramfit.units import GIB


class TensorBoardListener(Listener):
    """Writes a run's figures into its log folder."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._epoch = 0

    def on_start(self, start: RunStart) -> None:
        """Open the log folder, and keep the notes in it."""
        from torch.utils.tensorboard import SummaryWriter

        if start.log_dir is not None:
            self._writer = SummaryWriter(str(start.log_dir))
            self._epoch = start.first_epoch
            self._writer.add_text("notes", "\n\n".join(start.notes), start.first_epoch)

    def on_note(self, text: str) -> None:
        """A sentence of the epoch that it belongs to, such as the warning near the limit."""
        self._text("notes", text, self._epoch)

    def on_epoch(self, record: EpochRecord) -> None:
        """Every figure that the epoch has, at its number."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record.epoch)
        self._epoch = record.epoch
        self._writer.flush()

    def on_event(self, event: OomEvent) -> None:
        """An OOM, in words and as the micro-batch that follows."""
        self._text("oom", event_sentence(event), event.epoch)

    def on_grow_back(self, growth: GrowBack) -> None:
        """Larger micro-batches, in words."""
        self._text("grow_back", grow_back_sentence(growth), growth.epoch)

    def on_end(self, summary: RunSummary) -> None:  # noqa: ARG002  # the listener's signature
        """Close the log."""
        if self._writer is not None:
            self._writer.close()

    def _text(self, name: str, text: str, epoch: int) -> None:
        if self._writer is not None:
            self._writer.add_text(name, text, epoch)
            self._writer.flush()


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
