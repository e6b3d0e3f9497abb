"""From a watched script to an answer: a trial, where its peak comes, and what was taken for granted."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vramfit._version import __version__
from vramfit.cards import Card
from vramfit.choices import Amp
from vramfit.errors import NothingFits, NotTraceable, ScriptFailed, UsageError
from vramfit.jobs.levers.text import parse_levers
from vramfit.measure.machine import read_machine
from vramfit.plan.search import CEILING
from vramfit.prediction.allocator.allocator import Settings
from vramfit.prediction.explain import Explanation, explain_trial
from vramfit.prediction.largest_batch import LargestBatch
from vramfit.prediction.overheads import NCCL_BYTES
from vramfit.prediction.phase_peaks import phase_peaks
from vramfit.prediction.trace_predictor import TracePredictor
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.trace_series import TraceSeries
from vramfit.prediction.tracing.trace import order_frees
from vramfit.records import Budget, Bytes, JobKey, Machine, Plan, Profile, Record, Schedule, Trial, Verdict
from vramfit.script.command import Command
from vramfit.script.declared_options import USAGE_EXIT, named_wrongly
from vramfit.script.leaks import leak_note
from vramfit.script.levers import allocator_environment
from vramfit.script.outcome import Outcome
from vramfit.units import format_size

_SHOWN = 4
# Runs of as many samples whose peaks differ by less than this share took the same: lengths of texts may vary a little.
_SAME_PEAK = 0.05

Watcher = Callable[[Command], Outcome]


class ScriptAnswer(Record):
    """What is known of a script on a card.

    `command` is the line to train with; `phases` are the most bytes of tensors held in each phase, predicted before the
    allocator rounds them, measured where a phase held more than those before; `peak` says where a predicted peak comes
    from; `assumptions` are `file:line: what`; `written` are files that went to a scratch folder.
    """

    command: tuple[str, ...]
    steps: int
    validated: bool
    phases: dict[str, Bytes]
    peak: Explanation | None
    assumptions: tuple[str, ...]
    written: tuple[str, ...]
    host_peak_bytes: Bytes
    profile: Profile


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


def write_down(
    command: Command,
    outcome: Outcome,
    *,
    plan: Plan,
    trials: Sequence[Trial],
    budget: Budget,
    machine: Machine,
    peak: Explanation | None = None,
) -> ScriptAnswer:
    """The answer from what became of a script: of its trace where it was predicted, else of what was measured."""
    plan = plan.model_copy(update={"levers": parse_levers(",".join(outcome.levers))})
    trace, measured = outcome.trace or Trace(plan.micro_batch), outcome.measured
    planned = next(trial for trial in trials if trial.micro_batch == plan.micro_batch)
    leak = leak_note(outcome, planned)
    return ScriptAnswer(
        command=tuple(command.words()),
        steps=outcome.steps_made,
        validated=outcome.validated,
        phases=measured.phases if measured else {name: peak.size_bytes for name, peak in phase_peaks(trace).items()},
        peak=peak,
        assumptions=tuple(trace.assumptions),
        written=outcome.written,
        host_peak_bytes=outcome.host_peak_bytes,
        profile=Profile(
            vramfit_version=__version__,
            source="measured" if measured else "predicted",
            job=_job_key(command, trace, outcome),
            machine=machine,
            budget=budget,
            schedule=Schedule(assumed=True),
            plan=plan,
            trials=tuple(trials),
            notes=(*([leak] if leak else []), *_notes(outcome, trace), *rank_notes(command), *budget.notes),
        ),
    )


def most_samples(outcomes: Mapping[int, Outcome]) -> int | None:
    """The largest batch that a script's data makes, where larger values were tried; None where they were not."""
    seen = {value: outcome.batch_size for value, outcome in outcomes.items()}
    short = [batch for value, batch in seen.items() if batch < value]
    is_batch = any(batch == value for value, batch in seen.items())
    return max(short) if short and is_batch else None


def within_data(trial: Trial, outcomes: Mapping[int, Outcome]) -> Trial:
    """The trial of a value, which says so in its note where the script's data makes no batch as large."""
    most = most_samples(outcomes)
    if most is None or trial.micro_batch <= most:
        return trial
    return trial.model_copy(update={"note": f"the data makes batches of {most} at most"})


def require_effect(option: str, outcomes: Mapping[int, Outcome], peaks: Mapping[int, int]) -> None:
    """Refuse a search whose values made no difference: every run had as many samples, and took as much memory.

    `peaks` are the most bytes of tensors by value.

    Raises:
        UsageError: the script ignores the option.

    """
    counts = {outcomes[value].batch_size for value in peaks}
    if len(peaks) < 2 or len(counts) > 1 or counts == {min(peaks)}:
        return
    (samples,), highest = counts, max(peaks.values())
    if highest - min(peaks.values()) > (_SAME_PEAK * highest if samples else 0):
        return
    had = f"had {samples} samples and " if samples else ""
    raise UsageError(
        f"--find {option} changes nothing: every run {had}took {format_size(highest)} of tensors, with values of "
        f"{min(peaks)} to {max(peaks)}; name one that the script's memory depends on."
    )


def share_of_rank(effective_batch: int, command: Command) -> int:
    """Samples of an optimizer step on one rank.

    Raises:
        UsageError: they cannot be shared out evenly.

    """
    if effective_batch % command.world_size:
        raise UsageError(f"--effective-batch {effective_batch} cannot be shared by {command.world_size} ranks evenly.")
    return effective_batch // command.world_size


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number up to a limit: a script's accumulation steps are all of one size."""
    return next(size for size in range(min(limit, number), 0, -1) if number % size == 0)


def _whole(outcome: Outcome) -> Trace:
    assert outcome.trace is not None
    order_frees(outcome.trace)
    return outcome.trace


def rank_notes(command: Command) -> list[str]:
    """What to know of a script that runs in several processes; nothing of one that does not."""
    if command.world_size < 2:
        return []
    low, high = map(format_size, NCCL_BYTES)
    return [
        f"What each of {command.world_size} ranks takes: its weights or, of FSDP2, its part of them, its share of the "
        f"data and the buckets of DistributedDataParallel. NCCL takes {low} to {high} of the card beside it, of which "
        "the most is in the high end of a predicted range; the time of communication is not in the step."
    ]


def judgement(trial: Trial) -> str:
    """What a verdict says of a batch, in words."""
    words = {Verdict.FITS: "fits", Verdict.RISKY: "may not fit", Verdict.SPILLED: "spills into system memory"}
    return words.get(trial.verdict, "does not fit")


def _job_key(command: Command, trace: Trace, outcome: Outcome) -> JobKey:
    dtypes = {operation.dtype for operation in trace.operations if operation.phase == "forward" and operation.flops}
    traced: Amp | None = "fp16" if "float16" in dtypes else "bf16" if "bfloat16" in dtypes else None
    return JobKey(
        name=command.name,
        model=command.name,
        amp=outcome.measured.amp if outcome.measured else traced,
        cudnn_benchmark=outcome.cudnn_benchmark,
        fingerprint=hashlib.sha256("\0".join(command.words()).encode()).hexdigest()[:16],
    )


def _notes(outcome: Outcome, trace: Trace) -> list[str]:
    validated = " and a validation" if outcome.validated else ", and no validation"
    notes = [f"Seen: {outcome.steps_made} optimizer steps{validated}, in {outcome.seconds:.0f} s.", *outcome.notes]
    if outcome.levers:
        notes.append(f"Levers pulled from outside the script: {', '.join(outcome.levers)}.")
    samples = (outcome.measured.samples if outcome.measured else trace.samples).values()
    if len(set(samples)) > 1:
        most, least = max(samples), min(samples)
        notes.append(f"Time and peak are those of a step of {most} samples; others had as few as {least}.")
    if trace.assumptions:
        more = len(trace.assumptions) - _SHOWN
        shown = "; ".join(trace.assumptions[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        notes.append(f"Assumed of values that only a card has: {shown}.")
    if outcome.written:
        notes.append(f"Files of the script that went to a scratch folder, now gone: {len(outcome.written)}.")
    return notes
