"""The dtype of automatic mixed precision."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vramfit.choices import Amp
from vramfit.jobs.levers.kind import OFF, LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from vramfit.records import Lever

_DTYPES: dict[str, Amp | None] = {"fp16": "fp16", "bf16": "bf16", OFF: None}


@register
class MixedPrecision(LeverKind):
    """Autocast's dtype; `off` is float32. It changes what is learned, so nothing chooses it but the user."""

    name = "amp"
    settings = ("fp16", "bf16", OFF)
    cost = "free"
    order = 50
    exact = False

    def job_fields(self, lever: "Lever") -> Mapping[str, Amp | None]:
        """The job's own setting."""
        return {"amp": _DTYPES[lever.setting]}
