"""What the blocks of a recording are for, from the phase that made them and how long they stayed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from vramfit.postmortem.course import Course
from vramfit.postmortem.recording import Held
from vramfit.postmortem.stacks import Phase

MemoryKind = Literal[
    "parameters",
    "copy of the network",
    "gradients",
    "optimizer state",
    "activations",
    "tensors of the script",
    "workspace",
    "unknown",
]
KINDS: tuple[MemoryKind, ...] = (
    "parameters",
    "copy of the network",
    "optimizer state",
    "gradients",
    "activations",
    "tensors of the script",
    "workspace",
    "unknown",
)
_OF_PHASE: dict[Phase, MemoryKind] = {
    "build": "parameters",
    "load": "parameters",
    "copy": "copy of the network",
    "forward": "activations",
    "backward": "gradients",
    "optimizer": "optimizer state",
    "script": "tensors of the script",
    "unknown": "unknown",
}
# Of so much of the gradients' bytes an older block must have the size, for the older ones to be called by it.
_LIKENESS = 0.8


def kind_of(block: Held) -> MemoryKind:
    """What one block is for."""
    return "workspace" if block.origin.workspace else _OF_PHASE[block.origin.phase]


def kinds_of(held: Sequence[Held], gradient_sizes: Iterable[int] = ()) -> list[MemoryKind]:
    """What each block is for; blocks older than the recording go by their sizes.

    A network whose gradients were seen has a parameter of the size of each: so many older blocks of that size are its
    parameters, and what of that size is left is the optimizer's state.
    """
    kinds = [kind_of(block) for block in held]
    wanted = Counter(gradient_sizes)
    old = Counter(block.requested_bytes for block, kind in zip(held, kinds, strict=True) if kind == "unknown")
    found = sum(size * min(count, old[size]) for size, count in wanted.items())
    if not wanted or found < _LIKENESS * sum(size * count for size, count in wanted.items()):
        return kinds
    left = Counter(wanted)
    for place, block in enumerate(held):
        size = block.requested_bytes
        if kinds[place] == "unknown" and size in wanted:
            kinds[place] = "parameters" if left[size] > 0 else "optimizer state"
            left[size] -= 1
    return kinds


def gradient_sizes(held: Sequence[Held], course: Course, last: int) -> list[int]:
    """Sizes of gradients that outlived their backward pass, at a moment after event `last`."""
    return [
        block.requested_bytes
        for block in held
        if block.origin.phase == "backward" and course.pass_of(block.born) < course.pass_of(last) + 1
    ]
