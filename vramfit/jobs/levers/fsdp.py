"""The network shared by several cards: each holds a part of every weight, gradient and moment (FSDP2)."""

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
class Fsdp(LeverKind):
    """torch's `fully_shard` on every block of the network or on the modules that are named, and on what is in none.

    `keep` leaves gathered weights whole until the backward pass has used them, `half` gathers them in the half
    precision of AMP, with which layers that AMP computes in float32 see rounded weights.
    """

    name = "fsdp"
    settings = ("on", "keep", "half", "half_keep")
    cost = "time"
    order = 70
    exact = False
    shards = True
    communicates = True
    per_module = True
    conflicts: ClassVar[Mapping[str, str]] = {
        "channels_last": "fsdp cuts weights that lie in rows, which those of channels_last do not; use one of the two.",
        "compile": "fsdp is not predicted with compile; use one of the two levers.",
        "eight_bit_optimizer": "fsdp gives an optimizer parts of weights (DTensors), which those of bitsandbytes do "
        "not take; use one of the two levers.",
        "ema_on_host": "fsdp keeps no averaged copy of the weights; leave ema_on_host out.",
        "optimizer_in_backward": "optimizer_in_backward updates before ranks have shared their gradients; use it on "
        "one card.",
    }

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job itself, if its network can be shared.

        Raises:
            UsageError: it keeps an averaged copy, its memory order is NHWC, or `half` is asked for without AMP.

        """
        if job.ema_decay:
            raise UsageError("fsdp keeps no averaged copy of the weights; leave the EMA (ema_decay) out.")
        if [one.name for one in job.levers].count(self.name) > 1:
            raise UsageError("fsdp is given twice; name all modules in one, as in fsdp=on@encoder+decoder.")
        if job.channels_last:
            raise UsageError(self.conflicts["channels_last"])
        if lever.setting.startswith("half") and job.amp is None:
            raise UsageError("fsdp=half gathers weights in the half precision of AMP, and amp is None; use fsdp=on.")
        return job

    def on_placement(self, step: "Step", lever: "Lever") -> None:
        """Shard the network block by block, each as it comes to the card.

        Raises:
            UsageError: this process is alone, its torch has no FSDP2, or a module is not there.

        """
        from vramfit.jobs.sharding import shard

        gathered = step.precision.dtype if lever.setting.startswith("half") else None
        shard(
            step.model,
            step.device,
            step.to_card,
            names=lever.modules,
            keep=lever.setting.endswith("keep"),
            gathered_in=gathered,
        )
