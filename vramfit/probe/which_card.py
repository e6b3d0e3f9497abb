"""Which card for a job: what a probe of each would plan, how long its run takes and what it costs, and three picks.

Every card is planned for by the rules of `fit`, with the levers that cost no time on it. Cards share traces and replays
(`SharedTraces`), which moves a peak by a few MiB; the picks are proven each on its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from vramfit.cards import Card
from vramfit.errors import NothingFits, UsageError
from vramfit.jobs.job import Job, empty_model, has_batch_norm
from vramfit.measure.machine import read_machine
from vramfit.prediction.lever_search import COMPARED, freed_job
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.prediction.shared_traces import SharedPredictor, SharedSteps, SharedTraces
from vramfit.probe.backend import PredictedBackend
from vramfit.probe.fit import require_splittable, tell_nobody
from vramfit.probe.probe import Probe
from vramfit.probe.request import ProbeRequest
from vramfit.records import Lever, Machine, Plan, Record, Schedule, Trial, Verdict


class CardChoice(Record):
    """One card that holds a job: its levers, the trial of its micro-batch, the time of the whole run, and its price.

    `accumulation_steps` passes make an optimizer step. `price_per_hour` is None where no price is known of the card.
    """

    card: Card
    trial: Trial
    accumulation_steps: int
    run_time_s: float
    run_time_band_s: tuple[float, float]
    levers: tuple[Lever, ...] = ()
    price_per_hour: float | None = None

    @property
    def cost(self) -> float | None:
        """Money for the run, in the prices' currency."""
        return None if self.price_per_hour is None else self.price_per_hour * self.run_time_s / 3600

    @property
    def cost_band(self) -> tuple[float, float] | None:
        """What the run may cost, by the band of its time."""
        if self.price_per_hour is None:
            return None
        low, high = self.run_time_band_s
        return self.price_per_hour * low / 3600, self.price_per_hour * high / 3600


@dataclass(frozen=True)
class WhichCard:
    """The answer: cards that hold the job, the quickest first; those that do not; and the picks by name.

    Picks are `fastest`, `cheapest` (only where prices are known) and `smallest`, the least memory and of such the
    fastest. `unused_prices` are of cards that were not asked about.
    """

    holds: tuple[CardChoice, ...]
    too_small: tuple[Card, ...]
    picks: Mapping[str, CardChoice]
    schedule: Schedule
    unused_prices: tuple[str, ...] = ()

    @property
    def levers(self) -> tuple[Lever, ...]:
        """The levers of the plan on every card that holds the job."""
        first, *others = (choice.levers for choice in self.holds)
        return tuple(lever for lever in first if all(lever in levers for levers in others))


def which_card(
    job: Job,
    request: ProbeRequest,
    cards: Sequence[Card],
    prices: Mapping[str, float] | None = None,
    on_card: Callable[[Card], None] = lambda _: None,
) -> WhichCard:
    """Weigh cards for a job.

    Args:
        job: what to train.
        request: its batch sizes, effective batch, objective, limits and schedule, and whether levers that cost no time
            on a card are added there.
        cards: those to choose from.
        prices: money an hour by the card's name; a card without one is never the cheapest.
        on_card: called before each card is weighed.

    Raises:
        NothingFits: no card holds the job.
        NotTraceable: the step cannot run on storage-less tensors.
        UsageError: the request asks for the card that is here, or for levers to be chosen; several cards share the
            job; or a lever cannot add up the gradients of an effective batch.

    """
    if request.choose_levers or request.mode == "measure":
        raise UsageError(
            "which card is predicted, without a search of levers: leave out --levers auto and --mode measure, "
            "and give them to a probe of the card that you pick."
        )
    comparison = _Comparison(job, request, prices or {})
    # The largest budget comes first: what is traced for it covers the micro-batches of all others.
    for card in sorted(cards, key=lambda card: -card.memory_bytes):
        on_card(card)
        comparison.weigh(card)
    picks = comparison.picks()
    weighed = comparison.weighed
    holds = sorted((choice for choice in weighed.values() if choice), key=_quickest)
    too_small = tuple(card for card in cards if weighed[card.name] is None)
    if not holds:
        raise NothingFits(_nothing_fits(too_small))
    unused = tuple(name for name in prices or {} if name not in weighed)
    return WhichCard(tuple(holds), too_small, picks, request.schedule, unused)


@dataclass
class _Comparison:
    """One comparison under way: each card's choice by its name, None of one that does not hold the job."""

    job: Job
    request: ProbeRequest
    prices: Mapping[str, float]
    weighed: dict[str, CardChoice | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._machine: Machine = read_machine()
        self._model = empty_model(self.job)
        self._batch_norm = has_batch_norm(self._model)
        self._steps = SharedSteps(COMPARED)
        self._shared: dict[tuple[Lever, ...], SharedTraces] = {}

    def weigh(self, card: Card) -> None:
        """Plan for a card as a probe of it would."""
        job = self.job
        if self.request.free_levers:
            job = freed_job(job, card, self._model, self._steps.seconds_of)
        require_splittable(job, self.request)
        if job.levers not in self._shared:
            self._shared[job.levers] = SharedTraces(job, self.request.policy)
        budget = card_budget(card, self.request.limits)
        self.weighed[card.name] = None
        if budget.budget_bytes:
            self._plan(SharedPredictor(self._shared[job.levers], card, budget))

    def picks(self) -> dict[str, CardChoice]:
        """The picks, each proven on its own card; one that its own replay refuses is planned for by that alone."""
        while True:
            picks = _best(list(filter(None, self.weighed.values())))
            refused = [choice for choice in picks.values() if not self._holds(choice)]
            if not refused:
                return picks
            for choice in refused:
                self._plan(self._exact(choice))

    def _plan(self, predictor: Predictor) -> None:
        card = predictor.card
        backend = PredictedBackend(predictor, predictor.budget, self._machine)
        probe = Probe(backend, self.request, tell_nobody, cards=self.job.cards)
        try:
            plan = probe.plan(batch_norm=self._batch_norm)
        except NothingFits:
            self.weighed[card.name] = None
            return
        trial = next(trial for trial in reversed(probe.trials) if trial.micro_batch == plan.micro_batch)
        self.weighed[card.name] = self._choice(predictor, plan, trial)

    def _choice(self, predictor: Predictor, plan: Plan, trial: Trial) -> CardChoice:
        rate = trial.throughput_images_per_s
        assert rate is not None
        assert trial.step_time_s is not None
        assert trial.step_time_band_s is not None
        schedule = self.request.schedule
        run_s = schedule.epochs * schedule.epoch_time_s(rate)
        low, high = (run_s * side / trial.step_time_s for side in trial.step_time_band_s)
        return CardChoice(
            card=predictor.card,
            trial=trial,
            accumulation_steps=plan.accumulation_steps,
            run_time_s=run_s,
            run_time_band_s=(low, high),
            levers=predictor.job.levers,
            price_per_hour=self.prices.get(predictor.card.name),
        )

    def _exact(self, choice: CardChoice) -> Predictor:
        """Predicts for the card of a choice by replays of its own."""
        shared, card = self._shared[choice.levers], choice.card
        budget = card_budget(card, self.request.limits)
        return Predictor(shared.job, card, budget, self.request.policy, shared.series(card))

    def _holds(self, choice: CardChoice) -> bool:
        exact = self._exact(choice)
        return exact.trial_of(exact.trace(choice.trial.micro_batch)).verdict is Verdict.FITS


def _quickest(choice: CardChoice) -> tuple[float, int]:
    """Of cards that take the same time, as where launching kernels is the limit, the one with less memory."""
    return choice.run_time_s, choice.card.sold_gib


def _best(choices: Sequence[CardChoice]) -> dict[str, CardChoice]:
    if not choices:
        return {}
    priced = [choice for choice in choices if choice.cost is not None]
    picks = {
        "fastest": min(choices, key=_quickest),
        "smallest": min(choices, key=lambda choice: (choice.card.sold_gib, choice.run_time_s)),
    }
    return picks | ({"cheapest": min(priced, key=lambda choice: choice.cost or 0.0)} if priced else {})


def _nothing_fits(cards: Sequence[Card]) -> str:
    largest = max(cards, key=lambda card: card.memory_bytes)
    return (
        f"No card of the {len(cards)} asked holds the job, the largest of them being the {largest.name}; "
        "try --levers auto on it, or make the image or the model smaller."
    )
