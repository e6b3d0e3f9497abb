"""The probe: predict where there is no card, measure where there is one, search, choose, and keep it as a profile."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.measure.host import available_host_bytes, largest_in_host_memory, usable_cores
from vramfit.measure.worker import JobSource
from vramfit.plan.search import CEILING
from vramfit.plan.workers import most_workers
from vramfit.probe.backend import DEFAULT_CARD, Backend, Mode, PredictedBackend, open_backend
from vramfit.probe.probe import Probe, Wanted
from vramfit.records import Loading, Objective, Profile, Schedule, Trial
from vramfit.units import size_in_bytes

if TYPE_CHECKING:
    from vramfit.prediction.frontier import Frontier, FrontierRow

__all__ = ["DEFAULT_CARD", "Probe", "Wanted", "fit", "fit_choice", "levers_for", "with_loading"]


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
        gpu: a card that need not be here, such as `rtx3090`; always predicts. Without it the card that is here or,
            where there is none, the RTX 3070 Ti by prediction: the profile's `source` and `notes` say so.
        reserve: what to leave to a desktop, such as `600MB` or bytes.
        mode: `auto` measures where there is a usable GPU and no `gpu`, else predicts.
        batch_sizes: try these alone, in this order, and take the first that fits.
        objective: `fastest` is the smallest batch within 2 % of the best throughput, `largest` the largest.
        effective_batch: samples an optimizer step is to see; split into micro-batches that fit.
        schedule: images an epoch, beyond which no micro-batch is searched for, and epochs; 700 and 200 by default.
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
    built = job if isinstance(job, Job) else job()
    schedule = with_loading(schedule or Schedule(), built)
    wanted = Wanted(
        batch_sizes=tuple(batch_sizes or ()),
        objective=objective,
        effective_batch=effective_batch,
        maximum=min(schedule.images, effective_batch or CEILING),
    )
    sizes = size_in_bytes(vram), size_in_bytes(reserve)
    backend = open_backend(job, built, schedule, sizes, gpu=gpu, mode=mode)
    wanted = _within_host_memory(wanted, built, backend)
    return Probe(backend, wanted, on_trial or _tell_nobody).profile(built, schedule)


def with_loading(schedule: Schedule, job: Job) -> Schedule:
    """The schedule with the rate at which this machine would load the job's samples, where the job can tell."""
    if schedule.loading is not None or job.loading_rate is None:
        return schedule
    loading = Loading(worker_images_per_s=job.loading_rate(), workers=most_workers(usable_cores()))
    return schedule.model_copy(update={"loading": loading})


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
        schedule: images an epoch, beyond which no micro-batch is searched for.

    Raises:
        NothingFits: no levers make even one sample fit.
        UnknownCard: no such card.
        NotTraceable: the step cannot run on storage-less tensors.

    """
    from vramfit.prediction.frontier import CEILING as LARGEST
    from vramfit.prediction.frontier import find_frontier
    from vramfit.prediction.lever_search import LeverSearch

    schedule = schedule or Schedule()
    sizes = size_in_bytes(vram), size_in_bytes(reserve)
    backend = open_backend(job, job, schedule, sizes, gpu=gpu, mode="predict")
    if not isinstance(backend, PredictedBackend):
        raise UsageError("levers are chosen by prediction; use mode 'predict'.")
    search = LeverSearch(job, backend.predictor.card, backend.budget)
    return find_frontier(search, batch_size=batch_size, objective=objective, maximum=min(schedule.images, LARGEST))


def fit_choice(
    job: Job,
    choice: "FrontierRow",
    *,
    vram: str | int | None = None,
    gpu: str | None = None,
    reserve: str | int | None = None,
    mode: Mode = "auto",
    objective: Objective = "fastest",
    effective_batch: int | None = None,
    schedule: Schedule | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Profile:
    """The profile of a frontier's pick: proved where the card is here, else as it was predicted.

    Args:
        job: the job that `levers_for` was asked about.
        choice: the row that it picked.
        vram, gpu, reserve, mode, objective, schedule, on_trial: as `fit` takes them.
        effective_batch: samples an optimizer step is to see.

    Raises:
        NothingFits: the card says otherwise than the prediction.

    """
    asked = job.levers
    job = replace(job, levers=choice.levers)
    schedule = with_loading(schedule or Schedule(), job)
    backend = open_backend(job, job, schedule, (size_in_bytes(vram), size_in_bytes(reserve)), gpu=gpu, mode=mode)
    if isinstance(backend, PredictedBackend):
        backend.known[choice.trial.micro_batch] = choice.trial
    wanted = Wanted(
        batch_sizes=(choice.trial.micro_batch,),
        objective=objective,
        effective_batch=effective_batch,
        maximum=min(schedule.images, effective_batch or CEILING),
        order_is_predicted=not any(lever.name == "channels_last" for lever in asked),
    )
    profile = Probe(backend, wanted, on_trial or _tell_nobody).profile(job, schedule)
    plan = profile.plan.model_copy(update={"reason": f"batch {profile.plan.micro_batch}: {choice.reason}."})
    return profile.model_copy(update={"plan": plan})


def _tell_nobody(_: Trial) -> None:
    """For those who do not ask to be told of trials."""


def _within_host_memory(wanted: Wanted, job: Job, backend: Backend) -> Wanted:
    largest = largest_in_host_memory(job, available_host_bytes())
    if backend.source == "predicted" or largest is None or largest >= wanted.maximum:
        return wanted
    backend.notes.append(f"Batches above {largest} were not tried: the host's free memory does not hold them.")
    return replace(wanted, maximum=largest)


def _check(mode: str, gpu: str | None, batch_sizes: Sequence[int] | None, effective_batch: int | None) -> None:
    if mode not in ("auto", "measure", "predict"):
        raise UsageError(f"mode is '{mode}'; use auto, measure or predict.")
    if mode == "measure" and gpu is not None:
        raise UsageError(f"mode 'measure' tries the card that is here, and '{gpu}' was named; drop one of the two.")
    if batch_sizes is not None and (not batch_sizes or min(batch_sizes) < 1):
        raise UsageError("batch_sizes needs at least one size, each 1 or more, such as 6,5,4.")
    if effective_batch is not None and effective_batch < 1:
        raise UsageError(f"effective_batch is {effective_batch}; use 1 or more.")
    if batch_sizes and effective_batch and min(batch_sizes) > effective_batch:
        raise UsageError(
            f"effective_batch is {effective_batch}, and the smallest micro-batch to try is {min(batch_sizes)}; "
            f"name one of {effective_batch} or less."
        )
