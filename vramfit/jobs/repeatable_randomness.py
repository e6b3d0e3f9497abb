"""Random numbers of a trace, or of a sample batch: the same each time, and none of the caller's are used up."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SEED = 0


@contextmanager
def repeatable_randomness() -> Iterator[None]:
    """Within it torch's, Python's and NumPy's generators begin at one seed; afterwards they are as they were."""
    numpy = sys.modules.get("numpy")
    drawn = random.getstate(), numpy.random.get_state() if numpy else None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        random.seed(_SEED)
        if numpy:
            numpy.random.seed(_SEED)
        try:
            yield
        finally:
            random.setstate(drawn[0])
            if numpy:
                numpy.random.set_state(drawn[1])
