"""Predicts trials of a job on a card that need not be here.

Sizes in bytes, times in seconds. A prediction is the middle of a 90 % band, and its verdict depends on the band.
"""

import os
from functools import partial

from vramfit.allocator_environment import with_options
from vramfit.cards import Card, find_card
from vramfit.choices import ASSUMED, ValuePolicy
from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.levers.apply import accumulates, allocator_options
from vramfit.prediction.allocator.allocator import Settings
from vramfit.prediction.overheads import NCCL_BYTES, context_bytes
from vramfit.prediction.trace_predictor import TracePredictor
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.trace_series import TraceSeries
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.accumulate import accumulating
from vramfit.records import Budget, Trial
from vramfit.units import NO_LIMITS, MemoryLimits


def predict(
    job: Job,
    *,
    micro_batch: int,
    gpu: str,
    vram: str | int | None = None,
    reserve: str | int | None = None,
    strict: bool = False,
    real_values: bool = False,
) -> Trial:
    """Predict one trial of a job on a card that need not be here.

    Args:
        job: what to train.
        micro_batch: samples of one forward and backward pass.
        gpu: the card's name, such as `rtx3090`.
        vram: the most the job may use at device level, such as `8GB` or bytes; None for what the card has.
        reserve: what a desktop or another process keeps of the card, such as `600MB` or bytes.
        strict: refuse a step that reads values which only a card has, in place of assuming them.
        real_values: compute such values on the CPU beside the trace; right for small models, slow for others.

    Known limitations:
        It knows the cards of `vramfit.cards`, and of what libraries allocate beside the step (context, workspaces of
        cuDNN and cuBLAS) a fitted share, whose error the trial's bands show. Of several cards that share a job
        (`Job.cards`), the time of communication is not in it; what torch.compile compiles is predicted uncompiled.
        Values that only a card has are taken to be those of a healthy run at its largest, and the trial's `assumptions`
        list them. Samples are as large as those of the job's `batch`. What a step does only from time to time, such as
        a penalty at every 16th, or from a later epoch on, is not in it.

    >>> from torch import nn, optim, randn
    >>> job = vramfit.Job(
    ...     model=lambda: nn.Linear(4096, 4096),
    ...     batch=lambda n: (randn(n, 4096), randn(n, 4096)),
    ...     loss=nn.functional.mse_loss,
    ...     optimizer=lambda parameters: optim.SGD(parameters, lr=0.1),
    ...     amp=None,
    ... )
    >>> trial = vramfit.predict(job, micro_batch=64, gpu="rtx3060", vram="1GB")
    >>> trial.source, str(trial.verdict)
    ('predicted', 'fits')
    >>> str(vramfit.predict(job, micro_batch=64, gpu="rtx3060", vram="200MB").verdict)
    'over_budget'

    Raises:
        UnknownCard: no such card.
        UsageError: `vram` or `reserve` is not a size, or `micro_batch` is less than 1.
        NotTraceable: the step cannot run on storage-less tensors.

    """
    if micro_batch < 1:
        raise UsageError(f"micro_batch is {micro_batch}; use 1 or more.")
    card = find_card(gpu)
    limits = MemoryLimits.parse(vram=vram, reserve=reserve)
    policy = ValuePolicy(strict=strict, real=real_values)
    trial = Predictor(job, card, card_budget(card, limits), policy).trial(micro_batch)
    return trial.model_copy(update={"note": allocator_note(job) or trial.note})


def card_budget(card: Card, limits: MemoryLimits = NO_LIMITS) -> Budget:
    """What a job may use on a card that is not here."""
    return Budget(
        total_bytes=card.memory_bytes,
        requested_bytes=limits.vram_bytes,
        reserve_bytes=limits.reserve_bytes or 0,
        context_bytes=context_bytes(card),
    )


def allocator_settings(job: Job) -> tuple[Settings, str]:
    """How the allocator is set when a job runs with its levers in this environment, and what is not predicted of it.

    Raises:
        UsageError: an option that PyTorch does not take.

    """
    return Settings.parse_known(with_options(os.environ, allocator_options(job.levers)))


def allocator_note(job: Job) -> str:
    """What is to be said of an allocator that is set otherwise than is predicted; empty for nothing."""
    _, unknown = allocator_settings(job)
    return f"the allocator's option {unknown} is not predicted: figures are those without it" if unknown else ""


class Predictor(TracePredictor):
    """Predicts trials of one job on one card; from `traces` that were made for others like it, where they are given."""

    def __init__(
        self, job: Job, card: Card, budget: Budget, policy: ValuePolicy = ASSUMED, traces: TraceSeries | None = None
    ) -> None:
        self.job = job
        self.policy = policy
        super().__init__(
            traces or TraceSeries(partial(trace_step, job, capability=card.compute_capability, policy=policy)),
            card,
            budget,
            cudnn_benchmark=job.cudnn_benchmark,
            settings=allocator_settings(job)[0],
            beside_bytes=NCCL_BYTES[1] if job.cards > 1 else 0,
        )

    def _rehearsed(self, trace: Trace) -> Trace:
        splits = self.job.step is None and accumulates(self.job.levers)
        return accumulating(trace) if splits else trace
