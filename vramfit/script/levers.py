"""Levers on an unchanged script: those that need no line of its source, applied from outside as its objects are made.

The optimizer is made fused where it is built; networks are changed when they are first called to learn, which is after
they are on the card and before there is optimizer state.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from vramfit.allocator_environment import with_options
from vramfit.errors import UsageError
from vramfit.jobs.levers.apply import allocator_options, apply_to_network
from vramfit.jobs.levers.text import parse_levers
from vramfit.prediction.tracing.swapping import swap
from vramfit.records import Lever
from vramfit.script.command import Command

AUTO = "auto"
_OUTSIDE = ("expandable_segments", "fused_optimizer", "half_upsample", "channels_last", "recompute")
_FREE = "expandable_segments,fused_optimizer,half_upsample,channels_last"


def choices_of(text: str) -> tuple[tuple[Lever, ...], ...]:
    """The sets of levers to try in turn: those of `--levers`, or for `auto` the free ones, then recomputation too.

    Raises:
        UsageError: a lever that is unknown, or that only the script's source can pull.

    """
    if text == AUTO:
        return tuple(map(parse_levers, (_FREE, f"{_FREE},recompute=selective", f"{_FREE},recompute=block")))
    levers = parse_levers(text)
    for lever in levers:
        if lever.name not in _OUTSIDE:
            raise UsageError(
                f"{lever.name} needs a change of the script's source; from outside there are {', '.join(_OUTSIDE)}."
            )
    return (levers,)


def allocator_environment(command: Command, environment: Mapping[str, str]) -> str:
    """The allocator's options for a command: of the environment, its own, and its levers'; empty for none."""
    return with_options({**environment, **dict(command.environment)}, allocator_options(command.levers))


class OutsideLevers:
    """Pulls levers as a script goes on, and notes those that changed something."""

    def __init__(self, levers: tuple[Lever, ...]) -> None:
        self._levers = {lever.name: lever for lever in levers}
        self.pulled: list[str] = []
        if "expandable_segments" in self._levers and os.name != "nt":
            self.pulled.append("expandable_segments")

    @contextmanager
    def on_optimizers(self) -> Iterator[None]:
        """Within it, optimizers of torch that have a fused form are made so."""
        with ExitStack() as stack:
            if "fused_optimizer" in self._levers:
                for kind in vars(torch.optim).values():
                    if isinstance(kind, type) and "fused" in inspect.signature(kind).parameters:
                        swap(stack, kind, "__init__", self._fused(vars(kind)["__init__"]))
            yield

    def _fused(self, made: Callable[..., None]) -> Callable[..., None]:
        def init(optimizer: Any, params: Any, *args: Any, **kwargs: Any) -> None:
            chosen = any(kwargs.get(name) for name in ("foreach", "differentiable"))
            if chosen or vars(type(optimizer)).get("__init__") is not init:
                made(optimizer, params, *args, **kwargs)  # a class of the user's own, or a choice of theirs
                return
            made(optimizer, params, *args, **{**kwargs, "fused": True})
            self._note("fused_optimizer")

        return init

    def on_network(self, network: nn.Module) -> None:
        """Change a network that is called to learn for the first time, in its autocast."""
        if torch.is_autocast_enabled("cuda"):
            if "half_upsample" in self._levers and any(isinstance(part, nn.Upsample) for part in network.modules()):
                self._apply(network, "half_upsample")
            if "channels_last" in self._levers and any(part.dim() == 4 for part in network.parameters()):
                network.to(memory_format=torch.channels_last)
                network.register_forward_pre_hook(_in_channels_last, with_kwargs=True)
                self._note("channels_last")
        if "recompute" in self._levers:
            self._apply(network, "recompute")

    def _apply(self, network: nn.Module, name: str) -> None:
        lever = self._levers[name]
        apply_to_network(network, [lever])
        self._note(f"{name}={lever.setting}" if name == "recompute" else name)

    def _note(self, name: str) -> None:
        if name not in self.pulled:
            self.pulled.append(name)


def _in_channels_last(_: nn.Module, args: Any, kwargs: Any) -> Any:
    return tree_map(_nhwc, args), tree_map(_nhwc, kwargs)


def _nhwc(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point():
        return value.contiguous(memory_format=torch.channels_last)
    return value
