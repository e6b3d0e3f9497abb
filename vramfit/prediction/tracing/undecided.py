"""What a step decides by values that nobody knows yet: traced both ways, and the trace that holds more is taken.

`if halted.all(): break` depends on values that only a card has, `if random.random() < 0.5` on a number drawn anew in
each step. Which way holds more memory cannot be read off the code, so it is tried.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from vramfit.errors import NotTraceable, VramfitError
from vramfit.prediction.trace_records import Trace

# Flags that are tried the other way round; each costs a trace.
_MOST_TURNED = 4
_UNBOUNDED = "the other way, which is not predicted, takes memory by a number that only a card has"

Drawn = TypeVar("Drawn")


class EndlessLoop(NotTraceable):
    """A loop that only a value ends, and that holds more in each round."""


class UnboundedSize(NotTraceable):
    """Memory grows with a number of which nothing is known."""


@dataclass(frozen=True)
class Answers:
    """How a trace answers what is not known.

    Attributes:
        turned: places, `file:line`, at which a flag is the other way round than is assumed.
        lowest: whether a single number that the host draws at random is the lowest it can be, and not the highest.

    """

    turned: frozenset[str] = frozenset()
    lowest: bool = False


class Undecided:
    """What one trace was asked: the places of its flags, and those where numbers were drawn."""

    def __init__(self, answers: Answers = Answers()) -> None:
        self.answers = answers
        self.flags: dict[str, None] = {}
        self.draws: dict[str, None] = {}

    def is_turned(self, place: str) -> bool:
        """Whether the flag that is read at a place is the other way round."""
        self.flags.pop(place, None)  # the last one that was read comes last
        self.flags[place] = None
        return place in self.answers.turned

    def drawn(self, place: str, low: Drawn, high: Drawn) -> Drawn:
        """The end of a range, low and high included, for a number that is drawn at a place."""
        self.draws[place] = None
        return low if self.answers.lowest else high

    def others(self) -> Iterator[Callable[[Answers], Answers]]:
        """What may be answered otherwise, one change each."""
        if self.draws and not self.answers.lowest:
            yield lambda answers: replace(answers, lowest=True)
        for place in list(self.flags)[:_MOST_TURNED]:
            yield lambda answers, place=place: replace(answers, turned=answers.turned ^ {place})  # type: ignore[misc]


def largest_of_ways(make: Callable[[Undecided], Trace]) -> Trace:
    """The trace with the highest peak among those that `make` gives for answers changed one after the other.

    What fails as it is answered, such as an assertion, or a network of which every layer is dropped, is no way that a
    healthy run goes.

    Raises:
        EndlessLoop: a loop ends by a value that is not known, and holds more in each round.
        NotTraceable: the step cannot be traced.
        UsageError: the step is not one that trains.

    """
    best, asked = _first_way(make)
    answers = asked.answers
    for change in asked.others():
        rival = Undecided(change(answers))
        try:
            trace = make(rival)
        except EndlessLoop:
            raise
        except UnboundedSize:
            places = rival.answers.turned ^ answers.turned or {"the step"}
            best.assumptions += [f"{place}: {_UNBOUNDED}" for place in places]
            continue
        except VramfitError:
            if rival.answers.lowest != answers.lowest:
                _note_draws(best, asked, "highest")
            continue
        if rival.answers.lowest != answers.lowest and trace.peak_bytes != best.peak_bytes:
            _note_draws(best, asked, "highest")
            _note_draws(trace, rival, "lowest")
        if trace.peak_bytes > best.peak_bytes:
            best, answers = trace, rival.answers
    return best


def _first_way(make: Callable[[Undecided], Trace]) -> tuple[Trace, Undecided]:
    """The trace with the usual answers; where it fails, the first that does not."""
    usual = Undecided()
    try:
        return make(usual), usual
    except EndlessLoop:
        raise
    except VramfitError:
        found = _way_out(make, usual)
        if found is None:
            raise
        return found


def _way_out(make: Callable[[Undecided], Trace], failed: Undecided) -> tuple[Trace, Undecided] | None:
    """A trace that does not fail: with the lowest of drawn numbers, or with the flags turned after which one fails."""
    if failed.draws:
        lowest = Undecided(Answers(lowest=True))
        with suppress(VramfitError):
            trace = make(lowest)
            _note_draws(trace, lowest, "lowest")
            return trace, lowest
    for _ in range(_MOST_TURNED):
        last = next(reversed(failed.flags), None)
        if last is None or last in failed.answers.turned:
            break
        failed = Undecided(replace(failed.answers, turned=failed.answers.turned | {last}))
        with suppress(VramfitError):
            return make(failed), failed
    return None


def _note_draws(trace: Trace, asked: Undecided, end: str) -> None:
    """Say which end of their range drawn numbers are, of lines that say nothing else."""
    noted = {line.rpartition(": ")[0] for line in trace.assumptions}
    trace.assumptions += [
        f"{place}: a number drawn at random is its {end}" for place in asked.draws if place not in noted
    ]
