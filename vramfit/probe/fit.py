"""`fit`: one job on one card, from the request to the profile."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vramfit.choices import Mode, Objective
from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.levers.apply import accumulates
from vramfit.measure.host import available_host_bytes, largest_in_host_memory, usable_cores
from vramfit.measure.worker import JobSource
from vramfit.plan.workers import most_workers
from vramfit.probe.backend import Backend, PredictedBackend, card_here, open_backend, open_predicted, predicted_card
from vramfit.probe.probe import OnTrial, Probe
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.records import Loading, Profile, Schedule, Trial

if TYPE_CHECKING:
    from vramfit.prediction.frontier import Frontier, FrontierRow


def fit(
    job: JobSource,
    *,
    vram: str | int | None = None,
    gpu: str | None = None,
    reserve: str | int | None = None,
    mode: Mode = ProbeRequest.mode,
    batch_sizes: Sequence[int] | None = None,
    objective: Objective = ProbeRequest.objective,
    effective_batch: int | None = None,
    schedule: Schedule | None = None,
    strict: bool = ProbeRequest.strict,
    real_values: bool = ProbeRequest.real_values,
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
        schedule: images an epoch, beyond which no micro-batch is searched for, and epochs. Without it tables have no
            times of epochs, and the search ends at 4,096 samples.
        strict: refuse to predict a step that reads values which only a card has, in place of assuming them.
        real_values: compute such values on the CPU as the step is traced; right for small models, slow for others.
        on_trial: called with each trial as it ends.

    Known limitations:
        It probes one card: where a machine has several, the first. A measured probe runs the job in a child process,
        so the job must pickle (no lambdas) or come from an importable factory, and a script calls it under
        `if __name__ == "__main__":`, for the child imports the script. Samples are the job's own `batch`: larger ones
        in the data set are not tried. A prediction has the limitations of `predict`.

    >>> from torch import nn, optim, randn
    >>> job = vramfit.Job(
    ...     model=lambda: nn.Sequential(nn.Linear(512, 4096), nn.ReLU(), nn.Linear(4096, 10)),
    ...     batch=lambda n: (randn(n, 512), randn(n, 10)),
    ...     loss=nn.functional.mse_loss,
    ...     optimizer=lambda parameters: optim.AdamW(parameters, lr=1e-3),
    ...     amp=None,
    ... )
    >>> profile = vramfit.fit(job, gpu="rtx3060", vram="6GB", objective="largest", effective_batch=96)
    >>> profile.source, profile.plan.micro_batch, profile.plan.accumulation_steps
    ('predicted', 96, 1)
    >>> profile.plan.reason
    'batch 96 fits, as requested.'

    Raises:
        NothingFits: not even the smallest batch allowed.
        NoUsableGpu: `measure` without a usable GPU.
        UnknownCard: no such card.
        NotTraceable: a prediction is wanted of a step that cannot be traced.
        UsageError: arguments that make no sense together.
        VramfitError: the job itself fails, for another reason than memory.

    """
    request = ProbeRequest(
        limits=MemoryLimits.parse(vram=vram, reserve=reserve),
        gpu=gpu,
        mode=mode,
        batch_sizes=None if batch_sizes is None else tuple(batch_sizes),
        objective=objective,
        effective_batch=effective_batch,
        schedule=schedule or Schedule(assumed=True),
        strict=strict,
        real_values=real_values,
    )
    return run_probe(job, request, on_trial or tell_nobody)


def tell_nobody(_: Trial) -> None:
    """For those who do not ask to be told of trials."""


def run_probe(
    job: JobSource,
    request: ProbeRequest,
    on_trial: OnTrial = tell_nobody,
    *,
    predicted_levers: frozenset[str] = frozenset(),
) -> Profile:
    """The profile that answers a request; raises as `fit` does.

    `predicted_levers` are the names of those that a prediction, and no user, gave to the job.
    """
    built = job if isinstance(job, Job) else job()
    request = on_cards(request, built.cards)
    if request.choose_levers:
        return fit_choice(built, levers_for(built, request).choice, request, on_trial)
    if request.free_levers:
        job = built = with_free_levers(built, request)
    require_splittable(built, request)
    request = with_loading(request, built)
    backend = open_backend(job, built, request)
    limit = _host_limit(built, request, backend)
    probe = Probe(backend, request, on_trial, host_limit=limit, predicted_levers=predicted_levers, cards=built.cards)
    return probe.profile(built)


def on_cards(request: ProbeRequest, cards: int) -> ProbeRequest:
    """The request as it is answered for a job that several cards share: by a prediction.

    Raises:
        UsageError: it asks to measure, or for levers to be chosen.

    """
    if cards == 1:
        return request
    if request.mode == "measure":
        raise UsageError(f"mode 'measure' tries one card, and {cards} share the job (--cards); use auto or predict.")
    if request.choose_levers:
        raise UsageError(
            f"--levers auto is of one card, and {cards} share the job (--cards); name the levers in its place, such as "
            "--levers fsdp,recompute=block."
        )
    return replace(request, mode="predict")


def with_free_levers(job: Job, request: ProbeRequest) -> Job:
    """The job with the levers that cost it no time, where the request asks for them.

    A memory order that may be slower is predicted for a card that is not here; on one that is, a trial decides.

    Raises:
        NoUsableGpu, UnknownCard: as `open_backend`.

    """
    from vramfit.jobs.levers.apply import free_levers
    from vramfit.jobs.levers.text import in_order

    if not request.free_levers:
        return job
    if request.mode == "predict" or card_here(request) is None:
        from vramfit.prediction.lever_search import freed_job

        return freed_job(job, predicted_card(request))
    return replace(job, levers=in_order((*job.levers, *free_levers(job))))


def require_splittable(job: Job, request: ProbeRequest) -> None:
    """Refuse an effective batch of a job whose levers cannot add up gradients.

    Raises:
        UsageError: names the levers.

    """
    if request.effective_batch is not None and not accumulates(job.levers):
        names = ", ".join(lever.name for lever in job.levers if not accumulates((lever,)))
        raise UsageError(
            f"{names} cannot add up gradients, so an effective batch of {request.effective_batch} cannot be split; "
            "leave out the lever or --effective-batch."
        )


def with_loading(request: ProbeRequest, job: Job) -> ProbeRequest:
    """The request with the rate at which this machine would load the job's samples, where the job can tell."""
    schedule = request.schedule
    if schedule.loading is not None or job.loading_rate is None:
        return request
    loading = Loading(worker_images_per_s=job.loading_rate(), workers=most_workers(usable_cores()))
    return replace(request, schedule=schedule.model_copy(update={"loading": loading}))


def levers_for(job: Job, request: ProbeRequest) -> "Frontier":
    """What levers make of a job on a card: every choice predicted, and the cheapest that fits picked.

    Args:
        job: what to train; its own levers stay, but for recomputation.
        request: the first of its `batch_sizes` must fit; without any, the one that its objective prefers.

    Raises:
        NothingFits: no levers make even one sample fit.
        UnknownCard: no such card.
        NotTraceable: the step cannot run on storage-less tensors.
        UsageError: several cards share the job.

    """
    from vramfit.prediction.frontier import CEILING, find_frontier
    from vramfit.prediction.lever_search import LeverSearch

    request = on_cards(request, job.cards)
    backend = open_predicted(job, request)
    return find_frontier(
        LeverSearch(
            job, backend.predictor.card, backend.budget, request.policy, split=request.effective_batch is not None
        ),
        batch_size=request.batch_sizes[0] if request.batch_sizes else None,
        objective=request.objective,
        maximum=min(request.maximum, CEILING),
    )


def fit_choice(job: Job, choice: "FrontierRow", request: ProbeRequest, on_trial: OnTrial = tell_nobody) -> Profile:
    """The profile of a frontier's pick: proved where the card is here, else as it was predicted.

    Args:
        job: the job that `levers_for` was asked about.
        choice: the row that it picked.
        request: what it was asked.
        on_trial: called with each trial as it ends.

    Raises:
        NothingFits: the card says otherwise than the prediction.

    """
    chosen = replace(job, levers=choice.levers)
    request = with_loading(_for_choice(request, choice), chosen)
    backend = open_backend(chosen, chosen, request)
    if isinstance(backend, PredictedBackend):
        backend.known[choice.trial.micro_batch] = choice.trial
    predicted = {lever.name for lever in choice.levers} - {lever.name for lever in job.levers}
    profile = Probe(backend, request, on_trial, predicted_levers=frozenset(predicted)).profile(chosen)
    plan = profile.plan.model_copy(update={"reason": f"batch {profile.plan.micro_batch}: {choice.reason}."})
    return profile.model_copy(update={"plan": plan})


def _for_choice(request: ProbeRequest, choice: "FrontierRow") -> ProbeRequest:
    """The request for the picked micro-batch alone; a batch that was divided becomes the effective one."""
    divided = request.batch_sizes[0] if request.batch_sizes and choice.accumulation_steps > 1 else None
    return replace(
        request,
        batch_sizes=(choice.trial.micro_batch,),
        effective_batch=request.effective_batch or divided,
    )


def _host_limit(job: Job, request: ProbeRequest, backend: Backend) -> int | None:
    """The largest micro-batch whose samples the host's memory holds, where that is a limit; None where it is none."""
    largest = largest_in_host_memory(job, available_host_bytes())
    if backend.source == "predicted" or largest is None or largest >= request.maximum:
        return None
    backend.notes.append(f"Batches above {largest} were not tried: the host's free memory does not hold them.")
    return largest
