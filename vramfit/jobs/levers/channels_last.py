"""The order of an image's values in memory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from vramfit.cards import Card
    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class ChannelsLast(LeverKind):
    """NHWC for the network and its 4-D inputs, which tensor cores read without a conversion; `off` is NCHW."""

    name = "channels_last"
    settings = ("on", "off")
    cost = "free"
    order = 40
    exact = True

    def may_be_faster(self, job: "Job", card: "Card") -> bool:
        """In half precision on tensor cores, which read NHWC as it is."""
        halves = (job.amp == "fp16" and card.has_tensor_cores) or (job.amp == "bf16" and card.has_bf16)
        return halves and not job.channels_last

    def job_fields(self, lever: "Lever") -> Mapping[str, bool]:
        """The job's own setting."""
        return {"channels_last": lever.setting == "on"}
