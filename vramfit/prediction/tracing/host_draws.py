"""Single numbers that a step draws at random on the host: at one end of their range, so that a trace is of an extreme.

A step may drop a layer, resize its images or run the network twice by such a number. What draws many at once decides
nothing about memory and is left alone.

Known limitations: a function imported by its own name (`from random import random`) and NumPy's newer generators
(`numpy.random.default_rng()`) are not seen.
"""

import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Real
from typing import Any

from vramfit.prediction.tracing.swapping import swap
from vramfit.prediction.tracing.undecided import Undecided

# After so many draws at one place they are as they come: a loop may draw again until a number is in range.
_MOST_DRAWS = 1024
_BELOW_ONE = math.nextafter(1.0, 0.0)


@contextmanager
def extreme_draws(undecided: Undecided, place: Callable[[], str]) -> Iterator[None]:
    """Within it, single numbers of Python's and NumPy's generators are at an end of their range."""
    numpy = sys.modules.get("numpy")
    drawn: Counter[str] = Counter()
    with ExitStack() as stack:
        owners = [(random, _PYTHON)] + ([(numpy.random, _NUMPY)] if numpy else [])
        for owner, ranges in owners:
            for name, ends in ranges.items():
                swap(stack, owner, name, _replacement(getattr(owner, name), ends, undecided, place, drawn))
        yield


def _replacement(
    original: Callable[..., Any], ends: Callable[..., Any], undecided: Undecided, place: Any, drawn: Counter[str]
) -> Callable[..., Any]:
    def draw(*args: Any, **kwargs: Any) -> Any:
        genuine = original(*args, **kwargs)
        line = place()
        drawn[line] += 1
        found = ends(*args, **kwargs) if drawn[line] <= _MOST_DRAWS else None
        if found is None:
            return genuine
        end = undecided.drawn(line, *found)
        return type(genuine)(end) if _is_numpy_scalar(genuine) else end

    return draw


def _unit() -> tuple[float, float]:
    return 0.0, _BELOW_ONE


def _python_range(start: int, stop: int | None = None, step: int = 1) -> tuple[int, int]:
    numbers = range(start) if stop is None else range(start, stop, step)
    return min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])  # not of all: a seed is one of 2**32


def _of(seq: Any) -> tuple[Any, Any] | None:
    """The least and the greatest of numbers or tuples of numbers that are chosen from; of others the first and last."""
    if isinstance(seq, range):
        return _python_range(seq.start, seq.stop, seq.step)
    items = seq.tolist() if hasattr(seq, "tolist") else seq
    if not isinstance(items, Sequence) or isinstance(items, str):
        return None
    try:
        return (min(items), max(items)) if _are_plain(items) else (items[0], items[-1])
    except TypeError:  # a number beside a tuple
        return items[0], items[-1]


def _are_plain(items: Sequence[Any]) -> bool:
    """Whether they are compared without running an operation, as tensors would."""
    return all(_are_plain(item) if isinstance(item, (tuple, list)) else isinstance(item, Real) for item in items)


def _is_numpy_scalar(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


def _numpy_unit(*size: Any, **named: Any) -> tuple[float, float] | None:
    return None if size or any(value is not None for value in named.values()) else _unit()


def _numpy_uniform(low: Any = 0.0, high: Any = 1.0, size: Any = None) -> tuple[float, float] | None:
    return (low, math.nextafter(high, low)) if _are_numbers(low, high) and size is None else None


def _numpy_whole(low: Any, high: Any = None, size: Any = None, dtype: Any = int) -> tuple[int, int] | None:  # noqa: ARG001
    low, high = (0, low) if high is None else (low, high)
    return (int(low), int(high) - 1) if _are_numbers(low, high) and size is None else None


def _numpy_choice(a: Any, size: Any = None, replace: bool = True, p: Any = None) -> Any:  # noqa: ARG001
    return _of(range(a) if isinstance(a, int) else a) if size is None else None


def _numpy_beta(a: Any, b: Any, size: Any = None) -> tuple[float, float] | None:
    return _unit() if _are_numbers(a, b) and size is None else None


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


# Name of a function: the lowest and the highest of what it may return; None where it draws several.
_PYTHON: dict[str, Callable[..., Any]] = {
    "random": _unit,
    "uniform": lambda a, b: (min(a, b), max(a, b)),
    "randint": lambda a, b: (a, b),
    "randrange": _python_range,
    "choice": _of,
    "betavariate": lambda alpha, beta: _unit(),  # noqa: ARG005  # names that a caller may use
}
_NUMPY: dict[str, Callable[..., Any]] = {
    "rand": _numpy_unit,
    "random": _numpy_unit,
    "random_sample": _numpy_unit,
    "uniform": _numpy_uniform,
    "randint": _numpy_whole,
    "choice": _numpy_choice,
    "beta": _numpy_beta,
}
