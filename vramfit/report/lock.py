"""What a check of a lock file found, for a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from vramfit.lock.growth import Growth
from vramfit.lock.lock_file import LockedJob
from vramfit.report.terminal import make_table
from vramfit.units import GIB


def lock_table(before: Mapping[str, LockedJob], after: Mapping[str, LockedJob]) -> Table:
    """The peak of each phase, as locked and as it is now, in GiB of tensors."""
    table = make_table(("job", "phase", "locked\nGiB", "now\nGiB", "change"))
    for name, now in after.items():
        for phase, peak in now.phases.items():
            was = before[name].phases.get(phase) if name in before else None
            was_bytes = was.size_bytes if was else None
            change = f"{peak.size_bytes / was_bytes - 1:+.1%}" if was_bytes else "new"
            table.add_row(name, phase, _gib(was_bytes), _gib(peak.size_bytes), change)
    return table


def _gib(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / GIB:.3f}"


def growth_sentences(grown: Sequence[Growth]) -> Iterator[str]:
    """Of each job the largest growth in full, and the other phases by their share."""
    for job in dict.fromkeys(growth.job for growth in grown):
        first, *others = (growth for growth in grown if growth.job == job)
        yield str(first)
        if others:
            yield f"Also grew: {', '.join(f'{growth.phase} by {growth.share:.1%}' for growth in others)}."


def newer_versions(before: Mapping[str, LockedJob], after: Mapping[str, LockedJob]) -> list[str]:
    """Sentences on versions that changed since: what grew may be theirs."""
    said = {
        f"Locked with {name} {old}, traced with {new}: what changed may come from there."
        for title, now in after.items()
        if title in before
        for name, old, new in (
            ("torch", before[title].torch, now.torch),
            ("vramfit", before[title].vramfit, now.vramfit),
        )
        if old != new
    }
    return sorted(said)
