"""The card that is here as a place to make trials: each runs in a child process under the budget."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vramfit.errors import NotTraceable, UnknownCard
from vramfit.jobs.job import Job
from vramfit.jobs.levers.text import with_levers
from vramfit.measure.device import Device, Reading
from vramfit.measure.machine import read_machine
from vramfit.measure.spill import mark_spill
from vramfit.measure.worker import JobSource, Runner, measure_trial, run_on_card
from vramfit.records import Budget, Lever, Machine, Schedule, Source, Trial
from vramfit.units import MIB, format_size

# A desktop's windows come and go by less than this.
NOTABLE_BYTES = 256 * MIB


@dataclass(frozen=True)
class Levered:
    """A job with more levers than its own, or others in place of its own; pickles where the job does."""

    job: JobSource
    levers: tuple[Lever, ...]

    def __call__(self) -> Job:
        """The job."""
        job = self.job if isinstance(self.job, Job) else self.job()
        return replace(job, levers=with_levers(job.levers, self.levers))


@dataclass
class MeasuredBackend:
    """One job on one card; `predicted` gives the largest micro-batch that prediction believes in."""

    job: JobSource
    device: Device
    budget: Budget
    schedule: Schedule
    predicted: Callable[[int], int]
    runner: Runner = run_on_card
    source: Source = "measured"
    notes: list[str] = field(default_factory=list)
    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        self.machine = read_machine(self.device)

    @property
    def can_spill(self) -> bool:
        """Whether the driver may move memory to the system's RAM instead of refusing it."""
        return self.device.can_spill

    def trial(self, micro_batch: int, levers: tuple[Lever, ...] = ()) -> Trial:
        """Measure one micro-batch, with the last partial batch that the schedule will bring."""
        before = self.device.read()
        trial = measure_trial(
            Levered(self.job, levers) if levers else self.job,
            micro_batch,
            self.budget,
            device_index=self.device.index,
            last_batch=None if self.schedule.assumed else self.schedule.images % micro_batch or None,
            runner=self.runner,
        )
        if trial.context_bytes is not None:
            self.budget = self.budget.model_copy(update={"context_bytes": trial.context_bytes})
        self._watch_others(micro_batch, before)
        return trial

    def reviewed(self, trials: list[Trial]) -> list[Trial]:
        """The trials in the light of all: a time cliff is seen only once a smaller batch was tried too."""
        return [mark_spill(trial, trials) for trial in trials] if self.can_spill else trials

    def _watch_others(self, micro_batch: int, before: Reading) -> None:
        """The child is gone, so what is used now and was not before is somebody else's."""
        taken = self.device.read().used_bytes - before.used_bytes
        if taken > NOTABLE_BYTES:
            self.notes.append(
                f"Another program took {format_size(taken)} of the card while batch {micro_batch} was tried; "
                "its verdict may be too strict, and the run may have less."
            )

    def guess(self, maximum: int) -> int | None:
        """The prediction for this card; None, and a note, for a card or a step that cannot be predicted."""
        try:
            return self.predicted(maximum) or None
        except (UnknownCard, NotTraceable) as error:
            self.notes.append(f"Searched without a prediction: {error}")
            return None
