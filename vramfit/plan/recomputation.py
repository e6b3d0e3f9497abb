"""Which parts of a network to recompute so that a step fits a budget at the least added time.

A step holds, at any moment, what the plain step holds less what the recomputed parts before that moment have saved. The
parts of a network run in order and go back in reverse order, so the moments fall into windows: in the window of part i
the parts before i save, and no other. A selection fits when every window fits.

The search keeps, after each part, every pair (bytes saved, time added) that no other pair beats in both. That is exact,
but for one thing: pairs closer in time than `tolerance_s / parts` are merged, the one that saves more staying. So a
selection takes at most `tolerance_s` longer than the best one, and never more memory than the budget.
Sizes in bytes, times in seconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Selection = Mapping[str, str]
_ROOT = -1


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to recompute a part.

    `limit_bytes` is the most that the part's window would hold with it, if no part before saved anything.
    """

    setting: str
    saved_bytes: int
    added_s: float
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Parts in the order in which they run; `last_bytes` is what the moments after all of them hold."""

    parts: tuple["Part", ...]
    last_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a network that may be recomputed as a whole, or, if it has an `inner` layout, in parts.

    `plain_bytes` is the most that its window holds when nothing is saved.
    """

    name: str
    plain_bytes: int
    choices: tuple[Choice, ...]
    inner: Layout | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A selection, module name to setting, with the bytes that its parts save and the time that they add."""

    selection: Selection
    saved_bytes: int
    added_s: float
    peak_bytes: int


def choose_parts(layout: Layout, budget_bytes: int, *, tolerance_s: float = 0.0) -> Chosen | None:
    """The selection that fits the budget and adds the least time, to within the tolerance; None if none fits."""
    history = _History()
    step_s = tolerance_s / max(1, sum(1 for _ in _leaves(layout)))
    states = _run(layout, _States.start(), _Search(budget_bytes, step_s, history))
    if len(states.saved) == 0:
        return None
    best = int(np.lexsort((-states.saved, states.added))[0])
    selection = history.selection(int(states.node[best]))
    return judge(layout, selection)


def judge(layout: Layout, selection: Selection) -> Chosen:
    """What a selection saves and costs, and its peak."""
    saved, added, peak = _judge(layout, selection, 0)
    return Chosen(dict(selection), saved, added, max(peak, 0))


def smallest_budget(layout: Layout) -> int:
    """The least bytes that any selection fits."""
    low, high = 0, judge(layout, {}).peak_bytes
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _most_saved(layout, 0, middle) is not None else (middle + 1, high)
    return low


def uniform(layout: Layout, setting: str) -> Selection:
    """The selection that treats all alike: `selective` or `module` for the outermost parts, `block` for the innermost.

    A part of which the setting is not possible is left plain; outside modules `module` means the block.
    """
    chosen: dict[str, str] = {}
    for part in layout.parts:
        if setting == "block" and part.inner is not None:
            chosen |= uniform(part.inner, setting)
            continue
        wanted = ("selective",) if setting == "selective" else ("module", "block")
        found = next((choice.setting for choice in part.choices if choice.setting in wanted), None)
        if found is not None:
            chosen[part.name] = found
    return chosen


def _leaves(layout: Layout) -> Iterator[Part]:
    for part in layout.parts:
        yield part
        if part.inner is not None:
            yield from _leaves(part.inner)


def _judge(layout: Layout, selection: Selection, saved: int) -> tuple[int, float, int]:
    added, peak = 0.0, 0
    for part in layout.parts:
        choice = next((choice for choice in part.choices if choice.setting == selection.get(part.name)), None)
        if choice is not None:
            more, seconds, held = saved + choice.saved_bytes, choice.added_s, choice.limit_bytes - saved
        elif part.inner is not None:
            more, seconds, held = _judge(part.inner, selection, saved)
        else:
            more, seconds, held = saved, 0.0, part.plain_bytes - saved
        saved, added, peak = more, added + seconds, max(peak, held)
    return saved, added, max(peak, layout.last_bytes - saved)


def _most_saved(layout: Layout, saved: int, budget_bytes: int) -> int | None:
    """The most that can be saved by the end within a budget; more saved earlier is never worse."""
    for part in layout.parts:
        reached = [saved + choice.saved_bytes for choice in part.choices if choice.limit_bytes - saved <= budget_bytes]
        if part.inner is not None:
            inner = _most_saved(part.inner, saved, budget_bytes)
            reached += [] if inner is None else [inner]
        elif part.plain_bytes - saved <= budget_bytes:
            reached.append(saved)
        if not reached:
            return None
        saved = max(reached)
    return saved if layout.last_bytes - saved <= budget_bytes else None


@dataclass(slots=True)
class _History:
    """Every choice ever made, each with the one before it, as arrays that grow by chunks."""

    before: list[NDArray[np.int64]] = field(default_factory=list)
    options: list[tuple[str, str]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    size: int = 0

    def add(self, nodes: NDArray[np.int64], name: str, setting: str) -> NDArray[np.int64]:
        """Nodes for one choice made after each of the given nodes."""
        self.starts.append(self.size)
        self.before.append(nodes)
        self.options.append((name, setting))
        self.size += len(nodes)
        return np.arange(self.size - len(nodes), self.size, dtype=np.int64)

    def selection(self, node: int) -> dict[str, str]:
        """The choices that led to a node."""
        chosen = []
        while node != _ROOT:
            chunk = int(np.searchsorted(self.starts, node, side="right")) - 1
            chosen.append(self.options[chunk])
            node = int(self.before[chunk][node - self.starts[chunk]])
        return dict(reversed(chosen))


@dataclass(frozen=True, slots=True)
class _States:
    """Pairs (bytes saved, time added) that can be reached, and the choices that lead to each."""

    saved: NDArray[np.int64]
    added: NDArray[np.float64]
    node: NDArray[np.int64]

    @classmethod
    def start(cls) -> "_States":
        return cls(np.zeros(1, np.int64), np.zeros(1), np.full(1, _ROOT, np.int64))

    @classmethod
    def join(cls, several: list["_States"]) -> "_States":
        return cls(
            np.concatenate([states.saved for states in several]),
            np.concatenate([states.added for states in several]),
            np.concatenate([states.node for states in several]),
        )

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "_States":
        return _States(self.saved[which], self.added[which], self.node[which])

    def best(self, step_s: float) -> "_States":
        """Those that no other beats in both; of those within one step of time the one that saves most."""
        ordered = self.take(np.lexsort((-self.saved, self.added)))
        if len(ordered.saved) < 2:
            return ordered
        most_before = np.maximum.accumulate(ordered.saved)[:-1]
        front = ordered.take(np.concatenate([[True], ordered.saved[1:] > most_before]))
        if step_s <= 0:
            return front
        bucket = np.floor(front.added / step_s)
        return front.take(np.concatenate([bucket[1:] != bucket[:-1], [True]]))


@dataclass(frozen=True, slots=True)
class _Search:
    budget_bytes: int
    step_s: float
    history: _History

    def choose(self, states: _States, part: Part, choice: Choice) -> _States:
        """The states after a choice, from those whose savings make room for it."""
        able = states.take(states.saved >= choice.limit_bytes - self.budget_bytes)
        node = self.history.add(able.node, part.name, choice.setting)
        return _States(able.saved + choice.saved_bytes, able.added + choice.added_s, node)


def _run(layout: Layout, states: _States, search: _Search) -> _States:
    for part in layout.parts:
        after = [search.choose(states, part, choice) for choice in part.choices]
        if part.inner is not None:
            after.append(_run(part.inner, states, search))
        else:
            after.append(states.take(states.saved >= part.plain_bytes - search.budget_bytes))
        states = _States.join(after).best(search.step_s)
    return states.take(states.saved >= layout.last_bytes - search.budget_bytes)
