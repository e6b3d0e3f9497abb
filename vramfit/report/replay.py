"""What a replayed snapshot shows: a table of outcomes, sentences that judge them, and the same as one document."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vramfit.prediction.snapshots.compare import Comparison, Outcome
from vramfit.units import GIB, format_size

_COLUMNS = ("peak allocated\nGiB", "peak reserved\nGiB", "segments", "segments\nGiB", "retries")


def comparison_table(comparison: Comparison) -> Table:
    """One row a run: what it allocated and reserved at its peaks, and the segments it ended with."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    table.add_row("recorded", *_cells(comparison.recorded))
    table.add_row("replayed", *_cells(comparison.replayed))
    if comparison.what_if is not None:
        table.add_row(_question(comparison), *_cells(comparison.what_if))
    return table


def sentences(comparison: Comparison) -> list[str]:
    """How the replay compares with the recording, and whether the limit that was asked for is enough."""
    said = [_match(comparison)]
    if comparison.what_if is not None and comparison.limit_bytes is not None:
        said.append(_verdict(comparison.what_if, format_size(comparison.limit_bytes)))
    return said


def document(comparison: Comparison) -> dict[str, Any]:
    """The comparison for a JSON document; `what_if` is null where nothing was asked."""
    other = comparison.what_if
    asked = {"alloc_conf": comparison.alloc_conf, "limit_bytes": comparison.limit_bytes}
    return {
        "device": comparison.snapshot.device,
        "events": comparison.snapshot.trace_length,
        "recorded": _figures(comparison.recorded),
        "replayed": {**_figures(comparison.replayed), "retries": comparison.replayed.retries},
        "segments_match": comparison.segments_match,
        "what_if": other
        and {**asked, **_figures(other), "retries": other.retries, "out_of_memory_at": other.out_of_memory_at},
    }


def _question(comparison: Comparison) -> str:
    limit = f"in {format_size(comparison.limit_bytes)}" if comparison.limit_bytes else ""
    return " ".join(word for word in (comparison.alloc_conf, limit) if word) or "defaults"


def _match(comparison: Comparison) -> str:
    recorded, replayed = comparison.recorded, comparison.replayed
    what = f"The replay of {comparison.snapshot.trace_length} events"
    allocated = replayed.peak_allocated_bytes - recorded.peak_allocated_bytes
    reserved = replayed.peak_reserved_bytes - recorded.peak_reserved_bytes
    if comparison.segments_match and allocated == reserved == 0:
        return f"{what} equals the recording: its segments and both peaks, to the byte."
    segments = "the recorded segments" if comparison.segments_match else "other segments than the recorded"
    return f"{what} took {segments}; its peaks are off by {allocated:+d} bytes allocated, {reserved:+d} reserved."


def _verdict(outcome: Outcome, limit: str) -> str:
    if outcome.out_of_memory_at == 0:
        return f"Out of memory: what was there before the recording takes more than {limit}."
    if outcome.out_of_memory_at is not None:
        return f"Out of memory at request {outcome.out_of_memory_at}: it does not run in {limit}."
    if outcome.retries:
        return f"It runs in {limit}, but gave its whole cache back {outcome.retries} times to do so, which is slow."
    return f"It runs in {limit}."


def _figures(outcome: Outcome) -> dict[str, int]:
    return {
        "peak_allocated_bytes": outcome.peak_allocated_bytes,
        "peak_reserved_bytes": outcome.peak_reserved_bytes,
        "segments": len(outcome.segment_sizes),
        "segment_bytes": sum(outcome.segment_sizes),
    }


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        f"{outcome.peak_allocated_bytes / GIB:.3f}",
        f"{outcome.peak_reserved_bytes / GIB:.3f}",
        str(len(outcome.segment_sizes)),
        f"{sum(outcome.segment_sizes) / GIB:.3f}",
        str(outcome.retries),
    )
