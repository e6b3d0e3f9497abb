"""`@vramfit.fits`: a training function that takes its batch size first, called with the largest that fits.

Takes the place of `accelerate.utils.find_executable_batch_size`, with its `starting_batch_size` too, but not its
`reduce_batch_size_fn`: the search says what is tried. It needs no accelerate.
"""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from vramfit.errors import NothingFits
from vramfit.integrations.first_steps import StateBefore, stopped_after
from vramfit.measure.find import Bounds, OnTrial, Trials, search_sizes
from vramfit.plan.search import Tried

Given = ParamSpec("Given")
Value = TypeVar("Value")
Training = Callable[Concatenate[int, Given], Value]

# Optimizer steps of a trial: state appears in the first, and the second can exceed it.
STEPS = 3
logger = logging.getLogger("vramfit")


@overload
def fits(function: Training[Given, Value], /) -> Callable[Given, Value]: ...
@overload
def fits(
    *,
    start: int = 128,
    starting_batch_size: int | None = None,
    minimum: int = 1,
    maximum: int | None = None,
    multiple_of: int = 1,
    max_trials: int | None = None,
    reserve_bytes: int = 0,
    on_trial: OnTrial = ...,
) -> Callable[[Training[Given, Value]], Callable[Given, Value]]: ...
def fits(
    function: Any = None,
    /,
    *,
    start: int = 128,
    starting_batch_size: int | None = None,
    minimum: int = 1,
    maximum: int | None = None,
    multiple_of: int = 1,
    max_trials: int | None = None,
    reserve_bytes: int = 0,
    on_trial: OnTrial = lambda _: None,
) -> Any:
    """Call a training function with the largest batch size that fits, which it takes as its first argument.

    The first call, with `start`, is the training itself where nothing larger is allowed, and no more happens where it
    fits. Otherwise sizes are tried, each stopped after three optimizer steps, and the function is called once more with
    the largest that fitted; its value is returned. A call that still runs out of memory later goes on with a smaller
    size. One line of the log (`vramfit`) says which batch was taken and why.

    Networks, optimizers, schedulers and scalers among the arguments are put back before each call, as are the random
    states. Under torch.distributed all ranks take the same size.

    Args:
        function: the training; its other arguments are handed on.
        start: the batch size to begin with, a tenth below it where larger ones are allowed.
        starting_batch_size: accelerate's word for `start`, in whose place it is taken where it is given.
        minimum, maximum: the sizes allowed; without a maximum `start` is the largest.
        multiple_of: batch sizes are multiples of it.
        max_trials: the most trials; then the largest size that fitted so far is taken.
        reserve_bytes: what must stay free of a CUDA card, where a trial is stopped.
        on_trial: is told of each call: its `micro_batch` and `verdict`.

    Known limitations:
        A trial sees no validation that comes after its three steps. What the function changes elsewhere, such as files
        and globals, stays changed. A rank that fails within a collective leaves the others waiting in it.

    >>> import torch
    >>> @vramfit.fits(start=64)
    ... def train(batch_size, epochs):  # 37 samples fit
    ...     if batch_size > 37:
    ...         raise torch.OutOfMemoryError("CUDA out of memory.")
    ...     return batch_size, epochs
    >>> train(epochs=3)
    (37, 3)

    Raises:
        NothingFits: `minimum` does not run, or nothing within `max_trials`.
        TypeError: at a call that gives the batch size too.
        UsageError: sizes below 1, or in no order.

    """
    start = start if starting_batch_size is None else starting_batch_size
    bounds = Bounds(minimum, start if maximum is None else maximum, multiple_of, max_trials)
    bounds.check(start)

    def decorate(training: Any) -> Any:
        @functools.wraps(training)
        def train(*given: Any, **named: Any) -> Any:
            _check_call(training, given, named)
            return _Fitting(training, given, named, reserve_bytes, on_trial).run(bounds, start)

        return train

    return decorate if function is None else decorate(function)


class _Fitting:
    """One call of a decorated function: trials of its first steps, then the whole of it."""

    def __init__(
        self,
        training: Callable[..., Any],
        given: tuple[Any, ...],
        named: dict[str, Any],
        reserve_bytes: int,
        on_trial: OnTrial,
    ) -> None:
        self._training, self._given, self._named = training, given, named
        self._state = StateBefore((given, named))
        self._tried: list[Tried] = []
        self._returned: dict[int, Any] = {}  # of the last call that ended by itself, by its size

        def note(tried: Tried) -> None:
            self._tried.append(tried)
            on_trial(tried)

        self._whole = Trials(self._call, None, on_trial=note)
        self._first_steps = Trials(self._begin, None, reserve_bytes, note)
        self._must_try = reserve_bytes > 0

    def run(self, bounds: Bounds, start: int) -> Any:
        """What the function returned with the size that fits."""
        size = bounds.largest
        if start < size or self._must_try or not self._whole(size).fits:
            found = search_sizes(self._first_steps, bounds, start, tuple(self._tried))
            size = self._go_on(found.batch_size, found.reason, bounds)
        return self._returned.pop(size)

    def _go_on(self, size: int, reason: str, bounds: Bounds) -> int:
        """The whole call, with a smaller size where a step later than those tried runs out."""
        name = self._training.__name__
        logger.warning("%s: %s (%d calls)", name, reason.removesuffix("."), len(self._tried))
        while size not in self._returned and not self._whole(size).fits:
            lower = size * 9 // 10 // bounds.multiple_of * bounds.multiple_of
            if lower < bounds.smallest:
                raise NothingFits(f"{name} runs out of memory with a batch of {size}, the smallest; free memory.")
            logger.warning("%s: batch %d: %d ran out of memory after its first steps", name, lower, size)
            size = lower
        return size

    def _call(self, size: int) -> None:
        self._state.put_back()
        self._returned = {size: self._training(size, *self._given, **self._named)}

    def _begin(self, size: int) -> None:
        with stopped_after(STEPS):
            self._call(size)


def _check_call(training: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> None:
    try:
        inspect.signature(training).bind(0, *given, **named)
    except TypeError as error:
        raise TypeError(
            f"{training.__name__} takes its batch size first, and vramfit.fits fills it in; leave it out ({error})."
        ) from None
