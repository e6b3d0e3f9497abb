"""Cross-entropy over a large vocabulary, a part of the tokens at a time."""

from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class ChunkedLoss(LeverKind):
    """float32 logits, their softmax and its gradient exist for one part of the tokens at a time, never for all.

    For a job whose loss is `torch.nn.functional.cross_entropy`, and for Hugging Face's causal language models, which
    compute their loss themselves.
    """

    name = "chunked_loss"
    cost = "time"
    order = 15
    exact = True

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Where the loss is cross-entropy of many classes."""
        from vramfit.jobs.chunked_loss import is_cross_entropy, models_with_loss

        return is_cross_entropy(job.loss) or (job.loss is None and bool(models_with_loss(model)))

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job with its own cross-entropy in parts."""
        from dataclasses import replace

        from vramfit.jobs.chunked_loss import chunked_cross_entropy, is_cross_entropy

        return replace(job, loss=chunked_cross_entropy) if is_cross_entropy(job.loss) else job

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Give language models that compute their loss another way to do it."""
        from vramfit.jobs.chunked_loss import causal_loss, models_with_loss

        for one in models_with_loss(model):
            one.loss_function = causal_loss
