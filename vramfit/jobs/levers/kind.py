"""What a lever is and what it does: the class that each lever of this package extends.

A hook does nothing unless a lever overrides it. Whatever a hook needs of torch it imports itself, so that names and
settings are read, written and refused without it.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import nn

    from vramfit.cards import Card
    from vramfit.jobs.job import Job
    from vramfit.jobs.step import Step
    from vramfit.records import Lever

Cost = Literal["free", "time"]
COSTS: tuple[Cost, ...] = ("free", "time")
OFF = "off"


class LeverKind:
    """One lever: what it is called, what it costs, and what it does to a job wherever that is run or predicted.

    Hooks run in the order in which a job meets them: `on_job` before anything is built, `allocator_options` before the
    first tensor on the card, `on_placement` before the network is there, `on_network` before the optimizer, `on_step`
    when the step is complete. `on_trace` is for predictions alone.

    Attributes:
        name: what `--levers` and a profile call it.
        settings: what it may be set to; the first is the default.
        cost: `free` costs no time, `time` takes some.
        order: its place among the levers of the same cost, in lists and where levers are tried.
        accumulates: gradients of several micro-batches can be added up with it.
        shards: a card holds a part of each weight with it.
        communicates: ranks wait for each other within a forward and backward pass.
        exact: the run's numbers are those of the run without it, up to the order of additions.
        per_module: may name the modules that it applies to.
        conflicts: levers that it cannot be used with, by name, each with the sentence that says so.
        missing_on: systems that do not know it, as `sys.platform` has them, each with its name for people.

    """

    name: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ("on",)
    cost: ClassVar[Cost]
    order: ClassVar[int]
    exact: ClassVar[bool]
    accumulates: ClassVar[bool] = True
    shards: ClassVar[bool] = False
    communicates: ClassVar[bool] = False
    per_module: ClassVar[bool] = False
    conflicts: ClassVar[Mapping[str, str]] = {}
    missing_on: ClassVar[Mapping[str, str]] = {}

    @property
    def is_suggestion(self) -> bool:
        """Whether it changes what is learned, and so is shown beside others and used only where the user names it."""
        return self.cost == "time" and not self.exact

    def is_available(self) -> bool:
        """Whether this machine knows the lever; where it does not, the lever changes nothing."""
        return sys.platform not in self.missing_on

    def is_free_for(self, job: "Job", model: "nn.Module") -> bool:
        """Whether the lever saves memory of this job, whose settings are known, and costs it nothing."""
        return False

    def may_be_faster(self, job: "Job", card: "Card", model: "nn.Module") -> bool:
        """Whether the lever may save time on a card; it is then taken where a step is predicted to be no slower."""
        return False

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Whether the lever may save memory of this job where the free ones are not enough; `model` has no memory."""
        return False

    def to_measure(self, job: "Job", model: "nn.Module", *, is_predicted: bool) -> "Lever | None":
        """How else the lever is to be tried on a card beside the job as it is, where only time tells; None for no way.

        Args:
            job: the job, with its levers.
            model: its network, on tensors without memory.
            is_predicted: a prediction chose how the job uses the lever; else the user did, or nobody.

        """
        return None

    def job_fields(self, lever: "Lever") -> Mapping[str, Any]:
        """Fields of the Job that the lever sets, those that a profile keeps of it (`JobKey`) among them."""
        return {}

    def on_job(self, job: "Job", lever: "Lever") -> "Job":
        """The job with what the lever changes of its description; done twice it is as done once."""
        return replace(job, **self.job_fields(lever))

    def allocator_options(self, lever: "Lever") -> str:
        """Options of the CUDA caching allocator, as PYTORCH_ALLOC_CONF has them: `name:value,name:value`."""
        return ""

    def on_placement(self, step: "Step", lever: "Lever") -> None:
        """Bring the network to its device part by part; it is on the host, and what is left there follows whole.

        Raises:
            UsageError: the network or the machine cannot do it.

        """

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Change the network in place; it is on its device, in training mode and in its memory order.

        Raises:
            UsageError: the network or the machine cannot do it.

        """

    def on_step(self, step: "Step", lever: "Lever") -> None:
        """Change the step in place, once its optimizer and its averaged weights are built."""

    def on_trace(self, job: "Job", lever: "Lever") -> "Job":
        """The job as a prediction traces it: without what the lever keeps off the card.

        Raises:
            NotTraceable: its step cannot be predicted.

        """
        return job
