"""What findings rest on, and what one says. Sizes in bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vramfit.postmortem.course import Course
from vramfit.postmortem.kinds import MemoryKind
from vramfit.postmortem.lives import Life, Pile
from vramfit.postmortem.outside import Outside
from vramfit.postmortem.recording import Held, Moment
from vramfit.postmortem.stacks import Line
from vramfit.postmortem.words import share
from vramfit.records import Bytes, Record

Cause = Literal[
    "kept graph",
    "growing list",
    "forgotten no_grad",
    "other processes",
    "fragmentation",
    "second network",
    "copy of the network",
    "second optimizer",
    "first optimizer step",
    "one large tensor",
    "largest kind",
]
# Less than this share of what is allocated is no cause of its own.
LARGE_SHARE = 0.08


class Finding(Record):
    """One reason, what would be free without it, and the sentence that says so."""

    cause: Cause
    size_bytes: Bytes
    sentence: str
    line: str | None = None


@dataclass(frozen=True)
class Case:
    """All that findings rest on.

    `evaluating` are lines whose passes keep a graph for no backward pass; `pages_are_enough` is whether expandable
    segments serve the refused request, replayed, None where that is not known.
    """

    moment: Moment
    kinds: Sequence[MemoryKind]
    course: Course
    lives: Sequence[Life]
    piles: Sequence[Pile]
    outside: Outside
    evaluating: frozenset[Line]
    pages_are_enough: bool | None

    @property
    def held(self) -> Sequence[Held]:
        """The blocks in use."""
        return self.moment.held

    @property
    def allocated_bytes(self) -> int:
        """What they take, never 0."""
        return max(1, self.moment.allocated_bytes)

    def is_large(self, size_bytes: int) -> bool:
        """Whether so much can be a cause of its own."""
        return size_bytes >= LARGE_SHARE * self.allocated_bytes

    def share_of(self, blocks: Sequence[Held]) -> str:
        """What blocks take, and what of all that is."""
        return share(sum(block.size_bytes for block in blocks), self.allocated_bytes)
