"""A script predicted on a card that need not be here: as it stands, or the largest value of an option that fits."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vramfit.cards import Card
from vramfit.errors import NothingFits, NotTraceable, ScriptFailed
from vramfit.measure.machine import read_machine
from vramfit.plan.search import CEILING
from vramfit.prediction.allocator.allocator import Settings
from vramfit.prediction.explain import explain_trial
from vramfit.prediction.largest_batch import LargestBatch
from vramfit.prediction.overheads import NCCL_BYTES
from vramfit.prediction.trace_predictor import TracePredictor
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.trace_series import TraceSeries
from vramfit.prediction.tracing.trace import order_frees
from vramfit.records import Budget, Plan, Trial
from vramfit.script.answer import ScriptAnswer, Watcher, judgement, write_down
from vramfit.script.command import Command
from vramfit.script.declared_options import USAGE_EXIT, named_wrongly
from vramfit.script.levers import allocator_environment
from vramfit.script.outcome import Outcome
from vramfit.script.searched_values import largest_divisor, most_samples, require_effect, share_of_rank, within_data
from vramfit.units import format_size


@dataclass
class ScriptPredictor:
    """Trials of one command on one card, each from a process of its own; `option` is the argument that is searched."""

    command: Command
    card: Card
    budget: Budget
    watch: Watcher
    option: str | None = None
    on_trial: Callable[[Trial], None] = lambda _: None
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._predictor = self._predictor_of(TraceSeries(self._trace))

    def _predictor_of(self, traces: TraceSeries) -> TracePredictor:
        beside = NCCL_BYTES[1] if self.command.world_size > 1 else 0
        settings, _ = Settings.parse_known(allocator_environment(self.command, os.environ))
        return TracePredictor(traces, self.card, self.budget, settings=settings, beside_bytes=beside)

    def answer(self) -> ScriptAnswer:
        """The command as it stands.

        Raises:
            ScriptFailed: it failed by its own fault.
            NotTraceable: it cannot be followed.

        """
        outcome = self.watch(self.command)
        trace = _whole(outcome)
        self.outcomes[trace.micro_batch] = outcome
        predictor = self._predictor_of(TraceSeries(lambda _: trace))
        predictor.cudnn_benchmark = outcome.cudnn_benchmark
        trial = predictor.proven(trace.micro_batch)
        self.on_trial(trial)
        reason = f"as the command stands, it {judgement(trial)}"
        plan = Plan(
            micro_batch=trial.micro_batch,
            world_size=self.command.world_size,
            reason=f"batch {trial.micro_batch}: {reason}.",
        )
        return self._written_down(predictor, plan, [trial], self.command)

    def largest(
        self, maximum: int | None = None, effective_batch: int | None = None, accumulation: str | None = None
    ) -> ScriptAnswer:
        """The largest value of the option that fits.

        With an `effective_batch` the value divides it into micro-batches that fit, and the script's option
        `accumulation` says into how many.

        Raises:
            NothingFits: not even 1 does.
            ScriptFailed: the script does not know the option, or fails whatever its value.
            NotTraceable: it cannot be followed at any value.
            UsageError: the script ignores the option.

        """
        assert self.option is not None
        a_rank = effective_batch and share_of_rank(effective_batch, self.command)
        highest = min(maximum or CEILING, a_rank or CEILING)
        search = LargestBatch(self, self.budget.budget_bytes, high=highest + 1)
        found = search.answer()
        if not found:
            raise NothingFits(f"'{self.command.name}' does not fit with {self.option} 1 on {self.card.name}.")
        peaks = {value: trial.peak_allocated_bytes or 0 for value, trial in search.proven.items()}
        require_effect(self.option, self.outcomes, peaks)
        most = most_samples({value: self.outcomes[value] for value in search.proven})
        found, highest = (min(found, most), min(highest, most)) if most else (found, highest)
        trials = [search.proven[size] for size in sorted(search.proven) if size <= (most or size)]
        size = largest_divisor(a_rank or found, found)
        if size not in search.proven:
            trials = sorted([*trials, self.proven(size)], key=lambda trial: trial.micro_batch)
        parts = (a_rank or size) // size
        reason = self._why(found, highest)
        plan = Plan(
            micro_batch=size,
            accumulation_steps=parts,
            world_size=self.command.world_size,
            objective="largest",
            reason=reason,
        )
        command = self.command.with_value(self.option, size)
        if accumulation is not None:
            command = command.with_value(accumulation, parts)
        return self._written_down(self._predictor, plan, trials, command)

    def proven(self, micro_batch: int) -> Trial:
        """The trial of one value, from a run of the script with it."""
        trial = self._predictor.proven(micro_batch)
        self.on_trial(within_data(trial, self.outcomes))
        return trial

    def foretold(self, micro_batch: int) -> Trial | None:
        """The trial of a value by the curve through those that were run; None where there is none."""
        return self._predictor.foretold(micro_batch)

    def _trace(self, value: int) -> Trace:
        assert self.option is not None
        try:
            outcome = self.watch(self.command.with_value(self.option, value))
        except ScriptFailed as error:
            if error.exit_code == USAGE_EXIT:
                raise named_wrongly(self.option, self.command, error) from None
            raise NotTraceable(f"with {self.option} {value}: {error}") from error
        self.outcomes[value] = outcome
        self._predictor.cudnn_benchmark = outcome.cudnn_benchmark
        trace = _whole(outcome)
        trace.micro_batch = value
        return trace

    def _why(self, found: int, highest: int) -> str:
        above = self.foretold(found + 1) if found < highest else None
        if above is None or above.device_used_band_bytes is None:
            return f"batch {found}: the largest that was asked for or that the data makes, and it fits."
        excess = above.device_used_band_bytes[1] - self.budget.budget_bytes
        return f"batch {found}: {found + 1} may exceed the budget by {format_size(max(0, excess))}."

    def _written_down(
        self, predictor: TracePredictor, plan: Plan, trials: list[Trial], command: Command
    ) -> ScriptAnswer:
        outcome = replace(self.outcomes[plan.micro_batch], trace=predictor.trace(plan.micro_batch))
        machine = read_machine().model_copy(update={"card": self.card.name})
        peak = explain_trial(predictor, plan.micro_batch)
        return write_down(command, outcome, plan=plan, trials=trials, budget=self.budget, machine=machine, peak=peak)


def _whole(outcome: Outcome) -> Trace:
    assert outcome.trace is not None
    order_frees(outcome.trace)
    return outcome.trace
