"""TensorBoard: scalars and a few pictures of every epoch, hyperparameters of the run, notes and OOMs as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vramfit.records import EpochRecord, GrowBack, OomEvent
from vramfit.report.console import event_sentence, grow_back_sentence
from vramfit.training.listeners import Example, Listener, RunStart, RunSummary
from vramfit.units import GIB

# What the table of hyperparameters shows beside them and the task's first metrics.
_OUTCOMES = ("train/loss", "vram/device_used_gib")
_METRICS_SHOWN = 2
_QUALITY = 80


class TensorBoardListener(Listener):
    """Writes a run's figures into its log folder, and so many of its validation samples as pictures."""

    def __init__(self, examples: int = 0) -> None:
        self.examples = examples
        self._writer: Any = None
        self._session_end: Any = None
        self._epoch = 0

    def on_start(self, start: RunStart) -> None:
        """Open the log folder, and keep the notes and hyperparameters in it."""
        from torch.utils.tensorboard import SummaryWriter

        if start.log_dir is not None:
            self._writer = SummaryWriter(str(start.log_dir))
            self._epoch = start.first_epoch
            self._writer.add_text("notes", "\n\n".join(start.notes), start.first_epoch)
            self._add_hyperparameters(start)

    def on_note(self, text: str) -> None:
        """A sentence of the epoch that it belongs to, such as the warning near the limit."""
        self._text("notes", text, self._epoch)

    def on_examples(self, epoch: int, examples: Sequence[Example]) -> None:
        """Each sample's picture."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for example in examples:
            height, width, _ = example.picture.shape
            # The writer's own add_image makes a PNG, some ten times as large.
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=_jpeg(example.picture))
            value = Summary.Value(tag=example.tag, image=image)
            self._writer.file_writer.add_summary(Summary(value=[value]), epoch)

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
            self._writer.file_writer.add_summary(self._session_end)
            self._writer.close()

    def _add_hyperparameters(self, start: RunStart) -> None:
        """In the run's own folder: the writer's add_hparams would make a run of its own beside it."""
        from torch.utils.tensorboard.summary import hparams

        named = {**hyperparameters(start.settings), "micro_batch": start.micro_batch, "model": start.model}
        metrics = [f"valid/{name}" for name in start.metrics[:_METRICS_SHOWN]]
        *begun, self._session_end = hparams(named, dict.fromkeys([*metrics, *_OUTCOMES], 0.0))
        for summary in begun:
            self._writer.file_writer.add_summary(summary)

    def _text(self, name: str, text: str, epoch: int) -> None:
        if self._writer is not None:
            self._writer.add_text(name, text, epoch)
            self._writer.flush()


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, int | float | str]:
    """The options of a run as TensorBoard's table takes them: what is no number is text, yes and no among it."""
    return {
        name: value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
        for name, value in settings.items()
        if value is not None
    }


def scalars(record: EpochRecord) -> dict[str, float]:
    """TensorBoard's names and values of an epoch; sizes in GiB, shares of 1, distances in mm."""
    named = {
        "train/loss": record.loss,
        "train/learning_rate": record.learning_rate,
        "train/images_per_s": record.images_per_s,
        "train/data_wait_share": record.data_wait_share,
        "train/micro_batch": record.micro_batch,
        "train/oom_events": len(record.oom_events),
        **{f"valid/{name}": value for name, value in record.metrics.items()},
        "vram/peak_allocated_gib": _gib(record.peak_allocated_bytes),
        "vram/peak_reserved_gib": _gib(record.peak_reserved_bytes),
        "vram/device_used_gib": _gib(record.device_used_bytes),
    }
    return {name: float(value) for name, value in named.items() if value is not None}


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    import cv2

    jpeg = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return bytes(jpeg.tobytes())


def _gib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / GIB
