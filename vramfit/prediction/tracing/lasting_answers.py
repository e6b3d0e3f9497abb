"""Whether there is a card: a step that is traced hears that there is one, and what outlives the trace does not.

A module that is imported while a trace runs keeps what it found, and so does a cached function; both stay in a process
that may train on its CPU next.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import torch

from vramfit.prediction.tracing.swapping import swap

_IMPORTING = "<frozen importlib._bootstrap>"
_TRACE = f"{__package__}.trace"
_QUESTIONS = (
    *((torch.cuda, name) for name in ("is_available", "device_count")),
    *((torch.accelerator, name) for name in ("is_available", "device_count", "current_accelerator")),
)
Answer = Callable[..., Any]


class LastingAnswers:
    """The machine's own answers, for what lasts longer than a trace; to be made before a card is emulated."""

    def __init__(self) -> None:
        self._true: dict[str, Answer] = {_key(owner, name): getattr(owner, name) for owner, name in _QUESTIONS}
        self._caches: dict[int, Any] = {}

    @contextmanager
    def kept_true(self) -> Iterator[None]:
        """Within it, modules under import hear the truth; afterwards, cached functions that asked forget the answer."""
        with ExitStack() as stack:
            stack.callback(self._forget)
            for owner, name in _QUESTIONS:
                swap(stack, owner, name, self._of(self._true[_key(owner, name)], getattr(owner, name)))
            yield

    def _of(self, true: Answer, emulated: Answer) -> Answer:
        def answer(*args: Any, **kwargs: Any) -> Any:
            return (true if self._outlives() else emulated)(*args, **kwargs)

        return answer

    def _outlives(self) -> bool:
        """Whether a module asks that is being imported; notes the cached functions on the way."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_globals.get("__name__") != _TRACE:
            if frame.f_code.co_filename == _IMPORTING:
                return True
            function = frame.f_globals.get(frame.f_code.co_name)
            if hasattr(function, "cache_clear"):
                self._caches[id(function)] = function
            frame = frame.f_back
        return False

    def _forget(self) -> None:
        for function in self._caches.values():
            function.cache_clear()


def _key(owner: Any, name: str) -> str:
    return f"{owner.__name__}.{name}"
