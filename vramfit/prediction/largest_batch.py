"""The search for the largest micro-batch that is predicted to fit: where to trace next, and when an answer is proven.

An answer is a micro-batch that was traced itself. The curve through earlier traces only says where to trace next, and
that the size above does not fit. Where a job refuses a size (an odd one, one too small) its multiples are kept to.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd, isqrt
from typing import Protocol

from vramfit.errors import NotTraceable
from vramfit.prediction.trace_series import depends_on_size
from vramfit.records import Trial, Verdict

# Sizes to begin with. Not 1 at first: BatchNorm refuses a single value a channel, and shapes of one are often special.
# The others are for jobs that want even, larger or particular batches: 24 and 120 have the most divisors.
FIRST_SIZES = (2, 24, 1, 120, 256)
# A size may take so much more than a straight line says, for memory is taken in segments.
_ABOVE_LINE = 1.05
# After so many traces the curve has not led to the answer, and halving takes over.
_PATIENCE = 8


class Foretelling(Protocol):
    """What can be said of a micro-batch."""

    def proven(self, micro_batch: int) -> Trial:
        """The trial by a trace of that micro-batch; raises NotTraceable where the job refuses it."""

    def foretold(self, micro_batch: int) -> Trial | None:
        """The trial by the curve through earlier traces, None where there is none."""


@dataclass
class LargestBatch:
    """One search under way: `low` fits, `high` does not; sizes are multiples of `stride`.

    The second trace is made at `reach` times where the first leads; beyond the answer it covers that for other cards.
    """

    predictor: Foretelling
    budget_bytes: int
    high: int
    low: int = 0
    stride: int = 1
    reach: float = 1.0
    proven: dict[int, Trial] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)

    def answer(self) -> int:
        """The largest micro-batch below `high` that fits; 0 if none does.

        Raises:
            NotTraceable: the step cannot be traced at any size.

        """
        self.judge(self._first())
        while (size := self._next()) is not None:
            try:
                self.judge(self.predictor.proven(size))
            except NotTraceable:
                self._refuse(size)
        return self.low

    def _first(self) -> Trial:
        """The trial of the first size that the job accepts."""
        failures: list[NotTraceable] = []
        for size in dict.fromkeys(min(size, self.high - 1) for size in FIRST_SIZES):
            try:
                return self.predictor.proven(size)
            except NotTraceable as error:
                failures.append(error)
                self.refused.append(size)
                if not depends_on_size(error):
                    break
        raise failures[0]

    def judge(self, trial: Trial) -> None:
        """Take in a trial that says of its micro-batch whether it fits."""
        self.proven[trial.micro_batch] = trial
        if trial.verdict is Verdict.FITS:
            self.low = max(self.low, trial.micro_batch)
        else:
            self.high = min(self.high, trial.micro_batch)

    def _refuse(self, size: int) -> None:
        """Keep to multiples of what divides every size that was accepted, and none that was refused."""
        self.refused.append(size)
        common = gcd(*self.proven)
        strides = [step for step in range(1, common + 1) if common % step == 0]
        self.stride = next((step for step in strides if all(bad % step for bad in self.refused)), self.high)

    def _next(self) -> int | None:
        above = self._up(self.low + 1)
        if above >= self.high or self._is_above(above):
            return None
        size = self._guess() if len(self.proven) < _PATIENCE else self._middle()
        return max(above, min(self._down(self.high - 1), self._down(size)))

    def _is_above(self, size: int) -> bool:
        """Whether the curve says that a size above a proven one does not fit, and can be right.

        A curve through sizes far apart may say anything in between. Memory bends upwards with the size, so what lies
        above the straight line between a proven size that fits and one that does not is the curve's fault.
        """
        foretold = self.predictor.foretold(size) if self.low else None
        if foretold is None or foretold.verdict is Verdict.FITS:
            return False
        if self.high not in self.proven:
            return True
        least, most = _most(self.proven[self.low]), _most(self.proven[self.high])
        line = least + (most - least) * (size - self.low) / (self.high - self.low)
        return _most(foretold) <= line * _ABOVE_LINE

    def _guess(self) -> int:
        """Where the curve meets the budget; without one, where a line through what every sample adds does."""
        near = self._where_used_meets_budget()
        if self.predictor.foretold(self._up(self.low + 1)) is None:
            return int(self.reach * near)
        return gallop(self._seems_to_fit, self.low, self.high, near)

    def _seems_to_fit(self, size: int) -> bool:
        foretold = self.predictor.foretold(size)
        return foretold is not None and foretold.verdict is Verdict.FITS

    def _where_used_meets_budget(self) -> int:
        sizes = sorted(self.proven)[-2:]
        used = [_most(self.proven[size]) for size in sizes]
        each = (used[-1] - used[0]) / (sizes[-1] - sizes[0]) if len(sizes) > 1 else _grown(self.proven[sizes[0]])
        if each <= 0:
            return self.high - 1
        return int(min(self.high - 1.0, max(1.0, sizes[-1] + (self.budget_bytes - used[-1]) / each)))

    def _middle(self) -> int:
        return isqrt(max(1, self.low) * self.high) if self.high > 4 * max(1, self.low) else (self.low + self.high) // 2

    def _down(self, size: int) -> int:
        return size // self.stride * self.stride

    def _up(self, size: int) -> int:
        return -(-size // self.stride) * self.stride


def gallop(holds: Callable[[int], bool], low: int, high: int, guess: int) -> int:
    """The largest whole number between for which `holds` does: it does at `low`, not at `high`, and changes once."""
    size, step = max(low + 1, min(high - 1, guess)), 1
    while high - low > 1:
        low, high = (size, high) if holds(size) else (low, size)
        size = low + step if size == low else high - step
        step *= 2
        if not low < size < high:
            size = (low + high) // 2
    return low


def _most(trial: Trial) -> int:
    band = trial.device_used_band_bytes
    return band[1] if band else trial.device_used_bytes or 0


def _grown(trial: Trial) -> float:
    """Bytes a sample, from one trial: as if all of what it allocates beyond the context were the samples'."""
    return (_most(trial) - (trial.context_bytes or 0)) / trial.micro_batch
