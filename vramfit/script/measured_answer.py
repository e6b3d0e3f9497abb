"""A script measured on the card that is here: as it stands, or the largest value of one of its options that fits."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vramfit.errors import NothingFits, ScriptFailed
from vramfit.measure.device import Device
from vramfit.measure.machine import read_machine
from vramfit.measure.spill import mark_spill
from vramfit.measure.trial import measured_trial
from vramfit.plan.search import CEILING, Search, Tried
from vramfit.records import Budget, Plan, Trial, Verdict
from vramfit.script.answer import ScriptAnswer, Watcher, judgement, write_down
from vramfit.script.command import Command
from vramfit.script.declared_options import USAGE_EXIT, named_wrongly
from vramfit.script.outcome import Measured, Outcome
from vramfit.script.searched_values import largest_divisor, most_samples, require_effect, share_of_rank, within_data
from vramfit.units import format_size

# Sizes of which a script may refuse the smallest: BatchNorm does not take a single value a channel.
_SMALLEST_REFUSED = 2


@dataclass
class ScriptMeasurer:
    """Trials of one command on the card that is here, each in a process of its own; `option` is what is searched.

    `guess` gives the largest value that prediction believes in, None where it knows nothing.
    """

    command: Command
    device: Device
    budget: Budget
    measure: Watcher
    option: str | None = None
    guess: Callable[[int], int | None] = lambda _: None
    on_trial: Callable[[Trial], None] = lambda _: None
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)

    def answer(self) -> ScriptAnswer:
        """The command as it stands.

        Raises:
            ScriptFailed: it failed by its own fault.

        """
        outcome = self.measure(self.command)
        trial = self._keep(outcome, outcome.batch_size or 1)
        reason = f"batch {trial.micro_batch}: as the command stands, it {judgement(trial)}."
        plan = Plan(micro_batch=trial.micro_batch, world_size=self.command.world_size, reason=reason)
        return self._written_down(plan, self.command)

    def largest(
        self, maximum: int | None = None, effective_batch: int | None = None, accumulation: str | None = None
    ) -> ScriptAnswer:
        """The largest value of the option that fits, beside the one above it that does not; as `ScriptPredictor`.

        Raises:
            NothingFits: not even the smallest does.
            ScriptFailed: the script does not know the option, or fails whatever its value.
            UsageError: the script ignores the option.

        """
        a_rank = effective_batch and share_of_rank(effective_batch, self.command)
        highest = min(maximum or CEILING, a_rank or CEILING)
        guess = self.guess(highest)
        search = Search(
            maximum=highest, guess=guess, budget_bytes=self.budget.budget_bytes, anchored=self.device.can_spill
        )
        found = self._searched(search)
        assert self.option is not None
        measured = ((value, outcome.measured) for value, outcome in self.outcomes.items())
        peaks = {value: taken.figures.peak_allocated_bytes for value, taken in measured if taken is not None}
        require_effect(self.option, self.outcomes, peaks)
        size = largest_divisor(a_rank or found, found)
        if size not in self.outcomes:
            self.proven(size)
        parts = (a_rank or size) // size
        plan = Plan(
            micro_batch=size,
            accumulation_steps=parts,
            world_size=self.command.world_size,
            objective="largest",
            reason=self._why(found),
        )
        command = self.command.with_value(self.option, size)
        return self._written_down(plan, command.with_value(accumulation, parts) if accumulation else command)

    def proven(self, value: int) -> Trial:
        """The trial of one value, from a run of the script with it."""
        assert self.option is not None
        outcome = self.measure(self.command.with_value(self.option, value))
        return self._keep(outcome, value)

    def _searched(self, search: Search) -> int:
        while (size := search.next_size([Tried.of(trial) for trial in self.trials])) is not None:
            try:
                self.proven(size)
            except ScriptFailed as error:
                if error.exit_code == USAGE_EXIT:
                    raise named_wrongly(self.option or "", self.command, error) from None
                if not search.minimum <= size < _SMALLEST_REFUSED:
                    raise
                search = replace(search, minimum=size + 1)
            most = most_samples(self.outcomes)
            if most and most < search.maximum:
                search = replace(search, maximum=most)
                self.trials = [trial for trial in self.trials if trial.micro_batch <= most]
        found = search.answer([Tried.of(trial) for trial in self.trials])
        if found is None:
            raise NothingFits(
                f"'{self.command.name}' does not fit with {self.option} {search.minimum} on {self.device.name}."
            )
        return found

    def _why(self, found: int) -> str:
        above = next((trial for trial in self.trials if trial.micro_batch == found + 1), None)
        if above is None:
            return f"batch {found}: the largest that was asked for or that the data makes, and it fits."
        if above.verdict is Verdict.OVER_BUDGET and above.excess_bytes:
            return f"batch {found}: {found + 1} exceeds the budget by {format_size(above.excess_bytes)}."
        return f"batch {found}: {found + 1} {judgement(above)}."

    def _keep(self, outcome: Outcome, micro_batch: int) -> Trial:
        assert outcome.measured is not None
        trial = trial_of(outcome, outcome.measured, micro_batch, self.budget, self._dedicated_bytes())
        trial = mark_spill(trial, self.trials) if self.device.can_spill else trial
        self.outcomes[micro_batch] = outcome
        self.trials.append(trial)
        self.on_trial(within_data(trial, self.outcomes))
        return trial

    def _dedicated_bytes(self) -> int | None:
        taken = self.budget.driver_bytes + self.budget.other_processes_bytes
        return self.budget.total_bytes - taken if self.device.can_spill else None

    def _written_down(self, plan: Plan, command: Command) -> ScriptAnswer:
        outcome = self.outcomes[plan.micro_batch]
        assert outcome.measured is not None
        trials = sorted(self.trials, key=lambda trial: trial.micro_batch)
        budget = self.budget.model_copy(update={"context_bytes": outcome.measured.figures.context_bytes})
        return write_down(command, outcome, plan=plan, trials=trials, budget=budget, machine=read_machine(self.device))


def trial_of(
    outcome: Outcome, measured: Measured, micro_batch: int, budget: Budget, dedicated_bytes: int | None
) -> Trial:
    """What a measured script says of a card, judged as any trial is.

    `dedicated_bytes` is the card's own memory where exceeding it spills instead of failing (Windows).
    """
    return measured_trial(
        micro_batch,
        measured.figures,
        budget,
        warm_up_retries=measured.warm_up_retries,
        step_time_s=measured.step_time_s,
        failure=outcome.error if outcome.ending == "out of memory" else None,
        total_bytes=dedicated_bytes,
    )
