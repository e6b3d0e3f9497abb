"""A script on the card that is here: under a hard limit, watched from outside its allocations."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from vramfit.measure.memory import CardMemory
from vramfit.oom import is_out_of_memory
from vramfit.postmortem.out_of_memory import report_out_of_memory
from vramfit.script.card_recorder import CardRecorder, peaks_kept
from vramfit.script.landlock import confine_writes
from vramfit.script.loaders import noted_batches, short_loaders
from vramfit.script.native_files import native_files
from vramfit.script.observer import Observer
from vramfit.script.outcome import Measured, Outcome, Request
from vramfit.script.outside import nothing_outside
from vramfit.script.ranks import first_of_ranks
from vramfit.script.script_process import ScriptProcess
from vramfit.script.swapped_files import scratch_files


class MeasuredScript(ScriptProcess):
    """One script on a card under a budget: a few steps that leave nothing behind, or the whole run as it is."""

    refusal = ("cannot be measured", "or give --whole-run, in which it may")

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        assert request.on_card is not None
        self.asked = request.on_card
        self.writes_are_held = not self.asked.whole_run
        self.memory: CardMemory = self.asked.open_memory()
        self.recorder = CardRecorder(self.memory)
        steps = sys.maxsize if self.asked.whole_run else request.steps
        self.observer = Observer(self.recorder, steps, lambda: self.end("seen"))

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """The limit; and for a few steps a world in which nothing of the user's changes."""
        self.memory.start(self.asked.budget)
        with ExitStack() as stack:
            stack.enter_context(self.observer.watching())
            stack.enter_context(noted_batches(self.observer))
            stack.enter_context(peaks_kept(self.memory))
            if not self.asked.whole_run:
                stack.enter_context(first_of_ranks(nullcontext))
                stack.enter_context(short_loaders(self.observer))
                stack.enter_context(scratch_files(self.files))
                stack.enter_context(native_files(self.files))
                confined = confine_writes([self.request.scratch, Path("/dev")])
                stack.enter_context(nothing_outside(processes=confined))
            yield

    def failed(self, error: BaseException) -> NoReturn:
        """Out of memory is an answer; anything else is the script's own fault."""
        if not is_out_of_memory(error):
            super().failed(error)
        phase, message = self.recorder.phase, (str(error).strip().splitlines() or ["no message"])[0]
        if self.asked.whole_run:
            traceback.print_exception(error)
            self._say_why(error)
        self.end("out of memory", exit_code=1, error=f"out of memory in {phase}: {message}")

    def _say_why(self, error: BaseException) -> None:
        """Tell what held the memory, while it is still there."""
        report = None
        with suppress(RuntimeError):  # of a card that answers nothing any more
            report = report_out_of_memory(error, model=self.observer.networks, optimizers=self.observer.optimizers)
        if report is not None:
            print(f"vramfit: {report.sentence}", file=sys.stderr)  # noqa: T201

    def seen(self, outcome: Outcome) -> Outcome:
        """The outcome with what the card says."""
        recorder = self.recorder
        return replace(
            outcome,
            validated=any("validation" in name for name in recorder.trace.marks),
            batch_size=outcome.batch_size or recorder.brought,
            measured=Measured(
                figures=self.memory.figures(),
                warm_up_retries=recorder.warm_up_retries,
                step_time_s=recorder.step_time_s,
                peak_phase=recorder.peak_phase,
                phases=dict(recorder.phases),
                samples=dict(recorder.trace.samples),
                amp=recorder.amp,
                held=tuple(recorder.held),
            ),
        )

    def leave(self, exit_code: int) -> NoReturn:
        """A whole run ends as it would by itself, with what it does at its exit."""
        if self.asked.whole_run:
            sys.exit(exit_code)
        super().leave(exit_code)
