"""Threads of a watched script, such as one that brings batches ahead: what they do is seen as what the main one does.

Torch keeps its modes for each thread apart; a thread that the script starts is given those in which the script runs.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from vramfit.prediction.tracing.swapping import swap


@contextmanager
def threads_in_modes() -> Iterator[None]:
    """Within it, a thread that is started runs in the modes that are active now."""
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    start = threading.Thread.start

    def within(run: Callable[[], None]) -> Callable[[], None]:
        def ran() -> None:
            with ExitStack() as entered:
                for mode in modes:
                    entered.enter_context(mode)
                run()

        return ran

    def started(thread: threading.Thread) -> None:
        thread.run = within(thread.run)  # type: ignore[method-assign]
        start(thread)

    with ExitStack() as stack:
        swap(stack, threading.Thread, "start", started)
        yield
