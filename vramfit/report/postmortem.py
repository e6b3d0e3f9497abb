"""Why a recorded job ran out of memory, for a terminal and a pipe: the cause, then tables of what was held."""

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vramfit.postmortem.explain import AllocatorPart, KindPart, LinePart, Postmortem, heading
from vramfit.report.terminal import show
from vramfit.units import GIB, MIB, format_size

# What the allocator's parts are called to readers.
PART_NAMES = {
    "rounding": "rounding of blocks",
    "waiting": "freed, another stream uses it yet",
    "holes": "free, in holes of segments in use",
    "cached": "free, in whole segments",
}
# Lines beyond these are put together in the table; the JSON has them all.
_MOST_LINES = 12


def show_postmortem(found: Postmortem, file: TextIO | None = None) -> None:
    """Print one device: the likeliest cause first."""
    file = file or sys.stdout
    print(found.sentence, heading(found), *remarks(found), "", sep="\n", file=file)
    show(kinds_table(found), file)
    print(file=file)
    show(lines_table(found), file)
    if found.levers:
        print(file=file)
        show(levers_table(found), file)


def remarks(found: Postmortem) -> list[str]:
    """Besides the first cause: the others, what a setting of the allocator would do, what is outside, notes."""
    said = [*(finding.sentence for finding in found.findings[1:]), outside_sentence(found), found.lever_sentence]
    return [sentence for sentence in (*said, *found.notes) if sentence]


def outside_sentence(found: Postmortem) -> str | None:
    """What the card held that is not this allocator's; None where the card's total is not known."""
    if found.total_bytes is None:
        return None
    rest = found.total_bytes - found.reserved_bytes - (found.device_free_bytes or 0)
    if found.device_free_bytes is None:
        return f"Of the card's {format_size(found.total_bytes)}, {format_size(found.reserved_bytes)} were reserved."
    others = "" if found.others_bytes is None else f", about {format_size(found.others_bytes)} by other processes"
    return f"Outside of the allocator {format_size(max(0, rest))} of the card were taken, the CUDA context too{others}."


def documents(found: Sequence[Postmortem]) -> list[dict[str, Any]]:
    """Every device for a JSON document, without the drawings."""
    return [one.model_dump(mode="json", exclude={"picture"}) for one in found]


def kinds_table(found: Postmortem) -> Table:
    """Every part of what was reserved, and their sum."""
    table = _table("held", "MiB", "share", "since step", "blocks", "bytes")
    for part in found.kinds:
        table.add_row(part.kind, *_sizes(part, found), _step(part.since_step), str(part.blocks), str(part.size_bytes))
    for own in found.allocator:
        table.add_row(PART_NAMES[own.name], *_sizes(own, found), "", "", str(own.size_bytes))
    whole = found.reserved_bytes
    table.add_row("reserved", f"{whole / MIB:.1f}", "100.0 %", "", "", str(whole), style="bold")
    return table


def lines_table(found: Postmortem) -> Table:
    """The lines of code that made what is held, the fullest first; small ones together."""
    table = _table("line", "MiB", "share", "kind", "function", "since step", "blocks", "bytes")
    for part in found.lines[:_MOST_LINES]:
        last = (part.kind, part.module, _step(part.since_step), str(part.blocks), str(part.size_bytes))
        table.add_row(part.line, *_sizes(part, found), *last)
    rest = found.lines[_MOST_LINES:]
    if rest:
        size, blocks = sum(part.size_bytes for part in rest), sum(part.blocks for part in rest)
        share = f"{100 * size / max(found.reserved_bytes, 1):.1f} %"
        table.add_row(f"{len(rest)} others", f"{size / MIB:.1f}", share, "", "", "", str(blocks), str(size))
    return table


def levers_table(found: Postmortem) -> Table:
    """The same requests under each setting of the allocator."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("allocator setting, replayed", overflow="fold")
    for column in ("peak reserved GiB", "cache given back"):
        table.add_column(column, justify="right")
    if found.reason == "oom":
        table.add_column("the refused request")
    for one in found.levers:
        words = [] if found.reason != "oom" else ["served" if one.served else "refused"]
        table.add_row(one.setting, f"{one.peak_reserved_bytes / GIB:.3f}", str(one.retries), *words)
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for column in columns:
        is_word = column in ("function", "kind")
        table.add_column(column, justify="left" if is_word else "right", overflow="fold")
    return table


def _sizes(part: KindPart | LinePart | AllocatorPart, found: Postmortem) -> tuple[str, str]:
    return f"{part.size_bytes / MIB:.1f}", f"{100 * part.size_bytes / max(found.reserved_bytes, 1):.1f} %"


def _step(step: int) -> str:
    return "older" if step == 0 else str(step)
