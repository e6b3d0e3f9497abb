"""The probe: predict where there is no card, measure where there is one, search, choose, and keep it as a profile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import nn

from vramfit import __version__
from vramfit.cards import Card, find_card
from vramfit.errors import NothingFits, NoUsableGpu, UsageError, VramfitError
from vramfit.jobs.job import Job, job_key
from vramfit.measure.bench import MeasuredBench
from vramfit.measure.budget import read_budget, size_in_bytes
from vramfit.measure.device import Device, local_device
from vramfit.measure.host import available_host_bytes, largest_in_host_memory
from vramfit.measure.machine import read_machine
from vramfit.measure.worker import JobSource
from vramfit.plan.choose import choose_trial, make_plan
from vramfit.plan.search import CEILING, Search, Tried, table_sizes
from vramfit.records import Budget, Machine, Objective, Plan, Profile, Schedule, Source, Trial, Verdict
from vramfit.units import format_size

if TYPE_CHECKING:
    from vramfit.prediction.frontier import Frontier
    from vramfit.prediction.predict import Predictor

Mode = Literal["auto", "measure", "predict"]
# Stands in where there is no card and none is named: the card of the guide that this project replaces.
DEFAULT_CARD = "rtx3070ti"


class Bench(Protocol):
    """Where trials are made: a card that is here, or one that is foretold."""

    source: Source
    budget: Budget
    machine: Machine
    notes: list[str]

    def trial(self, micro_batch: int) -> Trial:
        """Try one micro-batch."""

    def guess(self, maximum: int) -> int | None:
        """The micro-batch that is believed to be the largest that fits; None where nothing is known."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asks of the answer."""

    batch_sizes: tuple[int, ...] = ()
    objective: Objective = "fastest"
    effective_batch: int | None = None
    maximum: int = CEILING


def fit(
    job: JobSource,
    *,
    vram: str | int | None = None,
    gpu: str | None = None,
    reserve: str | int | None = None,
    mode: Mode = "auto",
    batch_sizes: Sequence[int] | None = None,
    objective: Objective = "fastest",
    effective_batch: int | None = None,
    schedule: Schedule | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Profile:
    """Fit a job to a card: find the micro-batch to train with, and prove it where the card is here.

    Args:
        job: what to train, or an importable function that returns it.
        vram: the most it may use at device level, such as `8GB` or bytes.
        gpu: a card that need not be here, such as `rtx3090`; always predicts.
        reserve: what to leave to a desktop, such as `600MB` or bytes.
        mode: `auto` measures where there is a usable GPU and no `gpu`, else predicts.
        batch_sizes: try these alone, in this order, and take the first that fits.
        objective: `fastest` is the smallest batch within 2 % of the best throughput, `largest` the largest.
        effective_batch: samples an optimizer step is to see; split into micro-batches that fit.
        schedule: images an epoch, which no micro-batch exceeds, and epochs; 700 and 200 by default.
        on_trial: called with each trial as it ends.

    Raises:
        NothingFits: not even the smallest batch allowed.
        NoUsableGpu: `measure` without a usable GPU.
        UnknownCard: no such card.
        NotTraceable: a prediction is wanted of a step that cannot be traced.
        UsageError: arguments that make no sense together.
        VramfitError: the job itself fails, for another reason than memory.

    """
    _check(mode, gpu, batch_sizes, effective_batch)
    schedule = schedule or Schedule()
    wanted = Wanted(
        batch_sizes=tuple(batch_sizes or ()),
        objective=objective,
        effective_batch=effective_batch,
        maximum=min(schedule.images, effective_batch or CEILING),
    )
    built = job if isinstance(job, Job) else job()
    sizes = size_in_bytes(vram), size_in_bytes(reserve)
    bench = _open_bench(job, built, schedule, sizes, gpu=gpu, mode=mode)
    wanted = _within_host_memory(wanted, built, bench)
    return Probe(bench, wanted, on_trial or (lambda _: None)).profile(built, schedule)


def levers_for(
    job: Job,
    *,
    vram: str | int | None = None,
    gpu: str | None = None,
    reserve: str | int | None = None,
    batch_size: int | None = None,
    objective: Objective = "fastest",
    schedule: Schedule | None = None,
) -> "Frontier":
    """What levers make of a job on a card: every choice predicted, and the cheapest that fits picked.

    Args:
        job: what to train; its own levers stay, but for recomputation.
        vram, gpu, reserve: as `fit` takes them; without `gpu` the card that is here, if there is one.
        batch_size: the micro-batch that must fit; None for the one that the objective prefers.
        objective: `fastest` or `largest`.
        schedule: images an epoch, which no micro-batch exceeds.

    Raises:
        NothingFits: no levers make even one sample fit.
        UnknownCard: no such card.
        NotTraceable: the step cannot run on storage-less tensors.

    """
    from vramfit.prediction.frontier import CEILING as LARGEST
    from vramfit.prediction.frontier import find_frontier
    from vramfit.prediction.levers import LeverSearch

    schedule = schedule or Schedule()
    sizes = size_in_bytes(vram), size_in_bytes(reserve)
    bench = _open_bench(job, job, schedule, sizes, gpu=gpu, mode="predict")
    if not isinstance(bench, PredictedBench):
        raise UsageError("levers are chosen by prediction; use mode 'predict'.")
    search = LeverSearch(job, bench.predictor.card, bench.budget)
    return find_frontier(search, batch_size=batch_size, objective=objective, maximum=min(schedule.images, LARGEST))


@dataclass
class PredictedBench:
    """A card that need not be here."""

    predictor: "Predictor"
    budget: Budget
    machine: Machine
    notes: list[str] = field(default_factory=list)
    source: Source = "predicted"

    def trial(self, micro_batch: int) -> Trial:
        """Predict one micro-batch."""
        return self.predictor.trial(micro_batch)

    def guess(self, maximum: int) -> int | None:
        """The largest micro-batch that is predicted to fit."""
        return self.predictor.largest_that_fits(maximum) or None


@dataclass
class Probe:
    """One probe under way on one bench."""

    bench: Bench
    wanted: Wanted
    on_trial: Callable[[Trial], None]
    trials: list[Trial] = field(default_factory=list)

    def profile(self, job: Job, schedule: Schedule) -> Profile:
        """Search, fill the table's rows, choose, and write it all down."""
        model = _empty_model(job)
        plan = self.plan(batch_norm=_has_batch_norm(model))
        bench = self.bench
        return Profile(
            vramfit_version=__version__,
            source=bench.source,
            job=job_key(job, model),
            machine=bench.machine,
            budget=bench.budget,
            schedule=schedule,
            plan=plan.model_copy(update={"levers": job.levers}),
            trials=tuple(self._latest()),
            notes=(*bench.budget.notes, *bench.notes),
        )

    def plan(self, *, batch_norm: bool = False) -> Plan:
        """The plan, after as many trials as it takes; `trials` holds them, also when nothing fits.

        Raises:
            NothingFits: not even the smallest batch allowed.

        """
        answer = self._find()
        if not self.wanted.batch_sizes:
            self._fill_rows(answer)
            self._note_if_odd(answer)
        trials = self._latest()
        objective = "largest" if self.wanted.batch_sizes else self.wanted.objective
        chosen = choose_trial(trials, objective, accumulate=self.wanted.effective_batch is not None)
        plan = make_plan(chosen, trials, objective, effective_batch=self.wanted.effective_batch, batch_norm=batch_norm)
        return self._proven(plan).model_copy(update={"objective": self.wanted.objective})

    def _find(self) -> int:
        search = self._search()
        while (size := search.next_size([Tried.of(trial) for trial in self.trials])) is not None:
            self._try(size)
        tried = [Tried.of(trial) for trial in self.trials]
        answer = search.answer(tried)
        if answer is None:
            raise self._nothing_fits()
        return answer

    def _search(self) -> Search:
        maximum = self.wanted.maximum
        if self.wanted.batch_sizes:
            return Search(candidates=self.wanted.batch_sizes, maximum=maximum)
        guess = self.bench.guess(maximum)
        # A prediction costs nothing more and is exact about itself: begin with its answer.
        budget = self.bench.budget.budget_bytes if self.bench.source == "measured" else None
        return Search(maximum=maximum, guess=guess or None, budget_bytes=budget)

    def _fill_rows(self, answer: int) -> None:
        """Try the table's other rows; a choice by speed needs them, a job that fails in one does not end the probe."""
        if self.bench.source == "measured" and self.wanted.objective == "largest":
            return
        tried = {trial.micro_batch for trial in self.trials}
        for size in table_sizes(answer, self.wanted.maximum):
            if size not in tried:
                self._try_row(size)

    def _note_if_odd(self, answer: int) -> None:
        odd = [t.micro_batch for t in self._latest() if t.micro_batch < answer and t.verdict is not Verdict.FITS]
        if odd:
            sizes = ", ".join(map(str, odd))
            self.bench.notes.append(f"Memory does not grow evenly here: batch {answer} fits and {sizes} does not.")

    def _try_row(self, size: int) -> None:
        try:
            self._try(size)
        except VramfitError as error:
            self._keep(_failed_row(size, self.bench, str(error)))

    def _try(self, size: int) -> Trial:
        return self._keep(self.bench.trial(size))

    def _keep(self, trial: Trial) -> Trial:
        self.trials.append(trial)
        self.on_trial(trial)
        return trial

    def _proven(self, plan: Plan) -> Plan:
        """The plan, once its micro-batch has been tried: dividing an effective batch evenly may give a new size."""
        if all(trial.micro_batch != plan.micro_batch for trial in self.trials):
            trial = self._try(plan.micro_batch)
            if trial.verdict is not Verdict.FITS:
                raise NothingFits(
                    f"Batch {plan.micro_batch}, which divides the effective batch, does not fit although a larger "
                    "one does; name another --effective-batch."
                )
        return plan

    def _latest(self) -> list[Trial]:
        """One trial a size, the last one made of it, by size."""
        latest = {trial.micro_batch: trial for trial in self.trials}
        return [latest[size] for size in sorted(latest)]

    def _nothing_fits(self) -> VramfitError:
        last = self.trials[-1]
        if last.verdict is Verdict.FAILED:
            return VramfitError(f"Batch {last.micro_batch} could not be tried: {last.note}.")
        sizes = ", ".join(str(size) for size in self.wanted.batch_sizes)
        which = f"None of the batches {sizes}" if self.wanted.batch_sizes else "Not even batch 1"
        needs = f"; it takes {format_size(last.device_used_bytes)}" if last.device_used_bytes else ""
        return NothingFits(
            f"{which} fits {format_size(last.budget_bytes)}{needs}; "
            "allow more memory, or make the image or the model smaller."
        )


def _open_bench(
    source: JobSource,
    built: Job,
    schedule: Schedule,
    sizes: tuple[int | None, int | None],
    *,
    gpu: str | None,
    mode: Mode,
) -> Bench:
    """The bench for a card; `sizes` are what was asked for and what is to be reserved, in bytes."""
    if gpu is not None:
        return _predicted(built, find_card(gpu), None, sizes)
    try:
        device = local_device()
    except NoUsableGpu:
        if mode == "measure":
            raise
        bench = _predicted(built, find_card(DEFAULT_CARD), None, sizes)
        bench.notes.append(f"No GPU is here and none was named: predicted for the {bench.machine.card}.")
        return bench
    budget = read_budget(device, vram=sizes[0], reserve=sizes[1])
    if mode == "predict":
        return _predicted(built, find_card(device.name), budget, sizes)
    return MeasuredBench(source, device, budget, schedule, _guesser(built, device, budget))


def _predicted(job: Job, card: Card, budget: Budget | None, sizes: tuple[int | None, int | None]) -> PredictedBench:
    from vramfit.prediction.hidden import context_bytes
    from vramfit.prediction.predict import Predictor

    budget = budget or Budget(
        total_bytes=card.memory_bytes,
        requested_bytes=sizes[0],
        reserve_bytes=sizes[1] or 0,
        context_bytes=context_bytes(card),
    )
    machine = read_machine().model_copy(update={"card": card.name})
    return PredictedBench(Predictor(job, card, budget), budget, machine)


def _guesser(job: Job, device: Device, budget: Budget) -> Callable[[int], int]:
    def guess(maximum: int) -> int:
        from vramfit.prediction.predict import Predictor

        return Predictor(job, find_card(device.name), budget).largest_that_fits(maximum)

    return guess


def _within_host_memory(wanted: Wanted, job: Job, bench: Bench) -> Wanted:
    largest = largest_in_host_memory(job, available_host_bytes())
    if bench.source == "predicted" or largest is None or largest >= wanted.maximum:
        return wanted
    bench.notes.append(f"Batches above {largest} were not tried: the host's free memory does not hold them.")
    return replace(wanted, maximum=largest)


def _empty_model(job: Job) -> nn.Module:
    with torch.device("meta"):
        return job.model()


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _failed_row(size: int, bench: Bench, note: str) -> Trial:
    return Trial(
        source=bench.source,
        micro_batch=size,
        verdict=Verdict.FAILED,
        budget_bytes=bench.budget.budget_bytes,
        note=note,
    )


def _check(mode: str, gpu: str | None, batch_sizes: Sequence[int] | None, effective_batch: int | None) -> None:
    if mode not in ("auto", "measure", "predict"):
        raise UsageError(f"mode is '{mode}'; use auto, measure or predict.")
    if mode == "measure" and gpu is not None:
        raise UsageError(f"mode 'measure' tries the card that is here, and '{gpu}' was named; drop one of the two.")
    if batch_sizes is not None and (not batch_sizes or min(batch_sizes) < 1):
        raise UsageError("batch_sizes needs at least one size, each 1 or more, such as 6,5,4.")
    if effective_batch is not None and effective_batch < 1:
        raise UsageError(f"effective_batch is {effective_batch}; use 1 or more.")
