"""What fits at each length: the largest batch at a few lengths, or the longest samples at one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vramfit._version import __version__
from vramfit.choices import BUCKETS
from vramfit.errors import NothingFits, NotTraceable, UsageError
from vramfit.jobs.axis import AXES, at_length, axis_named, lengths_of
from vramfit.jobs.job import Job, job_key
from vramfit.plan.choose import excess_of
from vramfit.plan.length_plan import LengthPlan, ProvenLength, samples_by_length
from vramfit.plan.lengths import Length, Lengths, choose_lengths, covers, name_of, read_lengths
from vramfit.plan.search import CEILING, Search, Tried
from vramfit.probe.backend import Backend, open_backend
from vramfit.probe.fit import with_free_levers
from vramfit.probe.probe import Probe
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.records import Schedule, Trial, Verdict
from vramfit.units import format_size

if TYPE_CHECKING:
    from torch.utils.data import Dataset

# The longest samples that are looked for, in steps of the multiple.
_LONGEST = 65_536
JobAt = Callable[[Length], Job]
OnLength = Callable[[Length, Trial], None]


@dataclass(frozen=True, kw_only=True)
class LengthRequest:
    """Lengths along one axis, and at how many of them batches are to be proven."""

    axis: str
    """A key of `AXES`."""

    lengths: Lengths
    """Of all samples."""

    buckets: int = BUCKETS
    """At most how many lengths; each is a search of its own."""

    multiple: int = 1
    """Lengths are rounded up to multiples of it, as a collate function pads them."""

    @property
    def chosen(self) -> tuple[Length, ...]:
        """The lengths to prove batches at, in ascending order."""
        return choose_lengths(self.lengths, self.buckets, self.multiple)


def fit_lengths(
    job: Job,
    *,
    axis: str,
    lengths: "str | Sequence[int] | Sequence[Length] | Dataset[Any]",
    vram: str | int | None = None,
    gpu: str | None = None,
    reserve: str | int | None = None,
    buckets: int = BUCKETS,
    multiple: int = 1,
    on_trial: OnLength = lambda _length, _trial: None,
) -> LengthPlan:
    """The largest batch at each of a few lengths, for a `TokenBudgetSampler`.

    Args:
        job: what to train; its `batch` takes the axis as a keyword: `def batch(samples, tokens=512)`.
        axis: `tokens`, `points`, `frames` or `image_size`.
        lengths: of all samples: a list of numbers or of (height, width), a Dataset, which is read once, a range such as
            `16:512` where every length is alike, or the name of a file of one length a line.
        vram, gpu, reserve: as `fit` has them.
        buckets: at most how many lengths; each is a search of its own.
        multiple: lengths are rounded up to multiples of it, as a collate function pads them.
        on_trial: called with each trial as it ends.

    Known limitations:
        A batch's memory is that of its longest sample and its size, and is taken to grow with both. Steps of changing
        shape leave the allocator's cache in pieces, so that a run reserves more than each step by itself: use the lever
        `expandable_segments`, or reserve some of the card.

    Raises:
        NothingFits: not even one of the longest samples.
        NoUsableGpu, UnknownCard, NotTraceable, UsageError, DataError: as `fit`, and for lengths that make no sense.

    """
    axis = axis_named(axis)
    asked = LengthRequest(axis=axis, lengths=as_lengths(lengths, axis), buckets=buckets, multiple=multiple)
    request = ProbeRequest(limits=MemoryLimits.parse(vram=vram, reserve=reserve), gpu=gpu)
    return prove_lengths(partial(at_length, job, axis), asked, request, on_trial)


def as_lengths(lengths: "str | Sequence[int] | Sequence[Length] | Dataset[Any]", axis: str) -> Lengths:
    """Lengths in any form that people have them.

    Raises:
        UsageError, DataError: they make no sense.

    """
    if isinstance(lengths, str):
        return read_lengths(lengths)
    from torch.utils.data import Dataset

    return Lengths.of(lengths_of(lengths, axis) if isinstance(lengths, Dataset) else lengths)


def prove_lengths(
    make: JobAt, asked: LengthRequest, request: ProbeRequest, on_trial: OnLength = lambda _length, _trial: None
) -> LengthPlan:
    """The plan of a job that `make` gives at each length; the longest is tried first, for it may be too long.

    Raises:
        NothingFits: not even one sample of a length.

    """
    chosen = asked.chosen
    request = replace(request, objective="largest", schedule=_schedule(asked.lengths, request.schedule))
    trials: dict[Length, Trial] = {}
    for length in reversed(chosen):
        job = with_free_levers(make(length), request)
        backend = open_backend(job, job, request)
        trials[length] = _largest(Probe(backend, request, partial(on_trial, length)), length, asked.axis)
    proven = [
        ProvenLength(length=length, samples=samples, trial=trials[length])
        for length, samples in zip(chosen, samples_by_length(asked.lengths, chosen), strict=True)
    ]
    return LengthPlan(
        vramfit_version=__version__,
        axis=asked.axis,
        source=backend.source,
        counted=asked.lengths.counted,
        job=job_key(job),
        machine=backend.machine,
        budget=backend.budget,
        proven=tuple(proven),
        notes=tuple(dict.fromkeys((*backend.budget.notes, *backend.notes, *_oddities(proven)))),
    )


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


def _largest(probe: Probe, length: Length, axis: str) -> Trial:
    """The trial of the largest batch."""
    try:
        return probe.largest()
    except NothingFits as error:
        raise NothingFits(
            f"Samples of {axis.replace('_', ' ')} {name_of(length)} are too long: {error} Or leave the longest out."
        ) from None


def _schedule(lengths: Lengths, schedule: Schedule) -> Schedule:
    """No batch is larger than the data set; a range says nothing of that."""
    return schedule.model_copy(update={"images": lengths.samples if lengths.counted else CEILING})


def _oddities(proven: Sequence[ProvenLength]) -> list[str]:
    """Where longer samples were proven in larger batches than shorter ones that they cover."""
    return [
        f"Memory does not grow evenly here: {longer.trial.micro_batch} samples of {name_of(longer.length)} fit, and of "
        f"{name_of(shorter.length)} only {shorter.trial.micro_batch}."
        for shorter, longer in pairwise(proven)
        if covers(longer.length, shorter.length) and longer.trial.micro_batch > shorter.trial.micro_batch
    ]
