"""Networks, copies of them and optimizers among what is held: which of them keep the same sizes, and who made them."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vramfit.postmortem.course import Course
from vramfit.postmortem.recording import Held
from vramfit.postmortem.stacks import Line, Phase

# So much of a network's bytes must be there again, in tensors of the same sizes, for a copy of it.
_LIKENESS = 0.8
_AVERAGE = re.compile(r"ema|averag|shadow|swa|polyak|momentum_encoder|momentum_model|target", re.IGNORECASE)
_NETWORK: tuple[Phase, ...] = ("build", "copy", "load")


@dataclass(frozen=True)
class Group:
    """Blocks of one phase that were made in one turn, by one chain of calls, the innermost first."""

    phase: Phase
    calls: tuple[Line, ...]
    blocks: tuple[Held, ...]

    @property
    def line(self) -> Line | None:
        """The line that made them."""
        return self.calls[0] if self.calls else None

    def line_beside(self, other: "Group") -> Line | None:
        """The outermost line that is not the other's: who calls a function that makes both."""
        pairs = zip(reversed(self.calls), reversed(other.calls), strict=False)
        return next((mine for mine, theirs in pairs if mine != theirs), self.line)

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return sum(block.size_bytes for block in self.blocks)

    @property
    def sizes(self) -> Counter[int]:
        """How many blocks of each size were asked for."""
        return Counter(block.requested_bytes for block in self.blocks)

    @property
    def is_average(self) -> bool:
        """Whether its line or function is named like an average of weights."""
        lines = {line for block in self.blocks for line in (block.origin.line, *block.origin.outside) if line}
        return any(_AVERAGE.search(f"{line.short_file} {line.function}") for line in lines)


def networks(held: Iterable[Held], course: Course) -> tuple[Group | None, list[Group]]:
    """The network, and what else is as large and made like one: others, and copies of weights, the largest first.

    The network is the largest that was built; a row of clones in a script counts if it has a network's sizes.
    """
    groups = _grouped(held, lambda block: (block.origin.phase, block.origin.outside, course.pass_of(block.born)))
    built = sorted((one for one in groups if one.phase in _NETWORK), key=lambda one: -one.size_bytes)
    first = next((one for one in built if one.phase == "build"), built[0] if built else None)
    if first is None:
        return None, []
    others = [one for one in built if one is not first]
    others += [one for one in groups if one.phase == "script" and len(one.blocks) > 1 and alike(one, first)]
    return first, sorted(others, key=lambda one: -one.size_bytes)


def optimizers(held: Iterable[Held], course: Course) -> list[Group]:
    """The state that optimizers keep, by the line that steps them and the step in which they made it."""
    state = (block for block in held if block.origin.phase == "optimizer")
    return _grouped(state, lambda block: ("optimizer", block.origin.outside, course.step_of(block.born)))


def alike(one: Group, other: Group) -> bool:
    """Whether two groups have tensors of the same sizes."""
    common = one.sizes & other.sizes
    shared = sum(size * count for size, count in common.items())
    whole = min(sum(size * count for size, count in group.sizes.items()) for group in (one, other))
    return shared >= _LIKENESS * whole


def _grouped(blocks: Iterable[Held], key: Callable[[Held], tuple[Phase, tuple[Line, ...], int]]) -> list[Group]:
    found: dict[tuple[Phase, tuple[Line, ...], int], list[Held]] = defaultdict(list)
    for block in sorted(blocks, key=lambda one: one.born):
        if not block.origin.workspace:
            found[key(block)].append(block)
    return [Group(phase, calls, tuple(members)) for (phase, calls, _), members in found.items()]
