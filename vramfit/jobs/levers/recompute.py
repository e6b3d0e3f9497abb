"""Recomputation of chosen parts of a network; `vramfit.jobs.recompute` is how, `vramfit.plan.recomputation` chooses."""

from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.records import Lever


@register
class Recompute(LeverKind):
    """Activation checkpointing of modules: all of what they compute, or all but the operations that take the time."""

    name = "recompute"
    settings = ("selective", "block", "module")
    cost = "time"
    order = 20
    exact = True
    per_module = True
    help = "run parts of the forward pass again in the backward pass in place of keeping their activations"

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Recompute the modules that the lever names, or else wherever its setting can be used.

        Raises:
            UsageError: a module that the network does not have, or that cannot be recomputed.

        """
        from vramfit.jobs.recompute import find_recomputable, recompute

        names = lever.modules or find_recomputable(model).of_setting(lever.setting)
        recompute(model, names, selective=lever.setting == "selective")
