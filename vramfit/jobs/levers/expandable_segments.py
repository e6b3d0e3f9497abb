"""Segments of the allocator that grow, so that less memory lies idle between them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class ExpandableSegments(LeverKind):
    """PyTorch's `expandable_segments`: the allocator grows its segments page by page, so less lies idle between them.

    Known limitation: the allocator has none on Windows, where the lever changes nothing.
    """

    name = "expandable_segments"
    cost = "free"
    order = 10
    exact = True
    missing_on: ClassVar[Mapping[str, str]] = {"win32": "Windows"}

    def is_free_for(self, job: "Job", model: "nn.Module") -> bool:
        """For every job."""
        return True

    def allocator_options(self, lever: "Lever") -> str:
        """PyTorch's option of the same name."""
        return "expandable_segments:True"
