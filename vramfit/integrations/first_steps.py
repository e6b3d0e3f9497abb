"""A trial of someone's training: its first optimizer steps, and everything as it was before."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._pytree import tree_leaves

from vramfit.jobs.batch import map_tensors
from vramfit.jobs.random_state import CPU, random_state, set_random_state


class Stopped(BaseException):
    """The end of a trial; no `except Exception` of a training stops it."""


@contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    """End what runs within, without an error, once an optimizer has taken so many steps."""
    taken: Counter[int] = Counter()

    def count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        taken[id(optimizer)] += 1
        if taken[id(optimizer)] == steps:
            raise Stopped

    hook = register_optimizer_step_post_hook(count)
    try:
        yield
    except Stopped:
        pass
    finally:
        hook.remove()


class StateBefore:
    """Networks, optimizers, schedules and scalers among arguments, and the random states, as they were; on the host."""

    def __init__(self, arguments: Any) -> None:
        self._objects = [leaf for leaf in tree_leaves(arguments) if _learns(leaf)]
        self._states = [_copied(one.state_dict()) for one in self._objects]
        self._device = torch.device("cuda") if torch.cuda.is_available() else CPU
        self._random = random_state(self._device)

    def put_back(self) -> None:
        """Load it again, and drop gradients."""
        for one, state in zip(self._objects, self._states, strict=True):
            one.load_state_dict(_copied(state))
            for parameter in one.parameters() if isinstance(one, nn.Module) else ():
                parameter.grad = None
        set_random_state(self._random, self._device)


def _learns(value: Any) -> bool:
    """A network, or what steps: an optimizer, a schedule, a scaler, plain or wrapped by accelerate."""
    return isinstance(value, nn.Module) or all(
        hasattr(value, name) for name in ("step", "state_dict", "load_state_dict")
    )


def _copied(state: Any) -> Any:
    return map_tensors(lambda value: value.detach().to("cpu", copy=True), state)
