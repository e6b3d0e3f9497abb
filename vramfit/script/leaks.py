"""Whether a script's steps leave memory on the card that later steps do not let go of, so that "fits" does not last.

Sizes in bytes. A few steps are enough: what one step leaves is compared with the steps after it.
"""

from collections.abc import Iterable
from itertools import pairwise

from vramfit.prediction.trace_records import StorageRecord, Trace
from vramfit.records import Trial, Verdict
from vramfit.script.outcome import Outcome
from vramfit.units import MIB, format_size

LEAST_BYTES = MIB
_FEWEST_STEPS = 3
# Set up in the first step, or there as long as the run.
_LASTING = ("parameter", "buffer", "average", "optimizer state", "gradient")
# Growths of measured steps are the same leak if the largest is at most so many times the smallest.
_ALIKE = 1.5


def leak_note(outcome: Outcome, trial: Trial) -> str | None:
    """One sentence on what each step leaves behind, and after how many the budget is full; None where nothing is left.

    Known limitation: a list that is emptied at the end of an epoch grows alike until then, and is told of.
    """
    if outcome.measured is not None:
        left, cause = measured_growth(outcome.measured.held), ""
    else:
        left, cause = _traced(outcome.trace or Trace(1))
    if left < LEAST_BYTES:
        return None
    lasts = ""
    if trial.verdict is Verdict.FITS and trial.headroom_bytes is not None:
        steps = outcome.steps_made + trial.headroom_bytes // left
        lasts = f", so what fits in these {outcome.steps_made} steps fills the budget after about {steps:,}"
    return (
        f"Each step leaves {format_size(left)} on the card that later steps do not let go of{cause}{lasts}; "
        "`vramfit run --watch -- ...` names the line."
    )


def left_behind(trace: Trace) -> list[list[StorageRecord]]:
    """What each full step but the first and the last made and the end of the last still holds, without weights.

    Empty where fewer steps were traced than can tell, or where what is held after a step does not rise with each.
    """
    names = list(trace.marks)
    steps = [name for name in trace.samples if name in trace.marks]
    if len(steps) < _FEWEST_STEPS:
        return []
    following = dict(pairwise(names))
    stops = [trace.marks[following[name]] if name in following else len(trace.events) for name in steps]
    held = [_held(trace, stop) for stop in stops]
    if any(_bytes(after.values()) - _bytes(before.values()) < LEAST_BYTES for before, after in pairwise(held)):
        return []
    parts = list(pairwise(stops))[:-1]
    return [[one for number, one in held[-1].items() if number in _made(trace, *part)] for part in parts]


def measured_growth(held: tuple[int, ...]) -> int:
    """What each step adds to the bytes that are held after it, where all after the first add much the same; else 0.

    `held` are the bytes after each step; samples of differing lengths make them differ, but not rise evenly.
    """
    growths = [after - before for before, after in pairwise(held[1:] if len(held) > _FEWEST_STEPS else held)]
    if len(growths) < _FEWEST_STEPS - 1 or min(growths) <= 0 or max(growths) > _ALIKE * min(growths):
        return 0
    return min(growths)


def _held(trace: Trace, stop: int) -> dict[int, StorageRecord]:
    """Storages that are there after so many events, by number; without those that last."""
    freed = {~event for event in trace.events[:stop] if event < 0}
    made = (event for event in trace.events[:stop] if event >= 0 and event not in freed)
    return {number: one for number in made if (one := trace.storages[number]).kind not in _LASTING}


def _bytes(storages: Iterable[StorageRecord]) -> int:
    return sum(storage.size_bytes for storage in storages)


def _made(trace: Trace, start: int, stop: int) -> set[int]:
    return {event for event in trace.events[start:stop] if event >= 0}


def _traced(trace: Trace) -> tuple[int, str]:
    """The least that a step leaves behind, and what that looks like."""
    steps = left_behind(trace)
    least = min(steps, key=_bytes, default=[])
    graph = _bytes(storage for storage in least if storage.kind == "activation")
    kept = " (activations, as a list of losses keeps: use .item() or .detach())" if 2 * graph > _bytes(least) else ""
    return _bytes(least), kept
