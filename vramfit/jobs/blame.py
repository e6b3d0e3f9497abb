"""Which argument of a Job an error came out of, and what to write in its place."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from vramfit.jobs.job import wants_cuda
from vramfit.jobs.network_call import describe

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
    """An argument of a Job, "" where an error came from none; `given` says what a forward was given."""

    argument: str = ""
    given: str = ""

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


def place_of(error: BaseException) -> Place:
    """The innermost argument of a Job whose code an error went through."""
    found = Place()
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if Path(code.co_filename).parent != _ROOM:
            continue
        if code.co_name == _FORWARD:
            found = Place("model", describe(frame.f_locals.get("inputs")))
        elif code.co_name in _CALLERS:
            found = Place(_CALLERS[code.co_name])
    return found
