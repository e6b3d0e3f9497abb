"""Recomputation of chosen parts of a network; `vramfit.jobs.recompute` is how, `vramfit.plan.recomputation` chooses."""

from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.records import Lever


@register
class Recompute(LeverKind):
    """Activation checkpointing: modules run again in the backward pass, so that what they compute is not kept.

    `selective` keeps the outputs of the operations that take the time; the other settings keep the input alone.
    """

    name = "recompute"
    settings = ("selective", "block", "module")
    cost = "time"
    order = 20
    exact = True
    per_module = True

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Recompute the modules that the lever names, or else wherever its setting can be used.

        Raises:
            UsageError: a module that the network does not have, or that cannot be recomputed.

        """
        from vramfit.jobs.recompute import find_recomputable, recompute

        names = lever.modules or find_recomputable(model).of_setting(lever.setting)
        recompute(model, names, selective=lever.setting == "selective")
