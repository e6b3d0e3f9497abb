"""A network that torch.compile runs, and the share of its activations that it may keep.

The compiler fuses what a trace sees operation by operation, and chooses itself what the backward pass works out again:
whatever is cheap, and for a share below 1 as much more as it takes (torch's `activation_memory_budget`). Buffers that
the forward pass moves, such as BatchNorm's statistics, move once. What it keeps is known once it has run: such a step
is measured, never predicted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from vramfit.errors import NotTraceable, UsageError
from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class Compile(LeverKind):
    """torch.compile; the setting is the percentage of its activations that it may keep. Measured, never predicted."""

    name = "compile"
    settings = ("100", "75", "50", "25", "0")
    cost = "time"
    order = 30
    exact = False
    # A compiler cannot see through a checkpoint of ours.
    conflicts: ClassVar[Mapping[str, str]] = {
        "recompute": "compile itself chooses what to recompute; use one of the two levers compile and recompute."
    }

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Compile the network at its first call.

        Raises:
            UsageError: the network is on a card without Triton.

        """
        compile_network(model, int(lever.setting) / 100)

    def on_trace(self, job: "Job", lever: "Lever") -> "Job":
        """Nothing that could be traced.

        Raises:
            NotTraceable: always.

        """
        raise NotTraceable(
            f"the step of '{job.name}' is compiled: torch.compile fuses operations and chooses what to keep only once "
            "it runs, so nothing can be predicted; measure it on a card, or remove the compile lever."
        )


def compile_network(model: "nn.Module", share: float) -> None:
    """Make a network, in place, compile itself at its first call; weights, buffers and their names stay.

    Args:
        model: the network, on the device where it will run.
        share: of the activations that a compiled step would keep, about how much it may; 0 keeps the inputs alone.

    Raises:
        UsageError: the network is on a card and Triton, which compiles for it, is not installed.

    """
    on_card = any(parameter.device.type == "cuda" for parameter in model.parameters())
    if on_card and find_spec("triton") is None:
        raise UsageError(
            "torch.compile needs Triton on a card, and it is not installed; install it, or do not compile."
        )
    model.compile(backend=Keeping(share))


@dataclass(frozen=True)
class Keeping:
    """Compiles a traced graph so that its forward pass keeps at most a share of its activations.

    Two that are equal may use each other's code, so the share is part of what they are.
    """

    share: float
    compiler: str = "inductor"

    def __call__(self, graph: "torch.fx.GraphModule", inputs: "list[torch.Tensor]") -> Callable[..., Any]:
        """The compiled graph."""
        from torch._dynamo import lookup_backend
        from torch._functorch import config

        with config.patch(activation_memory_budget=self.share):
            compiled: Callable[..., Any] = lookup_backend(self.compiler)(graph, inputs)
        return compiled
