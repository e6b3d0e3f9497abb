"""Upsampling in half precision, which CUDA's autocast would run in float32."""

from functools import partial
from typing import TYPE_CHECKING

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class HalfUpsample(LeverKind):
    """Every `nn.Upsample` in the dtype of its input; autocast would make it, and the sums after it, float32."""

    name = "half_upsample"
    cost = "free"
    order = 30
    exact = False

    def is_free_for(self, job: "Job", model: "nn.Module") -> bool:
        """Where a network with upsampling layers is trained in mixed precision."""
        from torch.nn import Upsample

        return job.amp is not None and any(isinstance(module, Upsample) for module in model.modules())

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Give each upsampling layer another forward."""
        from torch.nn import Upsample

        for module in model.modules():
            if isinstance(module, Upsample):
                module.forward = WithoutAutocast(module)  # type: ignore[method-assign,assignment]  # survives deepcopy


class WithoutAutocast:
    """The forward of an upsampling without autocast: its kernels work in float32 and round once, as autocast would."""

    def __init__(self, module: "nn.Module") -> None:
        self.module = module

    def __call__(self, value: "Tensor") -> "Tensor":
        """BxCxHxW -> BxCxsHxsW, in the dtype that comes in."""
        import torch

        forward = partial(type(self.module).forward, self.module)
        with torch.autocast(value.device.type, enabled=False):
            upsampled: Tensor = forward(value)
        return upsampled
