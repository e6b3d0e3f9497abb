"""An optimizer that updates each weight in the backward pass, so that gradients never exist all at once."""

from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.jobs.step import Step
    from vramfit.records import Lever


@register
class OptimizerInBackward(LeverKind):
    """Each weight is updated as soon as its gradient is whole, and the gradient is dropped.

    It leaves out what needs all gradients at once: accumulation, clipping, a gradient scaler (fp16), several ranks.
    """

    name = "optimizer_in_backward"
    cost = "time"
    order = 5
    exact = True
    accumulates = False

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Where nothing of the job needs all gradients at once."""
        from vramfit.jobs.step_in_backward import obstacle

        return obstacle(job) is None

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job itself, if nothing stands against it.

        Raises:
            UsageError: something of it needs all gradients at once; says what.

        """
        from vramfit.jobs.step_in_backward import require_possible

        require_possible(job)
        return job

    def on_step(self, step: "Step", lever: "Lever") -> None:
        """Hook every weight that learns.

        Raises:
            UsageError: several ranks share the step.

        """
        from vramfit.jobs.step_in_backward import step_in_backward

        step_in_backward(step)
