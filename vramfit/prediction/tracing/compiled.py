"""What torch.compile compiled is traced as it runs without a compiler, and the answer says so.

A compiler fuses what a trace sees operation by operation, and chooses itself what the backward pass works out again;
both are known only once it has run on the card.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from vramfit.prediction.tracing.swapping import swap

UNCOMPILED = "what torch.compile compiled is predicted as it runs uncompiled"


@contextmanager
def compiled_runs_eagerly(note: Callable[[str], None]) -> Iterator[None]:
    """Within it nothing is compiled, and `note` is told at each call of a compiled network or function."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # imported by whoever called torch.compile
    with ExitStack() as stack:
        if dynamo is not None:
            swap(stack, dynamo, "_callback_from_stance", partial(_eager, note))
        yield


def _eager(note: Callable[[str], None], callback: Any) -> None:
    """No compiler for what is called; a callback that is none belongs to what asked not to be compiled."""
    if callback not in (None, False):
        note(UNCOMPILED)
