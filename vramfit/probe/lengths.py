"""What fits at each length: the largest batch at a few of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import log, prod
from typing import TYPE_CHECKING, Any

from vramfit._version import __version__
from vramfit.choices import BUCKETS
from vramfit.errors import NothingFits
from vramfit.jobs.axis import at_length, axis_named, lengths_of
from vramfit.jobs.job import Job, job_key
from vramfit.plan.length_plan import LengthPlan, ProvenLength, samples_by_length
from vramfit.plan.lengths import Length, Lengths, choose_lengths, covers, name_of, read_lengths
from vramfit.plan.search import CEILING, Search, Tried
from vramfit.probe.backend import Backend, open_backend
from vramfit.probe.fit import with_free_levers
from vramfit.probe.probe import Probe
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.records import Schedule, Trial, Verdict

if TYPE_CHECKING:
    from torch.utils.data import Dataset

# At so many of the lengths the largest batch is searched for.
SEARCHED = 6
# Of a batch between two that were searched for, what is proven.
_LESS = 0.99
# A batch is tried that is larger than a proven one by this factor.
_WORTHWHILE = 1.03
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
    """At most how many lengths."""

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
        buckets: at most how many lengths; at six the largest batch is searched for, at each other one is proven.
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

    The largest batch is searched for at a few of the lengths. At those between, one trial proves the batch that their
    neighbours suggest, within about a percent of the largest.

    Raises:
        NothingFits: not even one sample of a length.

    """
    chosen = asked.chosen
    request = replace(request, objective="largest", schedule=_schedule(asked.lengths, request.schedule))
    proving = _Proving(make, asked.axis, request, on_trial)
    searched = spread(chosen, SEARCHED)
    for length in reversed(searched):
        proving.search(length)
    for length in reversed([one for one in chosen if one not in searched]):
        proving.prove(length, searched)
    proven = [
        ProvenLength(length=length, samples=samples, trial=proving.trials[length])
        for length, samples in zip(chosen, samples_by_length(asked.lengths, chosen), strict=True)
    ]
    job, backend = proving.open(chosen[-1])
    return LengthPlan(
        vramfit_version=__version__,
        axis=asked.axis,
        source=backend.source,
        counted=asked.lengths.counted,
        job=job_key(job),
        machine=backend.machine,
        budget=backend.budget,
        proven=tuple(proven),
        notes=tuple(dict.fromkeys((*backend.budget.notes, *backend.notes, *proving.notes, *_oddities(proven)))),
    )


@dataclass
class _Proving:
    """Batches proven so far; `make` gives the job at a length."""

    make: JobAt
    axis: str
    request: ProbeRequest
    on_trial: OnLength
    trials: dict[Length, Trial] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def search(self, length: Length) -> None:
        """Find the largest batch at a length.

        Raises:
            NothingFits: not even one sample.

        """
        _, backend = self.open(length)
        try:
            self.trials[length] = Probe(backend, self.request, partial(self.on_trial, length)).largest()
        except NothingFits as error:
            what = f"Samples of {self.axis.replace('_', ' ')} {name_of(length)}"
            raise NothingFits(f"{what} are too long: {error} Or leave the longest out.") from None
        self.notes += backend.notes

    def prove(self, length: Length, searched: Sequence[Length]) -> None:
        """Prove the batch that the lengths searched about one suggest; search for it where that does not fit."""
        known = [(one, self.trials[one].micro_batch) for one in searched]
        _, backend = self.open(length)
        tried: list[Trial] = []
        trial = self._try(backend, length, _between(length, known), tried)
        if trial.verdict is not Verdict.FITS:
            self.search(length)
            return
        more = min(_filled(trial), max(batch for _, batch in known))
        if more > _WORTHWHILE * trial.micro_batch:
            fuller = self._try(backend, length, more, tried)
            trial = fuller if fuller.verdict is Verdict.FITS else trial
        self.trials[length] = trial
        self.notes += backend.notes

    def _try(self, backend: Backend, length: Length, batch: int, tried: list[Trial]) -> Trial:
        """The trial of a batch in the light of all `tried` here, a smaller one among them where a card may spill."""
        search = Search(candidates=(batch,), anchored=backend.can_spill)
        while (size := search.next_size([Tried.of(trial) for trial in backend.reviewed(tried)])) is not None:
            tried.append(backend.trial(size))
            self.on_trial(length, tried[-1])
        return next(trial for trial in reversed(backend.reviewed(tried)) if trial.micro_batch == batch)

    def open(self, length: Length) -> tuple[Job, Backend]:
        """The job at a length, and where its trials are made."""
        job = with_free_levers(self.make(length), self.request)
        return job, open_backend(job, job, self.request)


def spread(lengths: Sequence[Length], most: int) -> list[Length]:
    """At most so many of the lengths, evenly spread, the first and the last among them."""
    if len(lengths) <= most:
        return list(lengths)
    return [lengths[round(place * (len(lengths) - 1) / (most - 1))] for place in range(most)]


def _between(length: Length, known: Sequence[tuple[Length, int]]) -> int:
    """A batch that should fit at a length, near the largest, by those at two others; memory grows with the length.

    A sample's memory is taken for a sum of powers of its length, none below the first. Then the batch is at least that
    of the longer one by the ratio of the lengths, and at least that of the chord between both in logarithms; where the
    data set ends the shorter one's search, only the first is of use. A little less, for rounding.
    """
    size = prod(length)
    below = max((one for one in known if prod(one[0]) <= size), key=lambda one: prod(one[0]))
    above = min((one for one in known if prod(one[0]) >= size), key=lambda one: prod(one[0]))
    ratio = prod(above[0]) / size
    chord = above[1] * (below[1] / above[1]) ** (log(ratio) / log(prod(above[0]) / prod(below[0]))) if ratio > 1 else 0
    return max(1, min(below[1], int(_LESS * max(chord, above[1] * ratio))))


def _filled(trial: Trial) -> int:
    """The batch that would fill what a trial that fits left of the budget, if all that it took were its samples'."""
    used = trial.device_used_bytes or 0
    spare = trial.budget_bytes - (trial.device_used_band_bytes[1] if trial.device_used_band_bytes else used)
    return int(trial.micro_batch * (1 + _LESS * spare / max(1, used)))


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
