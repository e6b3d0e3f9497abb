"""A training run from its options: data, plan, step, loop, summary."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import torch

from vramfit.jobs.job import Job
from vramfit.jobs.levers.apply import available
from vramfit.jobs.levers.text import with_levers
from vramfit.jobs.ranks import Ranks
from vramfit.shipped import load_profile
from vramfit.training.batch_plan import Decision, choose_device, decide
from vramfit.training.checkpoint import BEST
from vramfit.training.launch import Launch
from vramfit.training.listeners import Listener, RunStart, RunSummary
from vramfit.training.loop import Loop
from vramfit.training.profile_writer import ProfileWriter
from vramfit.training.resume import Resumed, read_resumed
from vramfit.training.run_folders import PROFILE, log_folder, require_folders
from vramfit.training.run_options import RunOptions, refuse_communicating
from vramfit.training.run_state import RunState
from vramfit.training.task import Task

Told = Callable[[str, int, int], None]


class TaskSource(Protocol):
    """Where a run gets its task, once it is known whether and what it resumes."""

    def open(self, resumed: Resumed | None, told: Told) -> Task:
        """The task; `told` hears what is made ready, and how much of it is done."""

    def job_of(self, resumed: Resumed) -> Job:
        """The job that would go on from a checkpoint, without reading data."""

    def metric_words(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """As `Task.metric_words`."""


@dataclass(frozen=True)
class ReadyTask:
    """A task that is at hand already."""

    task: Task

    def open(self, resumed: Resumed | None, told: Told) -> Task:  # noqa: ARG002  # nothing is left to read
        """The task itself."""
        return self.task

    def job_of(self, resumed: Resumed) -> Job:  # noqa: ARG002  # its own, whatever the checkpoint
        """The task's own job."""
        return self.task.job

    def metric_words(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """The task's own words."""
        return self.task.metric_words(metrics)


def train(task: Task, options: RunOptions, listeners: Sequence[Listener] = ()) -> RunSummary:
    """Train any task: the batch is checked against the card, and an OOM on the way splits it and goes on.

    Checkpoints, resume, the memory limit, several ranks (under torchrun) and listeners come with it, as `vramfit train`
    has them.

    Args:
        task: a job with its data; see `vramfit.Task`.
        options: the run; `batch_size` or `auto_batch` choose the batch.
        listeners: told of epochs, OOMs and the end, such as `vramfit.report.console.ConsoleListener`.

    Raises:
        UsageError, NoUsableGpu, NothingFits, ProfileError: before anything is trained.
        DataError: data or a checkpoint that cannot be used.
        NotFinite, OutOfMemory, CannotWrite: the run ended early; the last checkpoint is whole.
        KeyboardInterrupt: Ctrl-C, after a checkpoint.

    >>> import tempfile, torch, vramfit
    >>> from pathlib import Path
    >>> class Numbers:
    ...     def __len__(self):
    ...         return 8
    ...     def fetch(self, epoch, indices):
    ...         x = torch.linspace(-1, 1, 8)[list(indices), None]
    ...         return x, x ** 2
    >>> class Parabola(vramfit.Task):
    ...     job = vramfit.Job(
    ...         model=lambda: torch.nn.Linear(1, 1),
    ...         batch=lambda n: (torch.zeros(n, 1), torch.zeros(n, 1)),
    ...         loss=torch.nn.functional.mse_loss,
    ...         optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    ...         amp=None,
    ...     )
    ...     training = validation = Numbers()
    >>> folder = Path(tempfile.mkdtemp())
    >>> options = vramfit.RunOptions(epochs=2, batch_size=4, device="cpu", save_dir=folder, log_dir=folder / "logs")
    >>> vramfit.train(Parabola(), options).epochs
    2

    Known limitations: one process a card; model and optimizer states are not sharded.
    """
    return run(ReadyTask(task), options, listeners)


def run(source: TaskSource, options: RunOptions, listeners: Sequence[Listener] = ()) -> RunSummary:
    """As `train`, with a task that is opened once it is known what the run resumes."""
    began = time.monotonic()
    with Ranks.join("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu") as ranks:
        told = listeners if ranks.is_first else ()
        require_folders(options.save_dir, options.log_dir)
        resumed = read_resumed(options)
        if resumed is not None and resumed.is_over(options):
            return _told_of_end(_finished_before(source, options, resumed), told)
        device = choose_device(options.device, ranks)
        task = source.open(resumed, _teller(told))
        job = with_levers_of(task.job, options)
        refuse_communicating(job.levers)
        _teller(told)("planning the batch for the card", 0, 1)
        wanted = options.batch_size or (resumed.content["effective_batch"] if resumed else None)
        decision = decide(job, options, device, ranks, samples=len(task.training), effective=wanted)
        launch = Launch(task, replace(job, levers=decision.levers), options, ranks, device, resumed, datetime.now())
        told = [*told, *_profile_writers(options, decision, resumed)] if ranks.is_first else ()
        loop, notes = launch.loop(decision, told)
        start = _start(loop, decision, notes, log_folder(options.log_dir, task.name, launch.now))
        for listener in told:
            listener.on_start(start)
        loop.run()
        if ranks.is_first:
            _finish(loop, told)
        return _told_of_end(_end(loop, decision, time.monotonic() - began), told)


def with_levers_of(job: Job, options: RunOptions) -> Job:
    """The job with the levers that the options name, or those of their profile that this machine knows."""
    if options.profile:
        return replace(job, levers=available(load_profile(options.profile).plan.levers))
    return replace(job, levers=with_levers(job.levers, options.named_levers)) if options.named_levers else job


def _teller(listeners: Sequence[Listener]) -> Told:
    def told(what: str, done: int, total: int) -> None:
        for listener in listeners:
            listener.on_data(what, done, total)

    return told


def _profile_writers(options: RunOptions, decision: Decision, resumed: Resumed | None) -> list[ProfileWriter]:
    """Who writes the run's profile, where it has one; a resumed run goes on with its events."""
    if decision.profile is None:
        return []
    state = resumed.state if resumed else RunState()
    return [ProfileWriter(state.written_into(decision.profile), options.save_dir / PROFILE)]


def _start(loop: Loop, decision: Decision, notes: Sequence[str], log_dir: Path) -> RunStart:
    task, options, device = loop.task, loop.options, loop.step.device
    return RunStart(
        model=loop.step.job.model_name or task.name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        samples=len(task.training),
        validation_samples=len(task.validation),
        epochs=options.epochs,
        first_epoch=loop.state.epoch + 1,
        steps_per_epoch=loop.steps_per_epoch,
        effective_batch=decision.effective_batch,
        micro_batch=loop.recovery.micro_batch,
        world_size=loop.ranks.world_size,
        save_dir=options.save_dir,
        log_dir=log_dir,
        notes=tuple(notes),
        settings=options.plain(),
        metrics=task.metrics,
        metric_words=task.metric_words,
    )


def _finish(loop: Loop, listeners: Sequence[Listener]) -> None:
    best = loop.options.save_dir / BEST
    for note in loop.task.finish(best, loop.step.device) if best.is_file() else ():
        for listener in listeners:
            listener.on_note(note)


def _summary(state: RunState, judge: Task | TaskSource, save_dir: Path) -> RunSummary:
    """What epochs are behind, without what this run took for them."""
    best = state.best
    words = judge.metric_words(best.metrics) if best else ()
    return RunSummary(
        epochs=state.epoch,
        best_epoch=state.best_epoch,
        best_metrics=best.metrics if best else {},
        best_loss=best.loss if best else None,
        best_words=words[0] if words else "",
        duration_s=0.0,
        save_dir=save_dir,
    )


def _end(loop: Loop, decision: Decision, duration_s: float) -> RunSummary:
    state = loop.state
    return replace(
        _summary(state, loop.task, loop.options.save_dir),
        duration_s=duration_s,
        profile=state.written_into(decision.profile) if decision.profile else None,
        micro_batch=decision.micro_batch,
        device_used_bytes=loop.memory.highest_bytes,
        step_time_s=loop.step_time_s,
        oom_events=tuple(state.oom_events),
        grow_backs=tuple(state.grow_backs),
        history=tuple(state.history),
    )


def _finished_before(source: TaskSource, options: RunOptions, resumed: Resumed) -> RunSummary:
    resumed.require_model_of(source.job_of(resumed))
    return replace(_summary(resumed.state, source, options.save_dir), finished_before=True)


def _told_of_end(summary: RunSummary, listeners: Sequence[Listener]) -> RunSummary:
    for listener in listeners:
        listener.on_end(summary)
    return summary
