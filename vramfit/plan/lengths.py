"""Lengths that vary from sample to sample, and the few that batches are proven at.

A length is a tuple of whole numbers: (tokens,), (points,), (frames,) or (height, width). One covers another where it is
at least as long along each of its numbers: samples that it covers can be padded to it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, prod
from operator import index
from pathlib import Path
from typing import Any

from vramfit.errors import DataError, UsageError

Length = tuple[int, ...]
# Candidates for a bucket's end in one dimension: more change its padding by less than a percent.
_CANDIDATES = 160
_SEPARATOR = re.compile(r"[,\s]+")
_RANGE = re.compile(r"(\d+):(\d+)(?::(\d+))?")


@dataclass(frozen=True)
class Lengths:
    """How many samples have each length; `counted` where the samples of a data set were counted."""

    counts: Mapping[Length, int]
    counted: bool = True

    @property
    def samples(self) -> int:
        """All samples."""
        return sum(self.counts.values())

    @property
    def longest(self) -> Length:
        """The length that covers all: the largest of each number."""
        return tuple(map(max, zip(*self.counts, strict=True)))

    @classmethod
    def of(cls, lengths: Iterable[Any]) -> "Lengths":
        """The lengths of samples, as numbers or as (height, width).

        Raises:
            DataError: none, one below 1 or no whole number, or numbers beside pairs.

        """
        counts = Counter(map(as_length, lengths))
        if not counts:
            raise DataError("lengths holds no length; give one for each sample.")
        if len({len(one) for one in counts}) > 1:
            raise DataError("lengths holds single numbers beside (height, width); give one kind.")
        if min(map(min, counts)) < 1:
            at = next(one for one in counts if min(one) < 1)
            raise DataError(f"lengths holds {name_of(at)}; a sample is at least 1 long: leave empty samples out.")
        return cls(counts)


def read_lengths(text: str) -> Lengths:
    """Lengths from `16:512` (each alike, `16:512:8` in steps of 8), or from a file of one length a line.

    A file's length is the first column of each line, with commas, spaces or tabs between them: `384`, or `480x640` for
    height and width. A first line of words is a heading.

    Raises:
        UsageError: neither a range nor a file.
        DataError: a line that is no length; names it.

    """
    match = _RANGE.fullmatch(text.strip())
    if match is not None:
        low, high, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if not 1 <= low <= high or step < 1:
            raise UsageError(f"--lengths {text} is no range; write the shortest and the longest, such as 16:512.")
        return Lengths(dict.fromkeys(((one,) for one in [*range(low, high, step), high]), 1), counted=False)
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"--lengths '{text}' is neither a range such as 16:512 nor a file; give a file of lengths.")
    return Lengths.of(_lines(path))


def choose_lengths(lengths: Lengths, most: int, multiple: int = 1) -> tuple[Length, ...]:
    """The lengths to prove batches at, in ascending order; the last covers all, and each is a multiple of `multiple`.

    In one dimension they are those that make padding least: samples are padded to the next of them at most. In two they
    are the occupied cells of the finest grid that has few enough.

    Raises:
        UsageError: fewer than one, or no multiple.

    """
    if most < 1 or multiple < 1:
        raise UsageError(f"buckets is {most} and multiple {multiple}; use 1 or more of each.")
    rounded: Counter[Length] = Counter()
    for length, count in lengths.counts.items():
        rounded[_rounded(length, multiple)] += count
    if len(lengths.longest) == 1:
        return _least_padding({one[0]: count for one, count in rounded.items()}, most)
    return _occupied_cells(rounded, most, multiple)


def covers(longer: Length, length: Length) -> bool:
    """Whether a sample of one length can be padded to another."""
    return len(longer) == len(length) and all(one >= other for one, other in zip(longer, length, strict=True))


def as_length(given: Any) -> Length:
    """A whole number, of Python, NumPy or a tensor, or several such as (height, width), as a length.

    Raises:
        DataError: it is neither.

    """
    with suppress(TypeError):
        return (index(given),)
    with suppress(TypeError):
        return tuple(map(index, given))
    raise DataError(f"lengths holds {given!r}, which is no length; give whole numbers or (height, width).")


def name_of(length: Length) -> str:
    """A length as people write it: `512`, or `480x640`."""
    return "x".join(map(str, length))


def parse_length(text: str) -> Length:
    """`512` or `480x640` as a length.

    Raises:
        ValueError: it is neither.

    """
    return tuple(int(part) for part in text.strip().lower().split("x"))


def _lines(path: Path) -> list[Length]:
    found, is_first = [], True
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        column = _SEPARATOR.split(line.strip(), maxsplit=1)[0].strip("\"'")
        if not column:
            continue
        try:
            found.append(parse_length(column))
        except ValueError:
            if not is_first:  # the first may be a heading
                raise DataError(f"{path}:{number}: '{column}' is no length; write 384, or 480x640.") from None
        is_first = False
    return found


def _rounded(length: Length, multiple: int) -> Length:
    return tuple(ceil(one / multiple) * multiple for one in length)


def _least_padding(counts: Mapping[int, int], most: int) -> tuple[Length, ...]:
    """The ends of at most so many buckets with the least padding in all: a shortest path over candidate ends."""
    ends = _thinned(counts)
    below = [sum(count for one, count in counts.items() if one <= end) for end in ends]
    # cost[j]: padded tokens of the samples up to end j, with as many buckets as rounds have passed
    cost = [end * count for end, count in zip(ends, below, strict=True)]
    chosen: list[list[int]] = [[place] for place in range(len(ends))]
    for _ in range(min(most, len(ends)) - 1):
        steps = [
            min((cost[i] + ends[j] * (below[j] - below[i]), i) for i in range(j)) if j else (cost[0], -1)
            for j in range(len(ends))
        ]
        better = [step < cost[j] for j, (step, _) in enumerate(steps)]
        chosen = [[*chosen[i], j] if better[j] else chosen[j] for j, (_, i) in enumerate(steps)]
        cost = [min(step, cost[j]) for j, (step, _) in enumerate(steps)]
    return tuple((ends[place],) for place in chosen[-1])


def _thinned(counts: Mapping[int, int]) -> list[int]:
    """Lengths in ascending order, at most so many: those at even shares of all tokens, and the longest."""
    lengths = sorted(counts)
    if len(lengths) <= _CANDIDATES:
        return lengths
    tokens = list(accumulate(one * counts[one] for one in lengths))
    shares = [(place + 1) / _CANDIDATES * tokens[-1] for place in range(_CANDIDATES)]
    kept, place = set(), 0
    for share in shares:
        while tokens[place] < share and place < len(lengths) - 1:
            place += 1
        kept.add(lengths[place])
    return sorted({*kept, lengths[-1]})


def _occupied_cells(counts: Mapping[Length, int], most: int, multiple: int) -> tuple[Length, ...]:
    """The upper corners of the cells that hold samples, and the one that covers all."""
    longest = tuple(map(max, zip(*counts, strict=True)))
    step = multiple
    while True:
        cells = {tuple(min(a, b) for a, b in zip(_rounded(one, step), longest, strict=True)) for one in counts}
        cells.add(longest)
        if len(cells) <= most or len(cells) == 1:
            return tuple(sorted(cells, key=lambda cell: (prod(cell), cell)))
        if step > max(longest):
            return (longest,)
        step += multiple
