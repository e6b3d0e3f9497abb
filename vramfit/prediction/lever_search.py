"""The cheapest levers with which a job fits a card, and what each of the others would have cost.

Free levers come first; then the planner chooses what to recompute, and a replay of the whole step judges its choice.
Sizes in bytes, times in seconds.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from vramfit.cards import Card
from vramfit.choices import ASSUMED, ValuePolicy
from vramfit.errors import NotTraceable, UsageError
from vramfit.jobs.job import Job, empty_model, has_batch_norm
from vramfit.jobs.levers.apply import free_levers, in_conflict, levers_that_may_save, levers_to_compare
from vramfit.jobs.levers.recompute import Recompute
from vramfit.jobs.levers.registry import kind_of
from vramfit.jobs.levers.text import in_order
from vramfit.jobs.recompute import find_recomputable
from vramfit.plan.recomputation import Layout, Selection, choose_parts, smallest_budget, uniform
from vramfit.prediction.predict import Predictor
from vramfit.prediction.roofline import growing_time_s, step_time_s, work_of
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.recompute import recomputing
from vramfit.prediction.transforms.recompute_costs import lay_out
from vramfit.records import Budget, Lever, Trial, Verdict

# The planner stops looking for time once within this share of the plain step's.
TOLERANCE = 0.002
COMPARED = 4  # the micro-batch at which a lever is judged by its time
_REFINEMENTS = 5
_SPARE = 0.012  # of the budget; less is not worth another look
# Of the budget, kept free: a rewritten trace is not quite what a traced recomputation takes (see `levered`).
_MARGIN = 0.006


@dataclass(frozen=True, slots=True)
class Fitted:
    """Levers with which one micro-batch was predicted, and the trial."""

    levers: tuple[Lever, ...]
    trial: Trial

    @property
    def fits(self) -> bool:
        """Whether the high end of the band is within the budget."""
        return self.trial.verdict is Verdict.FITS


class LeverSearch:
    """One job on one card, with any levers; the job is traced with its free levers alone.

    With `split` the job's batches are to be split, and levers that cannot add up gradients are left out.

    Raises:
        NotTraceable: the step cannot run on storage-less tensors.

    """

    def __init__(
        self, job: Job, card: Card, budget: Budget, policy: ValuePolicy = ASSUMED, *, split: bool = False
    ) -> None:
        kept = tuple(lever for lever in job.levers if lever.name != Recompute.name)
        self.as_it_is = Predictor(replace(job, levers=kept), card, budget, policy)
        model = empty_model(job)
        freed = freed_job(self.as_it_is.job, card, model)
        self.plain = self.as_it_is if freed is self.as_it_is.job else Predictor(freed, card, budget, policy)
        self.levers = self.plain.job.levers
        self.budget = budget
        self.card = card
        self.batch_norm = has_batch_norm(model)
        self._recomputable = find_recomputable(model)
        saving = levers_that_may_save(self.as_it_is.job, model)
        self._saving = [lever for lever in saving if not split or kind_of(lever.name).accumulates]
        self._saved: dict[int, list[Fitted]] = {}
        # What a plan may hold for each byte of the card; every replay of a plan tells it better.
        self._planned_share: float | None = None
        self._traces: dict[int, Trace] = {}
        self._layouts: dict[int, Layout] = {}
        self._fitted: dict[int, Fitted | None] = {}
        self._recomputed: dict[tuple[int, tuple[Lever, ...]], Fitted] = {}

    def without(self, micro_batch: int) -> Fitted:
        """The job with its free levers, and nothing recomputed."""
        return Fitted(self.levers, self.plain.trial(micro_batch))

    def uniform(self, micro_batch: int, setting: str) -> Fitted:
        """The job with every block, every module, or all selectively recomputed."""
        return self.recomputed(micro_batch, uniform(self.layout(micro_batch), setting))

    def recomputed(self, micro_batch: int, selection: Selection) -> Fitted:
        """The job with the selected parts recomputed."""
        levers = in_order((*self.levers, *recompute_levers(selection)))
        known = (micro_batch, levers)
        if known not in self._recomputed:
            rewritten = recomputing(self._trace(micro_batch), selection)
            self._recomputed[known] = Fitted(levers, self.plain.trial_of(rewritten))
        return self._recomputed[known]

    def saving(self, micro_batch: int) -> list[Fitted]:
        """The job with its free levers and one more that saves memory, for each that does; recomputation apart.

        A lever that the network turns out not to take, or that cannot be traced, is left out.
        """
        if micro_batch not in self._saved:
            self._saved[micro_batch] = found = []
            for lever in self._saving:
                with suppress(NotTraceable, UsageError):
                    found.append(self._with(micro_batch, lever))
        return self._saved[micro_batch]

    def together(self, micro_batch: int) -> Fitted | None:
        """What fits at the least added time with all saving levers that change no result; None where nothing does."""
        levers = self.levers
        taken = {lever for fitted in self.saving(micro_batch) for lever in fitted.levers}
        for lever in (one for one in self._saving if one in taken):
            if kind_of(lever.name).exact and not in_conflict((lever,), (*levers, Lever(name=Recompute.name))):
                levers = (*levers, lever)
        if levers == self.levers:
            return None
        job = replace(self.plain.job, levers=in_order(levers))
        return LeverSearch(job, self.card, self.budget, self.as_it_is.policy).cheapest(micro_batch)

    def _with(self, micro_batch: int, lever: Lever) -> Fitted:
        """The job with one lever more, and its free ones but those that cannot be used beside it."""
        kept = [one for one in self.levers if not in_conflict((one,), (lever,))]
        job = replace(self.plain.job, levers=in_order((*kept, lever)))
        return Fitted(job.levers, Predictor(job, self.card, self.budget, self.as_it_is.policy).trial(micro_batch))

    def cheapest(self, micro_batch: int) -> Fitted | None:
        """What fits at the least added time; None where nothing does."""
        if micro_batch not in self._fitted:
            plain = self.without(micro_batch)
            self._fitted[micro_batch] = plain if plain.fits else self._chosen(micro_batch, plain.trial)
        return self._fitted[micro_batch]

    def smallest(self, micro_batch: int) -> Fitted:
        """What takes the least memory: the plan for the least that may be live, or every module, which cuts less."""
        layout = self.layout(micro_batch)
        chosen = choose_parts(layout, smallest_budget(layout))
        planned = self.recomputed(micro_batch, chosen.selection if chosen else {})
        return min(planned, self.uniform(micro_batch, "module"), key=lambda fitted: _high(fitted.trial))

    def largest(self, maximum: int) -> int:
        """The largest micro-batch that some levers make fit, at most `maximum`; 0 if not even 1 does."""
        size = max(1, min(maximum, self._guess()))
        while size < maximum and self.cheapest(size) is not None and self.cheapest(size + 1) is not None:
            size += 1
        while size > 0 and self.cheapest(size) is None:
            size -= 1
        return size

    def layout(self, micro_batch: int) -> Layout:
        """The parts of the network, as the planner sees them."""
        if micro_batch not in self._layouts:
            seconds = partial(step_time_s, card=self.card)
            self._layouts[micro_batch] = lay_out(self._trace(micro_batch), self._recomputable, seconds)
        return self._layouts[micro_batch]

    def _trace(self, micro_batch: int) -> Trace:
        if micro_batch not in self._traces:
            self._traces = {micro_batch: self.plain.trace(micro_batch)}  # one at a time: a trace is tens of megabytes
        return self._traces[micro_batch]

    def _chosen(self, micro_batch: int, plain: Trial) -> Fitted | None:
        """The least time among plans that fit; what saves most is tried last, where no other fits."""
        fitting = [tried for tried in self._tried(micro_batch, plain) if self._spare_bytes(tried) >= 0]
        if not fitting and self._spare_bytes(self.smallest(micro_batch)) >= 0:
            fitting = [self.smallest(micro_batch)]
        return min(fitting, key=lambda fitted: fitted.trial.step_time_s or 0.0, default=None)

    def _tried(self, micro_batch: int, plain: Trial) -> Iterator[Fitted]:
        """Plan for a limit, judge by replay, and move the limit by what the replay found to spare or to be missing."""
        layout, budget = self.layout(micro_batch), self.budget.budget_bytes
        limit, exceeds = round(self._share_of(plain) * budget), 2 * budget
        for _ in range(_REFINEMENTS):
            chosen = choose_parts(layout, limit, tolerance_s=TOLERANCE * (plain.step_time_s or 0.0))
            if chosen is None:
                return
            tried = self.recomputed(micro_batch, chosen.selection)
            yield tried
            spare = self._spare_bytes(tried)
            self._planned_share = limit / _high(tried.trial)
            exceeds = exceeds if spare >= 0 else limit
            # The allocator's segments do not follow the limit evenly: a small excess needs a whole step down.
            limit += round(0.9 * spare if spare >= 0 else min(1.1 * spare, -_SPARE * budget))
            if 0 <= spare < _SPARE * budget or limit >= exceeds:
                return

    def _spare_bytes(self, tried: Fitted) -> int:
        return round((1 - _MARGIN) * self.budget.budget_bytes) - _high(tried.trial)

    def _share_of(self, plain: Trial) -> float:
        """Of each byte of the card, what a plan may hold: the rest is the context's, the allocator's and the band's."""
        return self._planned_share or (plain.peak_allocated_bytes or 0) / _high(plain)

    def _guess(self) -> int:
        """The largest micro-batch by the line through two layouts."""
        small, large = 4, 8
        first, second = (smallest_budget(self.layout(size)) for size in (small, large))
        limit = second * self.budget.budget_bytes / _high(self.smallest(large).trial)
        return int(small + (limit - first) * (large - small) / max(1, second - first))


def freed_job(
    job: Job, card: Card, model: nn.Module | None = None, seconds_of: Callable[[Job, Card], float] | None = None
) -> Job:
    """The job with every free lever, those that may be slower only where they are predicted not to be.

    The job itself where there is none. One whose step cannot be traced at the batch of comparison goes without those
    that are compared. `model` is its network, on tensors without memory, built where none is given. `seconds_of` gives
    a step's time at that batch, `COMPARED`, as far as it grows with the batch (`growing_time_s`), where many cards
    share its traces; by default a trace is made.
    """
    seconds_of = seconds_of or _seconds_of
    model = model or empty_model(job)
    free = free_levers(job, model)
    freed = replace(job, levers=in_order((*job.levers, *free))) if free else job
    for lever in levers_to_compare(job, card, model):
        with_it = replace(freed, levers=in_order((*freed.levers, lever)))
        try:
            freed = with_it if seconds_of(with_it, card) <= seconds_of(freed, card) else freed
        except NotTraceable:
            continue
    return freed


def _seconds_of(job: Job, card: Card) -> float:
    trace = trace_step(job, COMPARED, steps=1, validation=False, capability=card.compute_capability)
    return growing_time_s(work_of(trace.part("step 1")), card)


def recompute_levers(selection: Selection) -> tuple[Lever, ...]:
    """A selection as levers: one for each setting, with its modules in order."""
    names = defaultdict(list)
    for name, setting in selection.items():
        names[setting].append(name)
    return tuple(Lever(name=Recompute.name, setting=setting, modules=tuple(found)) for setting, found in names.items())


def _high(trial: Trial) -> int:
    return trial.device_used_band_bytes[1] if trial.device_used_band_bytes else trial.device_used_bytes or 0
