"""The search for the largest micro-batch that fits: which size to try next, given what was tried so far.

Pure: every decision is a function of the search's settings and the sizes tried, so the same history gives the same
step on a card, on a scripted card and in a test. An answer is a size that ran and fitted while the size above it
ran and did not; memory that grows with the batch therefore always gives the optimum, however unevenly it grows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, comb, isqrt

from vramfit.records import Trial, Verdict
from vramfit.units import MIB

# Where an unbounded search stops: no card of today trains on larger micro-batches to any use.
CEILING = 65_536
# A guess is believed to be within this share of the truth; first steps are placed accordingly.
GUESS_ERROR = 0.1
# A line is not drawn further than this many times its largest point.
REACH = 8
# What the allocator's rounding to whole segments may hide, in bytes.
ROUNDING = 2 * MIB
# Two points nearer to each other than this say more about rounding than about the slope, in bytes.
APART = 16 * ROUNDING
# After this many trials interpolation has not converged, and halving takes over.
PATIENCE = 6
# By yes and no alone: sizes that may fail, where the trials below do. One more is a size that fails a second time.
FAILURES = 3
# More trials than these between a size that fits and one that does not are worth another failure.
LADDER = 32


@dataclass(frozen=True)
class Tried:
    """One micro-batch that was run once.

    `used_bytes` is the figure that the budget bounds, in bytes; None where nothing was read or the run broke off.
    """

    micro_batch: int
    verdict: Verdict
    used_bytes: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the whole trial ran within the budget."""
        return self.verdict is Verdict.FITS

    @classmethod
    def of(cls, trial: Trial) -> "Tried":
        """What the search needs of a trial; the figures of one that broke off mean nothing."""
        complete = trial.verdict in (Verdict.FITS, Verdict.OVER_BUDGET)
        return cls(trial.micro_batch, trial.verdict, trial.device_used_bytes if complete else None)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched for.

    Attributes:
        minimum, maximum: the sizes allowed, both included.
        guess: the size that prediction believes in, None without one.
        budget_bytes: what `Tried.used_bytes` must not exceed; with it a line is fitted, without it sizes are halved.
        candidates: a user's list; these alone are tried, in this order, until one fits.
        anchored: try a clearly smaller size too, where a card may grow slow instead of failing: only beside it is an
            answer seen to be slow.

    """

    minimum: int = 1
    maximum: int = CEILING
    guess: int | None = None
    budget_bytes: int | None = None
    candidates: tuple[int, ...] = ()
    anchored: bool = False

    def next_size(self, tried: Sequence[Tried]) -> int | None:
        """The size to try next, None when the search is over."""
        again = _failed_once(tried)
        if again is not None:
            return again
        size = self._next_candidate(tried) if self.candidates else self._next_between(tried)
        return self._anchor(tried) if size is None and self.anchored else size

    def answer(self, tried: Sequence[Tried]) -> int | None:
        """The size that the search found: one that ran and fitted; None if none did."""
        fitting = [one.micro_batch for one in tried if one.fits and self._is_asked(one.micro_batch)]
        if not fitting:
            return None
        return fitting[0] if self.candidates else max(fitting)

    def _is_asked(self, size: int) -> bool:
        return not self.candidates or size in self.candidates

    def _anchor(self, tried: Sequence[Tried]) -> int | None:
        """Half the answer, unless something as small was tried."""
        half = (self.answer(tried) or 0) // 2
        return None if half < self.minimum or any(one.micro_batch <= half for one in tried) else half

    def _next_between(self, tried: Sequence[Tried]) -> int | None:
        if not tried:
            return self._first()
        bracket = self._bracket(tried)
        return None if bracket.closed else self._propose(tried, bracket)

    def _next_candidate(self, tried: Sequence[Tried]) -> int | None:
        if self.answer(tried) is not None:
            return None
        seen = {one.micro_batch for one in tried}
        return next((size for size in self.candidates if size not in seen), None)

    def _first(self) -> int:
        if self.guess is None:
            return self.minimum
        # Just below a good guess costs no OOM, and is a large anchor of a line; one far above has cost one alone.
        least = self._believed[0] if self.budget_bytes is None else int(self.guess * (1 - GUESS_ERROR))
        # An anchor that has to be made anyway is the line's other point.
        return self._clamp(least // 2 if self.anchored else least)

    @property
    def _believed(self) -> tuple[int, int]:
        """The smallest and the largest size whose rounded guess, wrong by at most its error, is the guess."""
        guess = self.guess or 1
        return ceil((guess - 0.5) / (1 + GUESS_ERROR)), int((guess + 0.5) / (1 - GUESS_ERROR))

    def _clamp(self, size: int) -> int:
        return max(self.minimum, min(self.maximum, size))

    def _bracket(self, tried: Sequence[Tried]) -> "Bracket":
        low = max((one.micro_batch for one in tried if one.fits), default=self.minimum - 1)
        high = min((one.micro_batch for one in tried if not one.fits and one.micro_batch > low), default=None)
        return Bracket(low, self.maximum + 1 if high is None else high, met=high is not None)

    def _propose(self, tried: Sequence[Tried], bracket: "Bracket") -> int:
        size = self._from_line(tried, bracket)
        if size is None:
            size = self._from_answers(tried, bracket)
        return bracket.inside(size)

    def _from_line(self, tried: Sequence[Tried], bracket: "Bracket") -> int | None:
        """Where the line through the measured points meets the budget, one step past what is known otherwise."""
        tired = bracket.met and len(tried) >= PATIENCE and len(tried) % 2 == 0
        if self.budget_bytes is None or tired:
            return None
        estimate = _estimate(tried, bracket, self.budget_bytes)
        if estimate is None:
            return None
        return max(self._believable(estimate, bracket.low), bracket.low + _stride([one for one in tried if one.fits]))

    def _believable(self, estimate: int, low: int) -> int:
        """The line's size as far as the guess allows: where the two disagree there is a cliff, or the guess is wrong.

        So go up to the guess, one past it, just beyond its error, and only then to where the line leads.
        """
        if self.guess is None:
            return estimate
        beyond = self._believed[1] + 1
        if estimate <= beyond or low >= beyond:
            return estimate
        if low < self.guess:
            return self.guess
        return low + 1 if low == self.guess else beyond

    def _from_answers(self, tried: Sequence[Tried], bracket: "Bracket") -> int:
        """A size from yes and no alone: few fail below a failure or within the guess's error; beyond it steps grow."""
        low = bracket.low
        if self.budget_bytes is not None:
            return bracket.middle() if bracket.met else 2 * max(1, low)
        left = max(1, FAILURES - len({one.micro_batch for one in tried if not one.fits}))
        if bracket.met:
            return low + climb(bracket.high - low - 1, left, low)
        if self.guess is None:
            return 2 * max(1, low)
        believed = min(self._believed[1], self.maximum) - low
        return low + climb(believed, left, low) if believed > 0 else self.guess + 3 * (low - self.guess)


@dataclass(frozen=True)
class Bracket:
    """The largest size that fits and the smallest above it that does not; `met` if that one was really run."""

    low: int
    high: int
    met: bool

    @property
    def closed(self) -> bool:
        """Whether no size is left between the two."""
        return self.high - self.low <= 1

    def inside(self, size: int) -> int:
        """The nearest size that is not known yet."""
        return max(self.low + 1, min(self.high - 1, size))

    def middle(self) -> int:
        """Half way, by ratio while the two are far apart."""
        if self.high > 4 * max(1, self.low):
            return isqrt(max(1, self.low) * self.high)
        return (self.low + self.high) // 2


def table_sizes(largest: int, maximum: int = CEILING) -> tuple[int, ...]:
    """The rows of a table: 1 to one past the largest that fits, thinned to doublings beyond a dozen."""
    past = min(largest + 1, maximum)
    if past <= 13:
        return tuple(range(1, past + 1))
    doublings = [1 << power for power in range(largest.bit_length())]
    return tuple(sorted({*doublings, largest, past}))


def climb(unknown: int, failures: int, low: int = 0) -> int:
    """How far above `low`, which fits, to try next where so many sizes above it are unknown, to fail few times.

    t trials of which f may fail tell `comb(t, 1) + ... + comb(t, f)` sizes apart (the egg-drop problem). Where that
    needs more than `LADDER` trials, sizes double as long as the first failure is far away, and then more may fail.
    """
    if low and unknown > 3 * low and _told_apart(LADDER, failures) < unknown:
        return low
    if not low and _told_apart(LADDER, failures) < unknown:
        return LADDER
    while _told_apart(LADDER, failures) < unknown:
        failures += 1
    trials = next(number for number in range(1, LADDER + 1) if _told_apart(number, failures) >= unknown)
    return 1 + _told_apart(trials - 1, failures - 1)


def _told_apart(trials: int, failures: int) -> int:
    return sum(comb(trials, number) for number in range(1, failures + 1))


def _failed_once(tried: Sequence[Tried]) -> int | None:
    """A size whose one run was cut short by something else than memory, and so deserves another."""
    if not tried or tried[-1].verdict is not Verdict.FAILED:
        return None
    size = tried[-1].micro_batch
    return size if [one.micro_batch for one in tried].count(size) == 1 else None


def _estimate(tried: Sequence[Tried], bracket: Bracket, budget_bytes: int) -> int | None:
    points = {one.micro_batch: one.used_bytes for one in tried if one.used_bytes is not None}
    used = points.get(bracket.low)
    if not used:
        return None
    room = max(0, budget_bytes - used - ROUNDING)
    for slope in (_slope(points, bracket), used / bracket.low):
        size = bracket.low + int(room / slope) if slope > 0 else bracket.high
        if size < bracket.high or not bracket.met:
            return min(REACH * bracket.low, size)
    return None


def _slope(points: dict[int, int], bracket: Bracket) -> float:
    """Bytes a sample: towards a point over budget if there is one, else from the nearest point well below.

    Without such points the line goes through the origin: fixed memory is never negative, so it does not overshoot.
    """
    low = bracket.low
    if bracket.high in points:
        return (points[bracket.high] - points[low]) / (bracket.high - low)
    below = [size for size in points if size < low and points[low] - points[size] >= APART]
    anchor = max(below, default=0)
    return (points[low] - points.get(anchor, 0)) / (low - anchor)


def _stride(fitting: Sequence[Tried]) -> int:
    """1 while single steps are news; once more of them fitted than rounding hides the line is wrong: 2, 4, 8."""
    gaps = [after.micro_batch - before.micro_batch for before, after in pairwise(fitting)]
    last = fitting[-1]
    hidden = ceil(ROUNDING * last.micro_batch / last.used_bytes) if last.used_bytes else 0
    doublings = len(gaps)
    while doublings and gaps[-doublings - 2 - hidden :] != [1] * (2 + hidden) + [1 << n for n in range(doublings)]:
        doublings -= 1
    return 1 << doublings
