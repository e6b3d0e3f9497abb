"""Parts of a network that learn more slowly than the rest, or not at all.

A frozen part keeps its weights, and its batch normalisation the statistics that it came with: it computes as in
evaluation. Nothing before the first part that learns needs a gradient, so autograd keeps none of its activations.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from vramfit.errors import UsageError


def freeze(model: nn.Module, names: Iterable[str]) -> None:
    """Keep these modules' parameters from learning.

    Raises:
        UsageError: no such module.

    """
    for name in names:
        _module(model, name).requires_grad_(False)


def train_mode(model: nn.Module, frozen: Iterable[str]) -> None:
    """The network in training mode, all but its frozen modules."""
    model.train()
    for name in frozen:
        model.get_submodule(name).eval()


def scale_rates(optimizer: torch.optim.Optimizer, model: nn.Module, scales: Mapping[str, float]) -> None:
    """Multiply the learning rate of these modules' parameters; call it before the first step.

    A group of the optimizer becomes one for each of its factors.

    Raises:
        UsageError: no such module.

    """
    factors = {id(weight): scale for name, scale in scales.items() for weight in _module(model, name).parameters()}
    if factors:
        optimizer.param_groups[:] = [part for group in optimizer.param_groups for part in _parts(group, factors)]


def _parts(group: dict[str, Any], factors: Mapping[int, float]) -> Iterator[dict[str, Any]]:
    of_each = [factors.get(id(weight), 1.0) for weight in group["params"]]
    for factor in sorted(set(of_each)):
        weights = [weight for weight, its in zip(group["params"], of_each, strict=True) if its == factor]
        yield {**group, "params": weights, "lr": group["lr"] * factor}


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(child for child, _ in model.named_children())
        raise UsageError(f"The network has no module '{name}' to freeze or slow down; it has {known}.") from None


def adamw(parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Fused AdamW: no extra copy of the parameters, no wait for the scaler. Biases and norms do not decay."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = all(p.device.type != "meta" for p in parameters)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=fused)
