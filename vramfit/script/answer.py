"""What is known of a script on a card, however it was found: a trial, where its peak comes, what was assumed."""

import hashlib
from collections.abc import Callable, Sequence

from vramfit._version import __version__
from vramfit.choices import Amp
from vramfit.jobs.levers.text import parse_levers
from vramfit.prediction.explain import Explanation
from vramfit.prediction.overheads import NCCL_BYTES
from vramfit.prediction.phase_peaks import phase_peaks
from vramfit.prediction.trace_records import Trace
from vramfit.records import Budget, Bytes, JobKey, Machine, Plan, Profile, Record, Schedule, Trial, Verdict
from vramfit.script.command import Command
from vramfit.script.leaks import leak_note
from vramfit.script.outcome import Outcome
from vramfit.units import format_size

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
        notes.append(f"Levers, applied without a change of the script: {', '.join(outcome.levers)}.")
    samples = (outcome.measured.samples if outcome.measured else trace.samples).values()
    if len(set(samples)) > 1:
        most, least = max(samples), min(samples)
        notes.append(f"Time and peak are those of a step of {most} samples; others had as few as {least}.")
    return notes
