"""Low-rank adapters in place of all weights."""

from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class Lora(LeverKind):
    """peft's LoRA on every linear layer but the output; the setting is the rank. The weights themselves are frozen.

    It trains other parameters, so nothing chooses it but the user.
    """

    name = "lora"
    settings = ("16", "8", "32", "64")
    cost = "time"
    order = 70
    exact = False

    def is_available(self) -> bool:
        """Where peft is installed."""
        return find_spec("peft") is not None

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Where most of what learns is in linear layers and no adapters are there yet."""
        from vramfit.jobs.adapters import suits

        return job.step is None and not job.frozen and suits(model)

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job with adapters on its network once that is built; `frozen` and `rate_scales` name modules below them.

        Raises:
            UsageError: peft is not installed.

        """
        from vramfit.jobs.adapters import Adapted

        if isinstance(job.model, Adapted):
            return job
        return replace(job, model=Adapted(job.model, int(lever.setting)))
