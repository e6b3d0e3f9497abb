"""Which card for a job: every card's best micro-batch, how long its run takes and what it costs, and three picks.

Cards share traces and replays (`SharedTraces`); the picks are proven each on its own. Micro-batches are tried on a
grid, so a card's largest may be a little larger than is said: the question is which card, and `fit` finds its batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from vramfit.cards import Card
from vramfit.errors import NothingFits, UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.levers.apply import free_levers
from vramfit.jobs.levers.text import in_order
from vramfit.plan.choose import NEAR_BEST, choose_trial
from vramfit.plan.search import CEILING
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.prediction.shared_traces import SharedPredictor, SharedTraces
from vramfit.probe.fit import require_splittable
from vramfit.probe.request import ProbeRequest
from vramfit.records import Lever, Record, Schedule, Trial, Verdict

# Micro-batches that are tried where none are named: each is a half or a third more than the one before.
_GRID = sorted({step * 2**power for power in range(1, 16) for step in (2, 3)} | {1, 2, 3})


class CardChoice(Record):
    """One card that holds a job: the trial of its micro-batch, the time of the whole run, and its price.

    `accumulation_steps` passes make an optimizer step. `price_per_hour` is None where no price is known of the card.
    """

    card: Card
    trial: Trial
    accumulation_steps: int
    run_time_s: float
    run_time_band_s: tuple[float, float]
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
    levers: tuple[Lever, ...] = ()
    unused_prices: tuple[str, ...] = ()


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
            are added; a memory order, which is faster on some cards alone, is the job's own.
        cards: those to choose from.
        prices: money an hour by the card's name; a card without one is never the cheapest.
        on_card: called before each card is weighed.

    Raises:
        NothingFits: no card holds the job.
        NotTraceable: the step cannot run on storage-less tensors.
        UsageError: the request asks for the card that is here, or for levers to be chosen; or a lever cannot add up
            the gradients of an effective batch.

    """
    if request.choose_levers or request.mode == "measure":
        raise UsageError(
            "which card is predicted, without a search of levers: leave out --levers auto and --mode measure."
        )
    if request.free_levers:
        job = replace(job, levers=in_order((*job.levers, *free_levers(job))))
    require_splittable(job, request)
    shared = SharedTraces(job, request.policy)
    weighed: dict[str, CardChoice | None] = {}
    # The largest budget comes first: what is traced for it covers the micro-batches of all others.
    for card in sorted(cards, key=lambda card: -card.memory_bytes):
        on_card(card)
        weighed[card.name] = _weigh(shared, card, request, micro_batches(request), (prices or {}).get(card.name))
    picks = _picks(shared, weighed, request)
    holds = sorted((choice for choice in weighed.values() if choice), key=_quickest)
    too_small = tuple(card for card in cards if weighed[card.name] is None)
    if not holds:
        raise NothingFits(_nothing_fits(too_small))
    unused = tuple(name for name in prices or {} if name not in weighed)
    return WhichCard(tuple(holds), too_small, picks, request.schedule, job.levers, unused)


def micro_batches(request: ProbeRequest) -> list[int]:
    """The micro-batches that are tried, ascending, or in the order in which a user named them."""
    if request.batch_sizes:
        return list(request.batch_sizes)
    if request.effective_batch:
        # Those that make the effective batch of as few and as even passes as fit.
        return sorted({-(-request.effective_batch // passes) for passes in range(1, request.effective_batch + 1)})
    most = min(request.maximum, CEILING)
    return sorted({size for size in _GRID if size < most} | {most})


def _weigh(
    shared: SharedTraces, card: Card, request: ProbeRequest, sizes: Sequence[int], price: float | None
) -> CardChoice | None:
    """What the card makes of the job at one of the sizes; None where it holds none of them."""
    budget = card_budget(card, request.limits)
    if not budget.budget_bytes:
        return None
    predictor = SharedPredictor(shared, card, budget)
    trials = _fitting(predictor, request, sizes)
    if not trials:
        return None
    accumulate = request.effective_batch is not None
    chosen = choose_trial(trials, "largest" if request.batch_sizes else request.objective, accumulate=accumulate)
    return _choice(card, chosen, request, price)


def _choice(card: Card, trial: Trial, request: ProbeRequest, price: float | None) -> CardChoice:
    rate = trial.throughput_images_per_s
    assert rate is not None
    assert trial.step_time_s is not None
    assert trial.step_time_band_s is not None
    run_s = request.schedule.epochs * request.schedule.epoch_time_s(rate)
    low, high = (run_s * side / trial.step_time_s for side in trial.step_time_band_s)
    return CardChoice(
        card=card,
        trial=trial,
        accumulation_steps=-(-(request.effective_batch or trial.micro_batch) // trial.micro_batch),
        run_time_s=run_s,
        run_time_band_s=(low, high),
        price_per_hour=price,
    )


def _fitting(predictor: SharedPredictor, request: ProbeRequest, sizes: Sequence[int]) -> list[Trial]:
    """Trials that fit: the first of those that a user named, else the largest and smaller ones that are as fast."""
    if request.batch_sizes:
        fits = (trial for trial in map(predictor.trial, sizes) if trial.verdict is Verdict.FITS)
        return [trial for trial in [next(fits, None)] if trial is not None]
    largest = _largest(predictor, sizes)
    trials: list[Trial] = []
    for size in reversed(sizes[:largest]):
        trial = predictor.trial(size)
        if trial.verdict is Verdict.FITS:
            trials.append(trial)
        if _is_slower(trial, trials):
            break
    return trials


def _largest(predictor: SharedPredictor, sizes: Sequence[int]) -> int:
    """How many of the sizes fit, where memory grows with them; by halves."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if predictor.trial(sizes[middle]).verdict is Verdict.FITS:
            low = middle + 1
        else:
            high = middle
    return low


def _is_slower(trial: Trial, trials: Sequence[Trial]) -> bool:
    best = max((one.throughput_images_per_s or 0.0 for one in trials), default=0.0)
    return (trial.throughput_images_per_s or 0.0) < (1 - NEAR_BEST) * best


def _picks(shared: SharedTraces, weighed: dict[str, CardChoice | None], request: ProbeRequest) -> dict[str, CardChoice]:
    """The picks, each proven on its own card; one that its own replay refuses is weighed anew with smaller sizes."""
    while True:
        picks = _best(list(filter(None, weighed.values())))
        refused = [choice for choice in picks.values() if not _holds(shared, choice, request)]
        if not refused:
            return picks
        for choice in refused:
            smaller = [size for size in micro_batches(request) if size < choice.trial.micro_batch]
            weighed[choice.card.name] = _weigh(shared, choice.card, request, smaller, choice.price_per_hour)


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


def _holds(shared: SharedTraces, choice: CardChoice, request: ProbeRequest) -> bool:
    exact = Predictor(shared.job, choice.card, card_budget(choice.card, request.limits), request.policy)
    trial = exact.trial_of(shared.series(choice.card).at(choice.trial.micro_batch))
    return trial.verdict is Verdict.FITS


def _nothing_fits(cards: Sequence[Card]) -> str:
    largest = max(cards, key=lambda card: card.memory_bytes)
    return (
        f"No card of the {len(cards)} asked holds the job, the largest of them being the {largest.name}; "
        "try --levers auto on it, or make the image or the model smaller."
    )
