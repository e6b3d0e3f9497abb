"""Forward passes that no backward pass follows, and that keep a graph as if one did."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from vramfit.postmortem.course import Course
from vramfit.postmortem.lives import Life, Pile, Retention, retentions
from vramfit.postmortem.stacks import Line

# Without a graph a pass leaves its last tensors alone; with one, about all that it made.
_RETAINED = 0.4
_FEWEST_KEPT = 3
_NAMED = ("eval", "valid", "test", "infer", "predict", "teacher", "generate", "sample", "score", "metric")


def evaluating_callers(course: Course, lives: Sequence[Life], piles: Sequence[Pile]) -> frozenset[Line]:
    """Lines that call a network without ever learning, and yet keep what a backward pass would need."""
    piled = {pile.origin.caller for pile in piles}
    learning, kept = _learning_passes(course, lives), retentions(lives, course)
    by_caller: dict[Line, list[int]] = defaultdict(list)
    for number, one in enumerate(course.passes, 1):
        if one.caller is not None:
            by_caller[one.caller].append(number)
    found = set()
    for caller, passes in by_caller.items():
        beside = caller not in piled and any(one < max(learning, default=0) for one in passes)
        runs = beside or _is_evaluation(passes, caller)
        if runs and not learning.intersection(passes) and any(_keeps_graph(kept.get(one)) for one in passes):
            found.add(caller)
    return frozenset(found)


def _keeps_graph(left: Retention | None) -> bool:
    return left is not None and left.blocks >= _FEWEST_KEPT and left.share >= _RETAINED


def _learning_passes(course: Course, lives: Sequence[Life]) -> set[int]:
    """Passes that a backward pass went through, or may be going through at the moment."""
    learning = {number for number, one in enumerate(course.passes, 1) if one.learns}
    learning |= {
        course.pass_of(one.born) for one in lives if one.died_in == "backward" and one.origin.phase == "forward"
    }
    if lives and lives[-1].origin.phase == "backward":
        ended = max((one.born for one in lives if one.origin.phase == "optimizer"), default=-1)
        learning |= set(range(course.pass_of(ended) + 1, course.pass_of(lives[-1].born) + 1))
    return learning


def _is_evaluation(passes: Sequence[int], caller: Line) -> bool:
    """Whether a line is run twice in a row, or is in a function named like an evaluation."""
    named = any(word in caller.function.lower() for word in _NAMED)
    return named or any(after == before + 1 for before, after in pairwise(passes))
