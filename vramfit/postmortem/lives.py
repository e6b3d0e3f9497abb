"""How long every block of a recording lived, up to the moment that is explained."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vramfit.postmortem.course import Course
from vramfit.postmortem.recording import Held, Recording
from vramfit.postmortem.stacks import Line, Origin, Phase

# What is still held after so many turns, and comes back in each of them, piles up.
_FEWEST_TURNS = 3
_LONGEST_GAP = 3

Site = tuple[Line | None, Line | None, str, Phase]


@dataclass(frozen=True, slots=True)
class Life:
    """A block that the recording made: `died` is the event that freed it, None where it is still held."""

    born: int
    died: int | None
    size_bytes: int
    origin: Origin
    died_in: Phase | None = None  # what ran when it was freed


def lives_of(recording: Recording, until: int | None = None) -> list[Life]:
    """Every block that was made before an event, or in all the recording, in order of birth."""
    lives: list[Life] = []
    place: dict[int, int] = {}
    phase: Phase = "script"
    for number, event in enumerate(recording.snapshot.events[:until]):
        origin = recording.origins[number]
        if origin is not None:
            phase = phase if origin.workspace else origin.phase
            place[event.address] = len(lives)
            lives.append(Life(number, None, event.size, origin))
        elif event.action == "free_requested" and event.address in place:
            at = place.pop(event.address)
            before = lives[at]
            lives[at] = Life(before.born, number, before.size_bytes, before.origin, phase)
    return lives


@dataclass(frozen=True)
class Pile:
    """Blocks of one line that are held since earlier turns, one or more a turn."""

    origin: Origin
    blocks: tuple[Held, ...]
    turns: int

    @property
    def each_turn(self) -> float:
        """How many of its blocks each turn left."""
        return len(self.blocks) / self.turns

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return sum(block.size_bytes for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Retention:
    """What a pass of forward calls left when it came to its end: blocks, and their share of all that it made."""

    blocks: int
    share: float


def retentions(lives: Sequence[Life], course: Course) -> dict[int, Retention]:
    """For each pass what it left behind, by its number: little under no_grad, a graph where gradients are on."""
    made: dict[int, list[Life]] = defaultdict(list)
    for life in lives:
        if life.origin.phase == "forward" and not life.origin.workspace:
            made[course.pass_of(life.born)].append(life)
    return {number: _retention(blocks) for number, blocks in made.items()}


def _retention(made: Sequence[Life]) -> Retention:
    end = made[-1].born
    left = [life for life in made if life.died is None or life.died > end]
    return Retention(len(left), sum(one.size_bytes for one in left) / sum(one.size_bytes for one in made))


def piles_of(held: Sequence[Held], lives: Sequence[Life], course: Course, position: int) -> list[Pile]:
    """Lines whose tensors stay for good, the largest pile first.

    A queue of fixed length is none: what it held of earlier turns was freed turn by turn. `lives` and `course` are of
    the whole recording, for it may show so only later.
    """
    now = course.pass_of(position)
    sites: dict[Site, list[Held]] = defaultdict(list)
    for block in held:
        if block.born >= 0 and block.origin.phase in ("forward", "script") and not block.origin.workspace:
            sites[_site(block.origin)].append(block)
    aged = _freed_late(lives, course)
    piles = []
    for site, blocks in sites.items():
        turns = sorted({course.pass_of(block.born) for block in blocks} - {now})
        if _is_regular(turns, now) and len(aged[site]) <= len(turns) / 2:
            piles.append(Pile(blocks[0].origin, tuple(blocks), len(turns)))
    return sorted(piles, key=lambda pile: -pile.size_bytes)


def _site(origin: Origin) -> Site:
    return origin.line, origin.caller, origin.layer, origin.phase


def _freed_late(lives: Sequence[Life], course: Course) -> dict[Site, set[int]]:
    """By line, the turns in which blocks were freed that are at least two turns old."""
    late: dict[Site, set[int]] = defaultdict(set)
    for life in lives:
        if life.died is not None and course.pass_of(life.died) - course.pass_of(life.born) >= 2:
            late[_site(life.origin)].add(course.pass_of(life.died))
    return late


def _is_regular(turns: Sequence[int], now: int) -> bool:
    if len(turns) < _FEWEST_TURNS:
        return False
    gaps = sorted(after - before for before, after in pairwise(turns))
    usual = max(1, gaps[len(gaps) // 2])
    return gaps[-1] <= _LONGEST_GAP * usual and now - turns[-1] <= _LONGEST_GAP * usual
