"""A script that believes in a card which is not here: its tensors there have no memory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from vramfit.cards import find_card
from vramfit.prediction.trace_records import Trace
from vramfit.script.checkpoints import shapes_alone
from vramfit.script.emulated_card import emulated_card
from vramfit.script.landlock import confine_writes
from vramfit.script.loaders import short_loaders
from vramfit.script.native_files import native_files
from vramfit.script.observer import Observer
from vramfit.script.outcome import Outcome, Request
from vramfit.script.outside import nothing_outside
from vramfit.script.ranks import first_of_ranks
from vramfit.script.recorder import ScriptRecorder
from vramfit.script.script_process import ScriptProcess
from vramfit.script.swapped_files import scratch_files
from vramfit.script.threads import threads_in_modes


class BelievingScript(ScriptProcess):
    """One script on a card of `vramfit.cards`, traced."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.trace = Trace(1)
        self.card = find_card(request.card)
        self.recorder = ScriptRecorder(self.trace, self.card.compute_capability)
        self.observer = Observer(self.recorder, request.steps, lambda: self.end("seen"))

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """The card, and a world in which nothing of the user's changes."""
        with ExitStack() as stack:
            stack.enter_context(emulated_card(self.card, self.recorder))
            stack.enter_context(first_of_ranks(self.recorder.made_on_card, self.recorder))
            stack.enter_context(shapes_alone())
            stack.enter_context(short_loaders(self.observer))
            stack.enter_context(self.observer.watching())
            stack.enter_context(scratch_files(self.files))
            stack.enter_context(native_files(self.files))
            confined = confine_writes([self.request.scratch, Path("/dev")])
            stack.enter_context(nothing_outside(processes=confined))
            stack.enter_context(self.recorder)
            stack.enter_context(self.recorder.calls())
            stack.enter_context(threads_in_modes())
            yield

    def seen(self, outcome: Outcome) -> Outcome:
        """The outcome with the trace."""
        self.recorder.mark("end")
        self.recorder.stop()
        self.trace.micro_batch = self.observer.batch_size or 1
        return replace(
            outcome,
            trace=self.trace if self.observer.steps_made else None,
            validated=any("validation" in name for name in self.trace.marks),
        )
