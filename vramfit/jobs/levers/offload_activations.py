"""Activations in host memory between the forward and the backward pass."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever

_RECOMPUTED = (
    "recompute keeps its inputs on the card whatever is sent away; use one of the two levers recompute and "
    "offload_activations, or gradient_checkpointing beside it."
)
_COMPILED = "compile itself chooses what to keep; use one of the two levers compile and offload_activations."


@register
class OffloadActivations(LeverKind):
    """What autograd keeps of the network's forward pass waits in page-locked host memory; `vramfit.jobs.offload`."""

    name = "offload_activations"
    cost = "time"
    order = 40
    exact = True
    conflicts: ClassVar[Mapping[str, str]] = {"compile": _COMPILED, "recompute": _RECOMPUTED}

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Of every job whose network is one: a step of one's own may call parts of it."""
        return job.step is None

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Give the network a forward that sends away what it keeps."""
        from vramfit.jobs.offload import Offloading

        model.forward = Offloading(model)  # survives deepcopy
