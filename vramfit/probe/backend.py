"""Where trials are made: on the card that is here, or on one that need not be."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from vramfit.cards import Card, card_notes, find_card
from vramfit.errors import NotTraceable, NoUsableGpu, UnknownCard, UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.levers.text import with_levers
from vramfit.measure.backend import MeasuredBackend
from vramfit.measure.budget import read_budget
from vramfit.measure.device import Device, local_device
from vramfit.measure.machine import read_machine
from vramfit.measure.worker import JobSource
from vramfit.probe.request import ProbeRequest
from vramfit.records import Budget, Lever, Machine, Source, Trial, Verdict
from vramfit.units import format_size

if TYPE_CHECKING:
    from vramfit.prediction.predict import Predictor

# Stands in where there is no card and none is named: the card of the guide that this project replaces.
DEFAULT_CARD = "rtx3070ti"


class Backend(Protocol):
    """Where trials are made: a card that is here, or one that is predicted."""

    source: Source
    budget: Budget
    machine: Machine
    notes: list[str]

    @property
    def can_spill(self) -> bool:
        """Whether a batch that is too large may grow slow instead of failing."""

    def trial(self, micro_batch: int, levers: tuple[Lever, ...] = ()) -> Trial:
        """Try one micro-batch, with more levers than the job's own, or others in their place."""

    def reviewed(self, trials: list[Trial]) -> list[Trial]:
        """The trials, each judged in the light of all of them."""

    def guess(self, maximum: int) -> int | None:
        """The micro-batch that is believed to be the largest that fits; None where nothing is known."""


@dataclass
class PredictedBackend:
    """A card that need not be here; `known` are trials of this job that were predicted before."""

    predictor: "Predictor"
    budget: Budget
    machine: Machine
    notes: list[str] = field(default_factory=list)
    known: dict[int, Trial] = field(default_factory=dict)
    source: Source = "predicted"
    can_spill: bool = False

    def trial(self, micro_batch: int, levers: tuple[Lever, ...] = ()) -> Trial:
        """Predict one micro-batch."""
        if levers:
            return self._levered(levers).trial(micro_batch)
        try:
            return self.known.get(micro_batch) or self.predictor.trial(micro_batch)
        except NotTraceable as error:
            if not self.predictor.is_traceable:
                raise
            return self._refused(micro_batch, str(error))

    def _refused(self, micro_batch: int, note: str) -> Trial:
        """The row of a size that a job does not take, though it takes others: an odd one, or one too small."""
        return Trial(
            source="predicted",
            micro_batch=micro_batch,
            verdict=Verdict.FAILED,
            budget_bytes=self.budget.budget_bytes,
            note=note,
        )

    def _levered(self, levers: tuple[Lever, ...]) -> "Predictor":
        job = self.predictor.job
        job = replace(job, levers=with_levers(job.levers, levers))
        return type(self.predictor)(job, self.predictor.card, self.budget, self.predictor.policy)

    def reviewed(self, trials: list[Trial]) -> list[Trial]:
        """The trials as they are: a prediction knows of no others."""
        return trials

    def guess(self, maximum: int) -> int | None:
        """The largest micro-batch that is predicted to fit."""
        return self.predictor.largest_that_fits(maximum) or None

    def holds(self, micro_batch: int) -> bool:
        """Whether a trace of that very micro-batch says what the trial says that was drawn through others."""
        return micro_batch in self.known or self.predictor.holds(micro_batch)


def open_backend(source: JobSource, built: Job, request: ProbeRequest) -> Backend:
    """Where the trials of a request are made.

    Args:
        source: what a child process builds the job from.
        built: the job itself.
        request: its `gpu` and `mode` choose the backend, its limits the budget.

    Raises:
        NoUsableGpu: `measure` without a usable GPU.
        UnknownCard: no such card.
        UsageError: nothing of the card is left.

    """
    device = card_here(request)
    if device is None or request.mode == "predict":
        return open_predicted(built, request)
    budget = read_budget(device, request.limits)
    guesser, notes = _guesser(built, device, budget, request), _card_notes(built, device.name, device.total_bytes)
    return MeasuredBackend(source, device, budget, request.schedule, guesser, notes=notes)


def card_here(request: ProbeRequest) -> Device | None:
    """The card of this machine, where the request is about it; None where another is named, or there is none.

    Raises:
        NoUsableGpu: there is none, and `mode` is `measure`.

    """
    if request.gpu is not None:
        return None
    try:
        return local_device()
    except NoUsableGpu:
        if request.mode == "measure":
            raise
        return None


def predicted_card(request: ProbeRequest) -> Card:
    """The card that a request is predicted for: the one that is named, the one that is here, or the default one.

    Raises:
        NoUsableGpu: as `card_here`.
        UnknownCard: no such card.

    """
    device = card_here(request)
    if device is not None:
        return find_card(device.name, total_bytes=device.total_bytes)
    return find_card(request.gpu or DEFAULT_CARD)


def open_predicted(job: Job, request: ProbeRequest) -> PredictedBackend:
    """Predictions for the card that is named, for what is free of the one that is here, or for the default card.

    Raises:
        NoUsableGpu: as `card_here`.
        UnknownCard: no such card.
        UsageError: nothing of the card is left.

    """
    device, card = card_here(request), predicted_card(request)
    if device is not None:
        return _predicted(job, card, read_budget(device, request.limits), request)
    backend = _on_card(job, card, request)
    if request.gpu is None:
        backend.notes.append(f"No GPU is here and none was named: predicted for the {backend.machine.card}.")
    return backend


def _card_notes(job: Job, card: str, total_bytes: int | None = None) -> list[str]:
    """What to know of a card and of the job's precision on it; of one that the table lacks nothing is known."""
    from vramfit.jobs.levers.apply import settled

    try:
        return card_notes(find_card(card, total_bytes=total_bytes), settled(job).amp)
    except UnknownCard:
        return []


def cards_notes(job: Job) -> list[str]:
    """What to know of a job that several cards share; nothing of one that has its card for itself."""
    from vramfit.jobs.levers.apply import communicating, shards
    from vramfit.prediction.overheads import NCCL_BYTES

    if job.cards == 1:
        return []
    held = "whole weights and buckets of gradients" if communicating(job.levers) else "whole weights"
    if shards(job.levers):
        held = "its part of weights, gradients and moments, and what FSDP2 gathers"
    low, high = map(format_size, NCCL_BYTES)
    return [
        f"What each of {job.cards} cards takes: {held}, and a batch of its own. NCCL takes {low} to {high} beside it, "
        "of which the most is in the high end of a predicted range. Times are those of one card: communication is not "
        f"in a step, and {job.cards} cards share an epoch."
    ]


def _on_card(job: Job, card: Card, request: ProbeRequest) -> PredictedBackend:
    from vramfit.prediction.predict import card_budget

    budget = card_budget(card, request.limits)
    if budget.budget_bytes == 0:
        raise UsageError(
            f"Nothing of the {card.name} is left: it has {format_size(budget.total_bytes)}, and "
            f"{format_size(budget.reserve_bytes)} are reserved; reserve less."
        )
    return _predicted(job, card, budget, request)


def _predicted(job: Job, card: Card, budget: Budget, request: ProbeRequest) -> PredictedBackend:
    from vramfit.prediction.predict import Predictor, allocator_note

    machine, notes = read_machine().model_copy(update={"card": card.name}), _card_notes(job, card.name)
    notes += cards_notes(job)
    if note := allocator_note(job):
        # A profile is not to claim a setting that its figures leave out.
        machine = machine.model_copy(update={"allocator_settings": ""})
        notes.append(f"{note[0].upper()}{note[1:]}.")
    elif machine.allocator_settings:
        notes.append(f"Predicted with the allocator as the environment sets it: {machine.allocator_settings}.")
    return PredictedBackend(Predictor(job, card, budget, request.policy), budget, machine, notes=notes)


def _guesser(job: Job, device: Device, budget: Budget, request: ProbeRequest) -> Callable[[int], int]:
    def guess(maximum: int) -> int:
        from vramfit.prediction.predict import Predictor

        predictor = Predictor(job, find_card(device.name, total_bytes=device.total_bytes), budget, request.policy)
        return min(maximum, _past_the_sure(predictor, predictor.largest_that_fits(maximum), budget.budget_bytes))

    return guess


def _past_the_sure(predictor: "Predictor", sure: int, budget_bytes: int) -> int:
    """Where the middle of the prediction meets the budget, some way past the size that is sure to fit.

    A search that starts below its guess wants the likeliest size, not the safest one.
    """
    used = predictor.trial(sure).device_used_bytes if sure > 1 else None
    less = predictor.trial(sure // 2).device_used_bytes if sure > 1 else None
    if used is None or less is None or used <= less:
        return sure
    each = (used - less) / (sure - sure // 2)
    return sure + max(0, int((budget_bytes - used) / each))
