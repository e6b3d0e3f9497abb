"""Optimizer state in 8 bits, on the card or in pages that leave it, as bitsandbytes has it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class EightBitOptimizer(LeverKind):
    """The optimizer's 8-bit form in bitsandbytes; `paged` lets its state leave the card when that is full.

    State in 8 bits changes what is learned, so nothing chooses it but the user.
    """

    name = "eight_bit_optimizer"
    settings = ("on", "paged")
    cost = "time"
    order = 60
    exact = False
    conflicts: ClassVar[Mapping[str, str]] = {
        "fused_optimizer": "an 8-bit optimizer has a kernel of its own; use one of eight_bit_optimizer and "
        "fused_optimizer."
    }

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Where bitsandbytes has the optimizer in 8 bits, and enough learns for it to matter."""
        from vramfit.jobs.eight_bit import MANY, has_8bit_form

        learning = sum(one.numel() for one in model.parameters() if one.requires_grad)
        return learning >= MANY and has_8bit_form(job)

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job with its optimizer in 8 bits once that is built.

        Raises:
            UsageError: there are several optimizers.

        """
        from vramfit.jobs.eight_bit import in_8bit

        return in_8bit(job, paged=lever.setting == "paged")

    def on_trace(self, job: "Job", lever: "Lever") -> "Job":
        """The job with the layout of the state in its place, which needs no bitsandbytes."""
        from vramfit.jobs.eight_bit import EightBit

        assert isinstance(job.optimizer, EightBit)
        return replace(job, optimizer=replace(job.optimizer, layout_only=True))
