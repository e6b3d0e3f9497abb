"""Which argument of a Job an error came out of, and what to write in its place."""

import re
import traceback
from dataclasses import dataclass
from pathlib import Path

from vramfit.jobs.job import wants_cuda
from vramfit.jobs.network_call import describe, left_out

# Functions of this room that call what a job gives, by the argument that they call.
_CALLERS = {
    "sample_batch": "batch",
    "build_model": "model",
    "_build": "optimizer",
    "_prepare": "prepare",
    "_loss": "loss",
    "_take_turns": "step",
}
_FORWARD = "call_network"
_ROOM = Path(__file__).parent


@dataclass(frozen=True)
class Place:
    """An argument of a Job, "" where an error came from none.

    `given` says what a forward was given, and `left_out` which of its arguments were not.
    """

    argument: str = ""
    given: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What to add to the line of code that failed."""
        if self.given:
            return f", in the forward of the network, which batch gives {self.given}"
        return f", in {self.argument}" if self.argument else ""

    def advice(self, error: BaseException) -> str | None:
        """What to write instead, where an error tells."""
        if wants_cuda(error):
            return (
                f"leave .cuda() and device='cuda' out of {self.argument or 'the job'}: the network and the batch are "
                "moved to the card, and a new tensor goes where they are with device=outputs.device"
            )
        return None

    def advice_on_loss(self, error: BaseException, code: str) -> str | None:
        """What to write where a network asks for its targets, as torchvision's detectors do; `code` is what failed."""
        said = f"{error} {code}"
        wanted = next((name for name in self.left_out if re.search(rf"\b{re.escape(name)}\b", said)), None)
        if wanted is None:
            return None
        return (
            f"its forward takes {wanted} as well, and returns its losses: leave loss out of the Job (loss=None), and "
            "the network is given inputs and targets"
        )


def place_of(error: BaseException) -> Place:
    """The innermost argument of a Job whose code an error went through."""
    found = Place()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if Path(code.co_filename).parent != _ROOM:
            continue
        if code.co_name == _FORWARD:
            network, inputs = frame.f_locals.get("network"), frame.f_locals.get("inputs")
            found = Place("model", describe(inputs), left_out(network, inputs))
        elif code.co_name in _CALLERS:
            found = Place(_CALLERS[code.co_name])
    return found
