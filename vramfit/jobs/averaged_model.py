"""The averaged copy of a network's weights (EMA), which is judged and kept in its place."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn


class AveragedModel:
    """An exponential moving average of a network's weights and buffers, kept in a copy of it.

    average <- d * average + (1 - d) * value with d = min(decay, (1 + steps) / (10 + steps)), so that a short run's
    average is not still its random start: the rule of TensorFlow's ExponentialMovingAverage with `num_updates`.
    `steps` are those that it has followed. Integer buffers are copied. With a `home` the copy lives there, and is on
    the card only while it is evaluated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        self.home: torch.device | None = None

    def live_on(self, home: torch.device) -> None:
        """Keep the copy on a device of its own; it comes to the network's only while it is evaluated."""
        self.home = home
        self.model.to(home)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow the network by one step."""
        followed = _tensors(model) if self.home is None else [value.to(self.home) for value in _tensors(model)]
        pairs = list(zip(_tensors(self.model), followed, strict=True))
        floating = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([mine for mine, _ in floating], [theirs for _, theirs in floating], 1 - decay)
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
        self.steps += 1

    @contextmanager
    def on(self, device: torch.device) -> Iterator[nn.Module]:
        """The averaged network on the device that evaluates it."""
        try:
            yield self.model if self.home is None else self.model.to(device)
        finally:
            if self.home is not None:
                self.model.to(self.home)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*(parameter.detach() for parameter in model.parameters()), *model.buffers()]
