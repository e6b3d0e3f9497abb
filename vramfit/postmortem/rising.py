"""Tells a line that rises for good from one that moves: the lows of ever longer windows of steps."""

from collections.abc import Sequence
from itertools import pairwise

_WINDOW = 4  # steps, at first
_MOST_WINDOWS = 24
_RISING_WINDOWS = 8
# A rise counts in a window if it is this part of the usual one.
_EVENNESS = 0.2


class RisingLine:
    """A figure after steps. Old windows are joined in pairs, so that slow rises show in long runs.

    `floor` is the least rise over the windows that are compared, in the figure's unit.
    """

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._lows: list[float] = []
        self._ends: list[int] = []  # the step with which each window ended
        self._window = _WINDOW
        self._low: float | None = None
        self._seen = 0

    def add(self, value: float, step: int) -> None:
        """The figure after a step, of those that are read."""
        self._low = value if self._low is None else min(self._low, value)
        self._seen += 1
        if self._seen >= self._window:
            self._lows.append(self._low)
            self._ends.append(step)
            self._low, self._seen = None, 0
            self._join()

    @property
    def is_rising(self) -> bool:
        """Whether each of the last windows lies above the one before, evenly, and the rise is large enough."""
        rises = self._rises()
        if len(rises) < _RISING_WINDOWS - 1 or sum(rises) < self._floor:
            return False
        return min(rises) > 0 and min(rises) >= _EVENNESS * sorted(rises)[len(rises) // 2]

    @property
    def each_step(self) -> float:
        """The rise of one step, over the windows that are compared."""
        ends = self._ends[-_RISING_WINDOWS:]
        return sum(self._rises()) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0

    def _rises(self) -> Sequence[float]:
        lows = self._lows[-_RISING_WINDOWS:]
        return [after - before for before, after in pairwise(lows)]

    def _join(self) -> None:
        if len(self._lows) == _MOST_WINDOWS:
            self._lows = [min(self._lows[at : at + 2]) for at in range(0, _MOST_WINDOWS, 2)]
            self._ends = self._ends[1::2]
            self._window *= 2
