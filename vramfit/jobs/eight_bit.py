"""Optimizers with 8-bit state: bitsandbytes' own in a run, their state's layout in a prediction.

Layout, from bitsandbytes 0.50 (optim/optimizer.py `init_state`): a weight of 4096 or more elements has one byte an
element for each moment, and a float32 for each block of 256; a smaller one has its moments in float32. Two maps of 256
float32 values serve all. A paged optimizer keeps moments of 100,000 or more elements in unified memory, whose pages
leave the card when others need it: a prediction counts none of them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vramfit.errors import UsageError

if TYPE_CHECKING:
    from vramfit.jobs.job import Job

# Weights whose two moments in 8 bits save 300 MB; with fewer a search does not try it.
MANY = 50_000_000
_BLOCK = 256
_SMALLEST = 4096
_SMALLEST_PAGED = 100_000
# Optimizers of torch by the moments that they keep of each weight, and the settings that bitsandbytes' form has too.
_MOMENTS: Mapping[type[torch.optim.Optimizer], int] = {torch.optim.Adam: 2, torch.optim.AdamW: 2, torch.optim.SGD: 1}
_SHARED = ("lr", "betas", "eps", "momentum", "weight_decay")


def has_8bit_form(job: "Job") -> bool:
    """Whether a job's optimizer is one that keeps moments and that bitsandbytes has in 8 bits."""
    if isinstance(job.optimizer, Mapping):
        return False
    built = job.optimizer([nn.Parameter(torch.empty(1))])
    return type(built) in _MOMENTS and built.defaults.get("momentum") != 0


def in_8bit(job: "Job", *, paged: bool) -> "Job":
    """The job with its optimizer in 8 bits; one that has it already is returned as it is.

    Raises:
        UsageError: it has several optimizers.

    """
    if isinstance(job.optimizer, EightBit):
        return job
    if isinstance(job.optimizer, Mapping):
        raise UsageError(
            f"eight_bit_optimizer works on one optimizer, and '{job.name}' has several; leave the lever out."
        )
    return replace(job, optimizer=EightBit(job.optimizer, paged))


@dataclass(frozen=True)
class EightBit:
    """An optimizer factory whose optimizer keeps its state in 8 bits; pickles where the factory does."""

    build: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    paged: bool
    layout_only: bool = False

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer, with the settings of the one it stands for.

        Raises:
            UsageError: that has no 8-bit form, or bitsandbytes is not installed.

        """
        built = self.build(parameters)
        moments = _MOMENTS.get(type(built))
        if moments is None or built.defaults.get("momentum") == 0:
            known = ", ".join(one.__name__ for one in _MOMENTS)
            raise UsageError(
                f"eight_bit_optimizer has no 8-bit {type(built).__name__}; use {known} with momentum, or no such lever."
            )
        groups = [
            {"params": group["params"], **{name: group[name] for name in _SHARED if name in group}}
            for group in built.param_groups
        ]
        if self.layout_only:
            return Layout(groups, moments, paged=self.paged)
        return self._of_library(type(built).__name__, groups)

    def _of_library(self, name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if find_spec("bitsandbytes") is None:
            raise UsageError("eight_bit_optimizer runs bitsandbytes, which is not installed: pip install bitsandbytes.")
        import bitsandbytes

        family = getattr(bitsandbytes.optim, f"{'Paged' if self.paged else ''}{name}8bit", None)
        if family is None:
            raise UsageError(f"bitsandbytes has no paged {name} in 8 bits; use eight_bit_optimizer=on.")
        optimizer: torch.optim.Optimizer = family(groups, **_required(name, groups[0]))
        return optimizer


def _required(name: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """What bitsandbytes' SGD wants beside the groups."""
    return {"lr": group["lr"], "momentum": group["momentum"]} if name == "SGD" else {}


class Layout(torch.optim.Optimizer):
    """An optimizer that holds what an 8-bit one holds, and learns nothing: for tensors without memory."""

    def __init__(self, groups: list[dict[str, Any]], moments: int, *, paged: bool) -> None:
        super().__init__(groups, {})
        self._moments = moments
        self._paged = paged
        self._maps: list[Tensor] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # there is no loss to be asked for
        """Make the state at the first step; read and write what the kernel does, in place."""
        assert closure is None
        with torch.no_grad():
            for parameter in (one for group in self.param_groups for one in group["params"] if one.grad is not None):
                if parameter not in self.state:
                    self._begin(parameter)
                parameter.add_(parameter.grad)
                for moment in self.state[parameter].values():
                    moment.mul_(moment)

    def _begin(self, parameter: Tensor) -> None:
        elements, device = parameter.numel(), parameter.device
        small = elements < _SMALLEST
        state = self.state[parameter]
        if not small and not self._maps:
            self._maps = [torch.empty(_BLOCK, device=device) for _ in range(self._moments)]
        for moment in range(self._moments):
            if small or not self._paged or elements < _SMALLEST_PAGED:
                dtype = torch.float32 if small else torch.uint8
                state[f"state{moment + 1}"] = torch.empty(parameter.shape, dtype=dtype, device=device)
            if not small:
                state[f"absmax{moment + 1}"] = torch.empty(-(-elements // _BLOCK), device=device)
