"""What the card held outside of this process's allocator, as far as it is known. Sizes in bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vramfit.measure.budget import USUAL_CONTEXT_BYTES
from vramfit.postmortem.recording import Moment


@dataclass(frozen=True)
class Outside:
    """The card's total, what CUDA takes for this process, what others hold; None where not known.

    `processes` are names and bytes of others.
    """

    total_bytes: int | None = None
    context_bytes: int | None = None
    others_bytes: int | None = None
    processes: tuple[tuple[str, int | None], ...] = ()

    @property
    def names(self) -> str:
        """The others in brackets, with what each holds."""
        known = [name for name, _ in self.processes]
        return f" ({', '.join(known)})" if known else ""


def outside_of(moment: Moment, total_bytes: int | None, noted: Mapping[str, Any]) -> Outside:
    """What is known: of the card's total from whoever asks, or of what was noted when the snapshot was written.

    What is neither free nor reserved is the context's and other processes'; where the context is not known, the usual
    one is taken.
    """
    total = total_bytes or noted.get("total_bytes")
    context = noted.get("context_bytes")
    others = noted.get("others_bytes")
    if others is None and total is not None and moment.device_free_bytes is not None:
        rest = total - moment.device_free_bytes - moment.reserved_bytes
        others = max(0, rest - (USUAL_CONTEXT_BYTES if context is None else context))
    processes = tuple((str(one["name"]), one.get("bytes")) for one in noted.get("processes", ()))
    return Outside(total, context, others, processes)
