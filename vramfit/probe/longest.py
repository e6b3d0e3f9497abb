"""The longest samples of which one batch fits."""

from dataclasses import dataclass, field, replace

from vramfit.errors import NothingFits, NotTraceable, UsageError
from vramfit.jobs.axis import AXES
from vramfit.plan.choose import excess_of
from vramfit.plan.lengths import Length, name_of
from vramfit.plan.search import Search, Tried
from vramfit.probe.backend import Backend, open_backend
from vramfit.probe.fit import with_free_levers
from vramfit.probe.lengths import JobAt, OnLength
from vramfit.probe.request import ProbeRequest
from vramfit.records import Trial, Verdict
from vramfit.units import format_size

# The longest samples that are looked for, in steps of the multiple.
_LONGEST = 65_536


@dataclass
class LongestSearch:
    """A search for the longest samples of which one batch fits; `make` gives the job at a length.

    Lengths are multiples of `multiple`, images squares. A length that the network does not take counts as too long.
    """

    make: JobAt
    axis: str
    batch: int
    request: ProbeRequest
    multiple: int
    on_trial: OnLength
    trials: dict[Length, Trial] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self) -> list[tuple[Length, Trial]]:
        """Every trial, in ascending order of length; the last that fits is the answer.

        Raises:
            NothingFits: not even the shortest fits.
            NotTraceable: the step cannot be traced at any length.

        """
        tried: list[Tried] = []
        search = Search(maximum=_LONGEST, budget_bytes=self._backend(1).budget.budget_bytes)
        while (steps := search.next_size(tried)) is not None:
            tried.append(replace(self._tried(steps), micro_batch=steps))
        found = sorted(self.trials.items())
        if search.answer(tried) is None:
            length, trial = found[0]
            raise NothingFits(
                f"Batch {self.batch} does not fit in {format_size(trial.budget_bytes)} even with samples of "
                f"{name_of(length)}: it {excess_of(trial)}; name a smaller --batch-size."
            )
        return found

    def _tried(self, steps: int) -> Tried:
        try:
            trial = self._backend(steps).trial(self.batch)
        except (NotTraceable, UsageError) as error:
            if not self.trials:
                raise
            self.notes[:] = [f"Samples of {name_of(self._length(steps))} are refused: {error}"]
            return Tried(steps, Verdict.OVER_BUDGET)
        self.trials[self._length(steps)] = trial
        self.on_trial(self._length(steps), trial)
        return Tried.of(trial)

    def _backend(self, steps: int) -> Backend:
        job = with_free_levers(self.make(self._length(steps)), self.request)
        return open_backend(job, job, self.request)

    def _length(self, steps: int) -> Length:
        return (steps * self.multiple,) * AXES[self.axis]
