"""Cross-entropy over a large vocabulary, a part of the tokens at a time."""

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
class ChunkedLoss(LeverKind):
    """float32 logits, their softmax and its gradient exist for one part of the tokens at a time, never for all.

    It takes the place of `torch.nn.functional.cross_entropy` in a job's loss and in a network that computes one, and
    that of the loss of Hugging Face's causal language models, which would make all logits float32 first.
    """

    name = "chunked_loss"
    cost = "time"
    order = 15
    exact = True
    conflicts: ClassVar[Mapping[str, str]] = {
        "compile": "compile fuses the loss itself; use one of the two levers compile and chunked_loss."
    }

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Where the loss is cross-entropy, or that of a language model."""
        from vramfit.jobs.chunked_loss import models_with_loss, uses_cross_entropy

        return bool(models_with_loss(model)) if job.loss is None else uses_cross_entropy(job.loss)

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job with the cross-entropy of its own loss in parts."""
        from vramfit.jobs.chunked_loss import LossInParts

        own = job.loss is not None and not isinstance(job.loss, LossInParts)
        return replace(job, loss=LossInParts(job.loss)) if own and job.loss is not None else job

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Give a network that computes its loss another way to do it."""
        from vramfit.jobs.chunked_loss import ForwardInParts, causal_loss, models_with_loss

        for one in models_with_loss(model):
            one.loss_function = causal_loss
        model.forward = ForwardInParts(model)  # survives deepcopy
