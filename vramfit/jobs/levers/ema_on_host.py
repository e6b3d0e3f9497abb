"""Averaged weights that live in host memory."""

from dataclasses import replace
from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from vramfit.jobs.job import Job
    from vramfit.jobs.step import Step
    from vramfit.records import Lever


@register
class EmaOnHost(LeverKind):
    """The averaged weights in host memory: each step copies the weights there; on the card only to be evaluated."""

    name = "ema_on_host"
    cost = "time"
    order = 10
    exact = True

    def on_step(self, step: "Step", lever: "Lever") -> None:
        """Move the average to the host, if the job keeps one."""
        import torch

        if step.average is not None:
            step.average.live_on(torch.device("cpu"))

    def on_trace(self, job: "Job", lever: "Lever") -> "Job":
        """The job without an average: nothing of it is on the card in a training step."""
        return replace(job, ema_decay=None)
