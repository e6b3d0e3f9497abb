"""What takes more than a lock file says, and which module and which kind of tensor it comes from. Sizes in bytes."""

from collections import Counter
from collections.abc import Mapping

from vramfit.lock.lock_file import LockedJob
from vramfit.prediction.phase_peaks import SMALLEST_SHARE, PhasePeak
from vramfit.records import Bytes, Record
from vramfit.units import format_size

_NETWORK = ""
_MOST_OF_IT = 0.6
_FEW = 3


class Part(Record):
    """A module, an operation outside modules, or a kind of tensor, and how much more it holds at the peak."""

    name: str
    more_bytes: Bytes

    def __str__(self) -> str:
        """Such as `layer4 (+96 MiB)`."""
        return f"{self.name} (+{format_size(self.more_bytes)})"


class Growth(Record):
    """A phase whose peak grew, and the modules and the kind of tensor that grew most at it."""

    job: str
    phase: str
    before_bytes: Bytes
    after_bytes: Bytes
    modules: tuple[Part, ...]
    kind: Part

    @property
    def share(self) -> float:
        """By how much of what it was the peak grew."""
        return self.after_bytes / self.before_bytes - 1

    def __str__(self) -> str:
        """One sentence: what grew, by how much, and where."""
        sizes = f"from {format_size(self.before_bytes)} to {format_size(self.after_bytes)}"
        places = ", ".join(map(str, self.modules))
        return (
            f"{self.job}: the peak of {self.phase} grew by {self.share:.1%}, {sizes}; "
            f"most of it in {places}, as {self.kind}."
        )


def growths(name: str, before: LockedJob, after: LockedJob, tolerance: float) -> list[Growth]:
    """The phases whose peak grew by more than `tolerance` of what it was, the largest growth first.

    Args:
        name: what the lock file calls the job.
        before: as the lock file has it.
        after: as it is now, modules by their full names.
        tolerance: a share, such as 0.05. A phase that is new is held to the peak of all phases.

    """
    found = []
    for phase, now in after.phases.items():
        was = before.phases.get(phase) or max(before.phases.values(), key=lambda peak: peak.size_bytes)
        if now.size_bytes > was.size_bytes * (1 + tolerance):
            found.append(_growth(name, phase, was, now))
    return sorted(found, key=lambda one: one.before_bytes - one.after_bytes)


def _growth(name: str, phase: str, was: PhasePeak, now: PhasePeak) -> Growth:
    return Growth(
        job=name,
        phase=phase,
        before_bytes=was.size_bytes,
        after_bytes=now.size_bytes,
        modules=_places(was, now),
        kind=_most(was.kinds, now.kinds),
    )


def _places(was: PhasePeak, now: PhasePeak) -> tuple[Part, ...]:
    """The innermost module that most of the growth is in, or the largest few where no one module is."""
    more = _subtotals(_named_as_before(now, was))
    more.subtract(_subtotals(was.modules))
    place, enough = _NETWORK, _MOST_OF_IT * more[_NETWORK]
    while inside := [name for name in more if name != _NETWORK and _parent(name) == place and more[name] >= enough]:
        place = max(inside, key=lambda name: more[name])
    if place != _NETWORK:
        return (Part(name=place, more_bytes=more[place]),)
    outermost = sorted((name for name in more if name and not _parent(name)), key=lambda name: (-more[name], name))
    return tuple(Part(name=name, more_bytes=more[name]) for name in outermost[:_FEW] if more[name] > 0)


def _named_as_before(now: PhasePeak, was: PhasePeak) -> Counter[str]:
    """Sizes by the names of a lock file, which counts a small module with what it is part of."""
    sizes: Counter[str] = Counter()
    for name, size in now.modules.items():
        within = name
        while within not in was.modules and size < SMALLEST_SHARE * now.size_bytes and _parent(within) != _NETWORK:
            within = _parent(within)
        sizes[within] += size
    return sizes


def _subtotals(modules: Mapping[str, int]) -> Counter[str]:
    """Sizes of modules with all that is inside them, and of the whole network."""
    totals: Counter[str] = Counter()
    for name, size in modules.items():
        within = name
        while within != _NETWORK:
            totals[within] += size
            within = _parent(within)
        totals[_NETWORK] += size
    return totals


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _most(was: Mapping[str, int], now: Mapping[str, int]) -> Part:
    more = {name: size - was.get(name, 0) for name, size in now.items()}
    name = max(more, key=lambda one: (more[one], one))
    return Part(name=name, more_bytes=max(0, more[name]))
