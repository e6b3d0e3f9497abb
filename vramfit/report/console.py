"""A run as a person follows it: a progress bar on a terminal, plain lines elsewhere."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from vramfit.records import EpochRecord, GrowBack, OomEvent
from vramfit.report.table import step_cell
from vramfit.report.terminal import wrapped
from vramfit.training.listeners import Listener, RunStart, RunSummary
from vramfit.training.listeners import Progress as StepProgress
from vramfit.units import format_duration, format_size

_STEPS_OF_A_PACE = 2
_LONG_S = 600
_SILENCE_S = 60


class _Patient(Console):
    """A console whose reader may leave, as with `| head`: the run goes on."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True


class ConsoleListener(Listener):
    """Prints a run: decisions first, then a line an epoch, a summary at the end."""

    def __init__(self, console: Console | None = None, *, stderr: bool = False) -> None:
        self._console = console or _Patient(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=stderr)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._epochs = 0
        self._metric_words: Callable[[Mapping[str, float]], Sequence[str]] = lambda _: ()
        self._steps_seen = 0
        self._last_line = time.monotonic()

    def on_data(self, what: str, done: int, total: int) -> None:
        """Move the bar of the data that is made ready; nothing off a terminal."""
        if not self._console.is_terminal:
            return
        if self._bar is None:
            self._open_bar()
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, description=what)

    def on_start(self, start: RunStart) -> None:
        """What is trained, where, and why so."""
        self.close()
        self._epochs = start.epochs
        self._metric_words = start.metric_words
        for line in start_lines(start):
            self._print(line)
        if self._console.is_terminal:
            self._open_bar()

    def on_note(self, text: str) -> None:
        """One sentence."""
        self._print(text)

    def on_progress(self, progress: StepProgress) -> None:
        """Move the bar; off a terminal a line a minute. Once, how long it will take, where that is long."""
        self._steps_seen += 1
        # The first step pays for what every run does once.
        if self._steps_seen == _STEPS_OF_A_PACE and (progress.left_s or 0) > _LONG_S:
            self._print(f"About {format_duration(progress.left_s)} to the end of the run at this pace.")
        if self._bar is None and time.monotonic() - self._last_line > _SILENCE_S:
            self._print(progress_line(progress, self._epochs))
        if self._bar is not None and self._task is not None:
            words = f"{progress.images_per_s:.1f} images/s, {format_duration(progress.left_s)} left"
            self._bar.update(
                self._task,
                completed=progress.step,
                total=progress.steps,
                description=f"epoch {progress.epoch}/{self._epochs}",
                words=words,
            )

    def on_epoch(self, record: EpochRecord) -> None:
        """One line, of what fits where it is a terminal's."""
        width = self._console.width if self._console.is_terminal else None
        self._print(epoch_line(record, self._epochs, self._metric_words(record.metrics), width))

    def on_event(self, event: OomEvent) -> None:
        """What ran out, and what happens now."""
        self._print(event_sentence(event))

    def on_grow_back(self, growth: GrowBack) -> None:
        """What is tried again, and why now."""
        self._print(grow_back_sentence(growth))

    def on_stop_asked(self) -> None:
        """Say at once what happens; past Python's own buffers, which a signal handler may find amid a write."""
        line_break = "\n" if self._console.is_terminal else ""
        with suppress(OSError):
            os.write(2, f"{line_break}Finishing this step; Ctrl-C again stops at once.\n".encode())

    def on_end(self, summary: RunSummary) -> None:
        """The closing summary."""
        self.close()
        for line in summary_lines(summary):
            self._print(line)

    def close(self) -> None:
        """Take the bar off the terminal, as after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open_bar(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("", total=None, words="")
        self._bar.start()

    def _print(self, line: str) -> None:
        terminal = self._console.is_terminal
        self._console.print(wrapped(line, self._console.width) if terminal else line)
        self._last_line = time.monotonic()


def start_lines(start: RunStart) -> list[str]:
    """The head of a run."""
    cards = f" on {start.world_size} ranks" if start.world_size > 1 else ""
    parts = f", in micro-batches of {start.micro_batch}" if start.micro_batch < start.effective_batch else ""
    return [
        f"Training {start.model} on {start.device}{cards}: {start.samples} images, {start.validation_samples} to "
        f"validate, epochs {start.first_epoch} to {start.epochs}, batch {start.effective_batch}{parts}.",
        *start.notes,
        f"Checkpoints: {start.save_dir}" + (f"; TensorBoard: {start.log_dir}" if start.log_dir else ""),
    ]


def progress_line(progress: StepProgress, epochs: int) -> str:
    """Where a long epoch is."""
    return (
        f"epoch {progress.epoch}/{epochs}, step {progress.step} of {progress.steps} | "
        f"{progress.images_per_s:.1f} images/s | {format_duration(progress.left_s)} left"
    )


def epoch_line(record: EpochRecord, epochs: int, metrics: Sequence[str] = (), width: int | None = None) -> str:
    """One epoch in one line, `metrics` in words; what was not measured is left out.

    A line of limited `width` leaves out what matters least: TensorBoard and the checkpoint have all of it.
    """
    oom = f"{len(record.oom_events)} OOM, micro-batch {record.micro_batch}" if record.oom_events else ""
    used = f"VRAM {format_size(record.device_used_bytes)}" if record.device_used_bytes is not None else ""
    # How little each matters; 0 always stays.
    parts = [
        (0, f"epoch {record.epoch}/{epochs}"),
        (0, f"loss {record.loss:.4f}"),
        (7, f"LR {record.learning_rate:.2e}"),
        *((1 if place == 0 else 6, words) for place, words in enumerate(metrics)),
        (4, f"{record.images_per_s:.1f} images/s"),
        (5, f"data wait {100 * record.data_wait_share:.0f} %"),
        (3, _vram(record) if width is None else used),
        (2, format_duration(record.duration_s)),
        (1, oom),
    ]
    parts = [part for part in parts if part[1]]
    while width is not None and len(_line(parts)) > width and max(parts)[0] > 0:
        parts.remove(max(parts))
    return _line(parts)


def _line(parts: Sequence[tuple[int, str]]) -> str:
    return " | ".join(words for _, words in parts)


def event_sentence(event: OomEvent) -> str:
    """What an OOM was and what was done."""
    return (
        f"Out of memory in the {event.phase} of epoch {event.epoch}, step {event.step}: the same samples again in "
        f"micro-batches of {event.micro_batch_after} in place of {event.micro_batch_before}; nothing is lost."
    )


def grow_back_sentence(growth: GrowBack) -> str:
    """What is tried again, and why now."""
    return (
        f"Epoch {growth.epoch - 1} had no OOM: from epoch {growth.epoch} on micro-batches of "
        f"{growth.micro_batch_after} again, in place of {growth.micro_batch_before}."
    )


def summary_lines(summary: RunSummary) -> list[str]:
    """How the run ended."""
    best, epochs = _best(summary), f"{summary.epochs} epoch{'' if summary.epochs == 1 else 's'}"
    if summary.finished_before:
        return [f"Nothing to do: the run finished its {epochs} before. {best}"]
    return [
        f"Done: {epochs} in {format_duration(summary.duration_s)}. {best}",
        *_compared(summary),
        f"OOM events: {len(summary.oom_events)}.",
        f"Checkpoints: {summary.save_dir}",
    ]


def _best(summary: RunSummary) -> str:
    if summary.best_epoch is None:
        return "No epoch was finished."
    return f"Best epoch: {summary.best_epoch}, {summary.best_words or f'loss {summary.best_loss}'}."


def _compared(summary: RunSummary) -> list[str]:
    """The plan's VRAM and step time beside the run's, where there was a plan and the run was on a card."""
    profile = summary.profile
    trial = profile.trial(summary.micro_batch) if profile else None
    if profile is None or trial is None or summary.device_used_bytes is None:
        return []
    source = f"predicted for {profile.machine.card}" if trial.source == "predicted" else trial.source
    steps = profile.plan.accumulation_steps
    used, planned = format_size(summary.device_used_bytes), format_size(trial.device_used_bytes)
    return [
        f"VRAM: {source} {planned}, real {used}.",
        f"Step time: {source} {step_cell(trial, steps)}, real {format_duration(summary.step_time_s)}.",
    ]


def _vram(record: EpochRecord) -> str:
    if record.peak_allocated_bytes is None:
        return ""
    sizes = (record.peak_allocated_bytes, record.peak_reserved_bytes, record.device_used_bytes)
    return "VRAM allocated {} reserved {} device {}".format(*map(format_size, sizes))
