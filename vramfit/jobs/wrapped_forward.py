"""Something done around the forward of a whole network: the instance stands in for its `forward`."""

import inspect
from contextlib import suppress
from functools import partial
from typing import Any

from torch import nn


class WrappedForward:
    """The forward of a network, or what stands in for it already, with its signature.

    A deep copy of the network copies it along with the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.inner = vars(model).get("forward")
        with suppress(TypeError, ValueError):  # a compiled script says nothing of it
            self.__signature__ = inspect.signature(model.forward)

    def own(self, *args: Any, **kwargs: Any) -> Any:
        """What the network's own forward returns."""
        forward = self.inner or partial(type(self.model).forward, self.model)
        return forward(*args, **kwargs)
