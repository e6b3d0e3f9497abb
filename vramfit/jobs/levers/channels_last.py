"""The order of an image's values in memory."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import OFF, LeverKind
from vramfit.jobs.levers.registry import register
from vramfit.records import Lever

if TYPE_CHECKING:
    from torch import nn

    from vramfit.cards import Card
    from vramfit.jobs.job import Job


@register
class ChannelsLast(LeverKind):
    """NHWC for the network and its 4-D inputs, which tensor cores read without a conversion; `off` is NCHW."""

    name = "channels_last"
    settings = ("on", OFF)
    cost = "free"
    order = 40
    exact = True

    def may_be_faster(self, job: "Job", card: "Card", model: "nn.Module") -> bool:
        """In half precision on tensor cores, which read NHWC as it is, where the network has 4-D weights."""
        halves = (job.amp == "fp16" and card.has_tensor_cores) or (job.amp == "bf16" and card.has_bf16)
        return halves and not job.channels_last and any(one.dim() == 4 for one in model.parameters())

    def to_measure(self, job: "Job", model: "nn.Module", *, is_predicted: bool) -> Lever | None:
        """The other memory order, where the network has 4-D weights and the user chose none."""
        if all(parameter.dim() != 4 for parameter in model.parameters()):
            return None
        used = any(lever.name == self.name for lever in job.levers)
        if used and is_predicted:
            return Lever(name=self.name, setting=OFF)
        return None if used or job.channels_last else Lever(name=self.name)

    def job_fields(self, lever: Lever) -> Mapping[str, bool]:
        """The job's own setting."""
        return {"channels_last": lever.setting == "on"}
