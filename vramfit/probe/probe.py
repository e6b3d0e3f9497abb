"""One probe under way: search, fill the table, choose, and keep it as a profile."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vramfit._version import __version__
from vramfit.errors import NothingFits, VramfitError
from vramfit.jobs.job import Job, empty_model, has_batch_norm, job_key
from vramfit.jobs.levers.apply import levers_to_measure
from vramfit.jobs.levers.kind import OFF
from vramfit.jobs.levers.text import in_order
from vramfit.plan.choose import choose_lever, choose_trial, excess_of, make_plan
from vramfit.plan.search import CEILING, Search, Tried, table_sizes
from vramfit.probe.backend import Backend, PredictedBackend
from vramfit.probe.request import ProbeRequest
from vramfit.records import Lever, Plan, Profile, Trial, Verdict
from vramfit.units import format_size

OnTrial = Callable[[Trial], None]


@dataclass
class Probe:
    """One probe under way on one backend.

    `host_limit` is the largest micro-batch whose samples the host's memory holds, None where that limits nothing;
    `predicted_levers` are the names of those that a prediction, and no user, gave to the job.
    """

    backend: Backend
    request: ProbeRequest
    on_trial: OnTrial
    host_limit: int | None = None
    predicted_levers: frozenset[str] = frozenset()
    cards: int = 1
    trials: list[Trial] = field(default_factory=list)

    @property
    def maximum(self) -> int:
        """The largest micro-batch that is tried."""
        most = min(-(-self.request.maximum // self.cards), CEILING)
        return most if self.host_limit is None else min(most, self.host_limit)

    def profile(self, job: Job) -> Profile:
        """Search, fill the table's rows, choose, and write it all down."""
        model = empty_model(job)
        plan = self.plan(batch_norm=has_batch_norm(model)).model_copy(update={"levers": job.levers})
        if self.backend.source == "measured":
            for lever in levers_to_measure(job, model, predicted=self.predicted_levers):
                plan = self._with_faster(plan, lever)
        job, backend = replace(job, levers=plan.levers), self.backend
        return Profile(
            vramfit_version=__version__,
            source=backend.source,
            job=job_key(job, model),
            machine=backend.machine,
            budget=backend.budget,
            schedule=self.request.schedule,
            plan=plan,
            trials=tuple(self._latest()),
            notes=(*backend.budget.notes, *backend.notes),
        )

    def plan(self, *, batch_norm: bool = False) -> Plan:
        """The plan, after as many trials as it takes; `trials` holds them, also when nothing fits.

        Raises:
            NothingFits: not even the smallest batch allowed.

        """
        plan = self._planned(batch_norm=batch_norm)
        while isinstance(self.backend, PredictedBackend) and not self.backend.holds(plan.micro_batch):
            self.trials.clear()
            plan = self._planned(batch_norm=batch_norm)
        return plan

    def largest(self) -> Trial:
        """The trial of the largest batch that fits, without a table's other rows.

        Raises:
            NothingFits: not even the smallest batch allowed.

        """
        answer = self._find()
        while isinstance(self.backend, PredictedBackend) and not self.backend.holds(answer):
            self.trials.clear()
            answer = self._find()
        return next(trial for trial in self._latest() if trial.micro_batch == answer)

    def _planned(self, *, batch_norm: bool) -> Plan:
        answer = self._find()
        if not self.request.batch_sizes:
            self._fill_rows(answer)
            self._note_if_odd(answer)
        trials = self._latest()
        objective = "largest" if self.request.batch_sizes else self.request.objective
        # Of a user's list the first that fits, and not what was tried beside it to see it spill.
        asked = [trial for trial in trials if not self.request.batch_sizes or trial.micro_batch == answer]
        accumulate = self.request.effective_batch is not None
        chosen = choose_trial(asked, objective, accumulate=accumulate, batch_norm=batch_norm)
        plan = make_plan(
            chosen,
            trials,
            objective,
            effective_batch=self.request.effective_batch,
            world_size=self.cards,
            batch_norm=batch_norm,
            most=self._why_no_more(),
        )
        plan = self._proven(plan)
        notes = (*plan.notes, *self._end_of_table(plan))
        return plan.model_copy(update={"objective": self.request.objective, "notes": notes})

    def _end_of_table(self, plan: Plan) -> list[str]:
        """Why there is no larger row than the last, where that one fits and the plan's own reason does not say so."""
        why = self._why_no_more()
        last = max(self._latest(), key=lambda trial: trial.micro_batch)
        if why is None or not last.micro_batch == self.maximum > plan.micro_batch or last.verdict is not Verdict.FITS:
            return []
        return [f"The table ends at batch {self.maximum}: {why}."]

    def _why_no_more(self) -> str | None:
        """What keeps a search from larger micro-batches than `maximum`; None where the user named the sizes."""
        request = self.request
        if request.batch_sizes or self.maximum * self.cards == request.effective_batch:
            return None
        if self.maximum * self.cards == request.schedule.images and not request.schedule.assumed:
            return f"it is the whole data set, an epoch has {request.schedule.images} images"
        if self.maximum == self.host_limit:
            return "the host's free memory holds no larger one"
        return "larger ones were not tried; --images says how many samples an epoch has"

    def _with_faster(self, plan: Plan, other: Lever) -> Plan:
        """The plan with a lever, or without it, whichever is measured to be faster; `other` is not how the plan is."""
        planned = next(trial for trial in self._latest() if trial.micro_batch == plan.micro_batch)
        try:
            tried = self.backend.trial(plan.micro_batch, (other,))
        except VramfitError as error:
            note = f"{other.name}={other.setting} could not be tried: {error}"
            return plan.model_copy(update={"notes": (*plan.notes, note)})
        is_on = other.setting != OFF
        use, note = choose_lever(other.name, *((planned, tried) if is_on else (tried, planned)))
        if use == is_on:
            self._keep(tried)
        rest = [lever for lever in plan.levers if lever.name != other.name]
        used = [other] if is_on else [lever for lever in plan.levers if lever.name == other.name]
        levers = in_order([*rest, *used] if use else rest)
        return plan.model_copy(update={"levers": levers, "notes": (*plan.notes, note)})

    def _find(self) -> int:
        search = self._search()
        while (size := search.next_size([Tried.of(trial) for trial in self.backend.reviewed(self.trials)])) is not None:
            self._try(size)
        tried = [Tried.of(trial) for trial in self.backend.reviewed(self.trials)]
        answer = search.answer(tried)
        if answer is None:
            raise self._nothing_fits()
        return answer

    def _search(self) -> Search:
        if self.request.batch_sizes:
            return Search(candidates=self.request.batch_sizes, maximum=self.maximum, anchored=self.backend.can_spill)
        guess = self.backend.guess(self.maximum)
        if self.backend.source == "predicted":
            # A prediction is exact about itself: its answer, and the size above that does not fit, are all to see.
            return Search(minimum=guess or 1, maximum=min(self.maximum, (guess or 0) + 1), guess=guess)
        budget = self.backend.budget.budget_bytes
        return Search(maximum=self.maximum, guess=guess or None, budget_bytes=budget, anchored=self.backend.can_spill)

    def _fill_rows(self, answer: int) -> None:
        """Try the table's other rows; a choice by speed needs them, a job that fails in one does not end the probe."""
        if self.backend.source == "measured" and self.request.objective == "largest":
            return
        tried = {trial.micro_batch for trial in self.trials}
        for size in table_sizes(answer, self.maximum):
            if size not in tried:
                self._try_row(size)

    def _note_if_odd(self, answer: int) -> None:
        odd = [t.micro_batch for t in self._latest() if t.micro_batch < answer and t.verdict is not Verdict.FITS]
        if odd:
            sizes = ", ".join(map(str, odd))
            self.backend.notes.append(f"Memory does not grow evenly here: batch {answer} fits and {sizes} does not.")

    def _try_row(self, size: int) -> None:
        try:
            self._try(size)
        except VramfitError as error:
            self._keep(_failed_row(size, self.backend, str(error)))

    def _try(self, size: int) -> Trial:
        return self._keep(self.backend.trial(size))

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
        latest = {trial.micro_batch: trial for trial in self.backend.reviewed(self.trials)}
        return [latest[size] for size in sorted(latest)]

    def _nothing_fits(self) -> VramfitError:
        last = self.trials[-1]
        if last.verdict is Verdict.FAILED:
            return VramfitError(f"Batch {last.micro_batch} could not be tried: {last.note}.")
        sizes = self.request.batch_sizes or ()
        which = f"No batch of {', '.join(map(str, sizes))}" if sizes else "Not even batch 1"
        verb = "fits" if last.source == "measured" else "is sure to fit"
        smaller = "name a smaller batch, " if sizes and min(sizes) > 1 else ""
        needs = f", the last tried {excess_of(last)}" if last.device_used_bytes else ""
        return NothingFits(
            f"{which} {verb} {format_size(last.budget_bytes)}{needs}; {smaller}try --levers auto, "
            "allow more memory, or make the image or the model smaller."
        )


def _failed_row(size: int, backend: Backend, note: str) -> Trial:
    return Trial(
        source=backend.source,
        micro_batch=size,
        verdict=Verdict.FAILED,
        budget_bytes=backend.budget.budget_bytes,
        note=note,
    )
