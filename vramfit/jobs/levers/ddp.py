"""Gradients averaged over several cards in the buckets of DistributedDataParallel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from vramfit.errors import UsageError
from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from vramfit.jobs.job import Job
    from vramfit.jobs.step import Step
    from vramfit.records import Lever


@register
class Ddp(LeverKind):
    """torch's `DistributedDataParallel` around the network: whole weights on each card, averaged as they come.

    Buckets of gradients are held beside the gradients; with `views` gradients are parts of the buckets
    (`gradient_as_bucket_view=True`).
    """

    name = "ddp"
    settings = ("on", "views")
    cost = "time"
    order = 71
    exact = True
    communicates = True
    conflicts: ClassVar[Mapping[str, str]] = {
        "fsdp": "ddp holds whole weights on every card, and fsdp a part of each; use one of the two levers.",
        "optimizer_in_backward": "optimizer_in_backward updates before ranks have shared their gradients; use it on "
        "one card.",
    }

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job itself, if its gradients come from one backward pass.

        Raises:
            UsageError: it has a step of its own.

        """
        if job.step is not None:
            raise UsageError("ddp averages what one forward and backward pass leave; a step of one's own is not taken.")
        return job

    def on_step(self, step: "Step", lever: "Lever") -> None:
        """Average the gradients over the ranks of the process group, in place of who calls the step.

        Raises:
            UsageError: this process is alone.

        """
        from vramfit.jobs.sharding import average_in_buckets

        average_in_buckets(step.model, views=lever.setting == "views")
