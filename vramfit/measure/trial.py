"""One trial: the whole schedule of a training run in small, under the budget, in this process.

A run differs from a single step in what surprises people at night: optimizer state appears with the first step
that the scaler lets through, validation peaks elsewhere, the step after validation finds another cache, a checkpoint
is saved, and the last batch of an epoch has its own shape. A trial does each of these and keeps the highest peak.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from statistics import median
from time import perf_counter

import torch
from torch import nn

from vramfit.errors import VramfitError
from vramfit.jobs.batch import sample_batch
from vramfit.jobs.job import Batch, Job
from vramfit.jobs.step import Precision, Step
from vramfit.measure.budget import is_emulated
from vramfit.measure.memory import CardMemory, MemoryFigures
from vramfit.measure.preserve import preserved
from vramfit.oom import is_out_of_memory, release_memory
from vramfit.records import Budget, Trial, Verdict

# Steps that count, at least; quick ones are repeated for a steadier median.
COUNTED_STEPS = 3
MOST_STEPS = 20
ENOUGH_SECONDS = 0.5
# A scaler starts at 2^16 and halves at each skip.
MOST_SKIPS = 17


@dataclass
class Rehearsal:
    """One trial under way: what it is to do, how far it came, and what it saw."""

    memory: CardMemory
    micro_batch: int
    last_batch: int | None = None
    phase: str = "building the model"
    step_times_s: list[float] = field(default_factory=list)
    warm_up_retries: int = 0
    notes: list[str] = field(default_factory=list)
    failure: str | None = None

    def attempt(self, job: Job, precision: Precision | None) -> None:
        """Run it all, and note an OOM as text: its traceback would keep every tensor of the failed step alive."""
        try:
            self._run(job, precision)
        except VramfitError:
            raise
        except Exception as error:
            message = (str(error).strip().splitlines() or ["no message"])[0]
            if not is_out_of_memory(error):
                raise VramfitError(
                    f"The job fails in {self.phase} ({type(error).__name__}: {message}); mend it and probe again."
                ) from error
            self.failure = f"out of memory in {self.phase}: {message}"

    def _run(self, job: Job, precision: Precision | None) -> None:
        step = Step(_with_own_model(job), self.memory.device, precision=precision)
        batch = sample_batch(job, self.micro_batch)
        self.phase = "the first step"
        self._warm_up(step, batch)
        self.phase = "a training step"
        self._count_steps(step, batch)
        self.phase = "an accumulated step"
        if job.step is None:
            step.backward(batch, self.micro_batch)  # its gradients stay, as in a run that splits its batch
        step.train(batch, self.micro_batch)
        self.phase = "validation"
        if step.can_validate:
            step.validate(batch)
        self.phase = "the step after validation"
        step.train(batch, self.micro_batch)
        self.phase = "saving a checkpoint"
        torch.save(step.state_dict(), io.BytesIO())
        if self.last_batch and self.last_batch < self.micro_batch:
            self.phase = f"the last partial batch of {self.last_batch}"
            self._last_batch(step, sample_batch(job, self.last_batch), self.last_batch)
        self.memory.synchronize()

    def _warm_up(self, step: Step, batch: Batch) -> None:
        """Step until the scaler lets one through: only then is there optimizer state."""
        scaler = step.precision.scaler
        for _ in range(MOST_SKIPS):
            scale = scaler.get_scale()
            step.train(batch, self.micro_batch)
            if scaler.get_scale() >= scale:
                break
        else:
            self.notes.append("the scaler skipped every step: the gradients are not finite")
        self.warm_up_retries = self.memory.figures().retries

    def _count_steps(self, step: Step, batch: Batch) -> None:
        times = self.step_times_s
        while len(times) < COUNTED_STEPS or (sum(times) < ENOUGH_SECONDS and len(times) < MOST_STEPS):
            self.memory.synchronize()
            begin = perf_counter()
            step.train(batch, self.micro_batch)
            self.memory.synchronize()
            times.append(perf_counter() - begin)

    def _last_batch(self, step: Step, batch: Batch, size: int) -> None:
        """The epoch's last, smaller batch; a single sample breaks BatchNorm over one value, which is worth a note."""
        try:
            step.train(batch, size)
        except ValueError as error:
            if size > 1:
                raise
            self.notes.append(f"a last batch of 1 fails ({error}): drop it, or choose another batch")


def run_trial(
    job: Job,
    micro_batch: int,
    budget: Budget,
    memory: CardMemory,
    *,
    last_batch: int | None = None,
    precision: Precision | None = None,
    total_bytes: int | None = None,
) -> Trial:
    """Try one micro-batch in this process and leave the process as it was.

    Args:
        job: what to train; its model is copied, so weights that the caller holds stay as they are.
        micro_batch: samples a step.
        budget: what the trial may use at device level; enforced through `memory`.
        memory: the card.
        last_batch: size of an epoch's last batch where it is smaller, None where there is none.
        precision: how to compute, the job's own by default.
        total_bytes: the card's dedicated memory, where exceeding it spills instead of failing (Windows).

    Raises:
        VramfitError: the job itself failed, for another reason than memory.

    """
    rehearsal = Rehearsal(memory, micro_batch, last_batch)
    with preserved(), _limited(memory, budget):
        rehearsal.attempt(job, precision)
        figures = memory.figures()
        release_memory()
    return measured_trial(
        rehearsal.micro_batch,
        figures,
        budget,
        warm_up_retries=rehearsal.warm_up_retries,
        step_time_s=median(rehearsal.step_times_s) if rehearsal.step_times_s else None,
        failure=rehearsal.failure,
        notes=rehearsal.notes,
        total_bytes=total_bytes,
    )


def judge(figures: MemoryFigures, budget: Budget, warm_up_retries: int, total_bytes: int | None = None) -> Verdict:
    """The verdict on a trial that ran to its end."""
    if total_bytes is not None and figures.device_used_bytes > total_bytes:
        return Verdict.SPILLED
    if figures.device_used_bytes > budget.budget_bytes or figures.retries > warm_up_retries:
        return Verdict.OVER_BUDGET
    return Verdict.FITS


def _with_own_model(job: Job) -> Job:
    """The job with a copy of its model: a factory may hand out a network that the caller goes on using."""
    return replace(job, model=lambda: _copied(job.model()))


def _copied(model: nn.Module) -> nn.Module:
    """A copy, or the network itself where it holds tensors that torch does not copy."""
    try:
        return deepcopy(model)
    except RuntimeError:
        return model


@contextmanager
def _limited(memory: CardMemory, budget: Budget) -> Iterator[None]:
    memory.start(budget)
    try:
        yield
    finally:
        memory.stop()


def measured_trial(
    micro_batch: int,
    figures: MemoryFigures,
    budget: Budget,
    *,
    warm_up_retries: int,
    step_time_s: float | None,
    failure: str | None = None,
    notes: Sequence[str] = (),
    total_bytes: int | None = None,
) -> Trial:
    """What was measured of a micro-batch, judged.

    Args:
        micro_batch: its samples.
        figures: what the card showed.
        budget: what the job may use.
        warm_up_retries: retries of the allocator in the first step, which are no sign of a limit.
        step_time_s: the time of a step; left out where it failed.
        failure: the sentence of an out-of-memory error, None where the steps ran.
        notes: what else is to be said of steps that ran.
        total_bytes: the card's dedicated memory, where exceeding it spills instead of failing (Windows).

    """
    verdict = Verdict.OOM if failure is not None else judge(figures, budget, warm_up_retries, total_bytes)
    retries = figures.retries - warm_up_retries
    said = [failure] if failure else list(notes)
    if verdict is Verdict.OVER_BUDGET and retries > 0:
        said.append(f"the allocator had to clean up and retry {retries} times: too near the limit")
    return Trial(
        source="measured",
        micro_batch=micro_batch,
        verdict=verdict,
        budget_bytes=budget.budget_bytes,
        peak_allocated_bytes=figures.peak_allocated_bytes,
        peak_reserved_bytes=figures.peak_reserved_bytes,
        context_bytes=figures.context_bytes,
        device_used_bytes=figures.device_used_bytes,
        step_time_s=None if failure is not None else step_time_s,
        allocator_retries=max(0, retries),
        emulated=is_emulated(budget),
        note="; ".join(said),
    )
