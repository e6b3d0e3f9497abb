"""The choice among trials that fit, and what it means for the batch that the optimizer sees.

Pure: records in, a trial or a plan out, with the reason as a sentence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vramfit.choices import Objective
from vramfit.errors import NothingFits, UsageError
from vramfit.records import Plan, Trial, Verdict
from vramfit.units import format_duration, format_gib

# Throughputs closer than this share of the best are the same to a user, and a smaller batch is safer.
NEAR_BEST = 0.02


def choose_trial(
    trials: Iterable[Trial], objective: Objective, *, accumulate: bool = False, batch_norm: bool = False
) -> Trial:
    """The trial to train with, among those that fit.

    `largest` takes the largest micro-batch; `fastest` the smallest within 2 % of the best throughput, or the
    largest where nothing was timed. To `accumulate` up to an effective batch, the largest of those as fast is
    taken, for fewer and larger micro-batches are kinder to BatchNorm. With `batch_norm` 1 is not taken where a larger
    one is as fast: its statistics would be those of a single sample.

    Raises:
        NothingFits: no trial fits.

    """
    fitting = sorted((trial for trial in trials if trial.verdict is Verdict.FITS), key=lambda trial: trial.micro_batch)
    if not fitting:
        raise NothingFits("No trial fits the budget; free memory, allow more, or make the job smaller.")
    timed = [trial for trial in fitting if trial.throughput_images_per_s]
    if objective == "largest" or not timed:
        return fitting[-1]
    best = max(_throughput(trial) for trial in timed)
    as_fast = [trial for trial in timed if _throughput(trial) >= (1 - NEAR_BEST) * best]
    if batch_norm:
        as_fast = [trial for trial in as_fast if trial.micro_batch > 1] or as_fast
    return as_fast[-1 if accumulate else 0]


def reason_for(chosen: Trial, trials: Sequence[Trial], objective: Objective, most: str | None = None) -> str:
    """One sentence: why this micro-batch and not the next; `most` says why no larger one was to be tried."""
    why = _why_not_larger(chosen, trials, objective) or most
    return f"batch {chosen.micro_batch}: {why}." if why else f"batch {chosen.micro_batch} fits, as requested."


@dataclass(frozen=True)
class Division:
    """How one effective batch is made: micro-batches per step and card, and what could not be placed.

    `last_micro_batch` is the size of the last micro-batch of a step where it is smaller than the others.
    `remainder` is the samples of the wanted batch that do not divide over the cards.
    """

    micro_batch: int
    accumulation_steps: int
    last_micro_batch: int | None
    remainder: int

    def note(self, wanted: int, world_size: int) -> str:
        """One sentence that says how the wanted batch is made, any remainder included."""
        if self.accumulation_steps == 1:
            parts = f"one micro-batch of {self.micro_batch}"
        elif self.last_micro_batch is None:
            parts = f"{self.accumulation_steps} micro-batches of {self.micro_batch}"
        else:
            full = self.accumulation_steps - 1
            several = f"{full} micro-batches" if full > 1 else "a micro-batch"
            parts = f"{several} of {self.micro_batch} and a last one of {self.last_micro_batch}, weighted by its size"
        cards = f" on each of {world_size} cards" if world_size > 1 else ""
        left = f"; {self.remainder} of them do not divide over the cards and are left out" if self.remainder else ""
        return f"The effective batch of {wanted} is {parts}{cards}{left}."


def divide_batch(effective_batch: int, largest_micro_batch: int, world_size: int = 1) -> Division:
    """Solve effective batch = micro-batch x accumulation x cards, with as few and as even micro-batches as fit.

    Raises:
        UsageError: the effective batch is smaller than the number of cards, or not positive.

    """
    if effective_batch < world_size or effective_batch < 1:
        raise UsageError(
            f"An effective batch of {effective_batch} cannot be divided over {world_size} cards; "
            f"use {world_size} or more."
        )
    share, remainder = divmod(effective_batch, world_size)
    steps = -(-share // largest_micro_batch)
    micro_batch = -(-share // steps)
    steps = -(-share // micro_batch)
    last = share - micro_batch * (steps - 1)
    return Division(micro_batch, steps, last if last < micro_batch else None, remainder)


def make_plan(
    chosen: Trial,
    trials: Sequence[Trial],
    objective: Objective,
    *,
    effective_batch: int | None = None,
    world_size: int = 1,
    batch_norm: bool = False,
    most: str | None = None,
) -> Plan:
    """The plan that follows from the chosen trial; its notes say what a user should know before the run.

    `most` says why no larger micro-batch was to be tried; None where a user named the sizes.
    """
    division = divide_batch(effective_batch or chosen.micro_batch * world_size, chosen.micro_batch, world_size)
    reason = reason_for(chosen, trials, objective, most)
    if division.accumulation_steps > 1 and division.micro_batch < chosen.micro_batch:
        reason = _reason_to_split(chosen, trials, objective, division)
    notes = [division.note(effective_batch, world_size)] if effective_batch else []
    if batch_norm:
        notes += batch_norm_notes(division)
    return Plan(
        micro_batch=division.micro_batch,
        accumulation_steps=division.accumulation_steps,
        last_micro_batch=division.last_micro_batch,
        world_size=world_size,
        objective=objective,
        reason=reason,
        notes=tuple(notes),
    )


def division_note(plan: Plan) -> str:
    """The sentence of a plan for one card that says how its effective batch is made; `make_plan` notes it if asked."""
    division = Division(plan.micro_batch, plan.accumulation_steps, plan.last_micro_batch, remainder=0)
    return division.note(plan.effective_batch, plan.world_size)


def choose_lever(name: str, without: Trial, with_it: Trial) -> tuple[bool, str]:
    """Whether a plan is to use a lever, by two measured trials of one micro-batch, and why, as a sentence."""
    batch = f"{name}: batch {without.micro_batch}"
    if with_it.verdict is not Verdict.FITS:
        return False, f"{batch} does not fit with it; left off."
    if without.verdict is not Verdict.FITS:
        return True, f"{batch} does not fit without it; the plan uses it."
    times = f"{batch} takes {format_duration(with_it.step_time_s)} a step with it"
    times += f" and {format_duration(without.step_time_s)} without"
    if _throughput(with_it) * (1 - NEAR_BEST) > _throughput(without):
        return True, f"{times}; the plan uses it."
    return False, f"{times}; left off."


def batch_norm_notes(division: Division) -> list[str]:
    """What accumulation does to BatchNorm; empty where there is no accumulation and no batch of one."""
    notes = []
    if division.accumulation_steps > 1:
        notes.append(
            f"BatchNorm sees micro-batches of {division.micro_batch}, not the effective batch: "
            "accumulation is not neutral for this network."
        )
    if 1 in (division.micro_batch, division.last_micro_batch):
        notes.append("BatchNorm over a micro-batch of 1 sees a single sample; its statistics are noisy.")
    return notes


def learning_rate_offer(learning_rate: float, tuned_for: int, effective_batch: int) -> str | None:
    """What the scaling rules would make of a learning rate; an offer in words, None where nothing changes.

    Linear rule: Goyal et al. 2017 (SGD). Square-root rule: Krizhevsky 2014, used with Adam.
    """
    if tuned_for == effective_batch:
        return None
    factor = effective_batch / tuned_for
    return (
        f"The learning rate stays {learning_rate:g}. For a batch of {effective_batch} in place of {tuned_for} the "
        f"linear rule would give {learning_rate * factor:.3g}, the square-root rule {learning_rate * factor**0.5:.3g}."
    )


def _throughput(trial: Trial) -> float:
    return trial.throughput_images_per_s or 0.0


def _why_not_larger(chosen: Trial, trials: Sequence[Trial], objective: Objective) -> str | None:
    """What speaks against a larger micro-batch, its size first; None where none was tried."""
    larger = sorted((t for t in trials if t.micro_batch > chosen.micro_batch), key=lambda trial: trial.micro_batch)
    fitting = [trial for trial in larger if trial.verdict is Verdict.FITS]
    if objective == "fastest" and fitting and chosen.throughput_images_per_s:
        most = max(fitting, key=_throughput)
        gain = _throughput(most) / chosen.throughput_images_per_s - 1
        words = f"only {gain:.0%} faster" if gain > 0.005 else "no faster"
        return f"{most.micro_batch} fits too, but is {words}"
    return _refusal((fitting or larger)[0]) if larger else None


def _reason_to_split(chosen: Trial, trials: Sequence[Trial], objective: Objective, division: Division) -> str:
    """One sentence: why the batch is not run at once, and what makes its parts smaller than they could be."""
    why = _why_not_larger(chosen, trials, objective)
    limit = f"A micro-batch of {why}" if why else f"Micro-batches of up to {chosen.micro_batch} were allowed"
    steps, size = division.accumulation_steps, division.micro_batch
    if division.last_micro_batch is not None:
        return f"{limit}; {steps} of up to {size} divide the batch most evenly."
    return f"{limit}; {steps} x {size} divides {steps * size} evenly."


def _refusal(trial: Trial) -> str:
    size = trial.micro_batch
    if trial.verdict is Verdict.OOM:
        return f"{size} runs out of memory"
    if trial.verdict is Verdict.SPILLED:
        return f"{size} spills into system memory"
    if trial.verdict is Verdict.FAILED:
        return f"{size} failed ({trial.note})" if trial.note else f"{size} failed"
    if trial.verdict is Verdict.FITS:
        return f"{size} fits too, but nothing says that it is faster"
    return f"{size} {excess_of(trial)}"


def excess_of(trial: Trial) -> str:
    """By how much a trial exceeds its budget, or may, in the unit of tables."""
    verb = "may exceed" if trial.verdict is Verdict.RISKY else "exceeds"
    known = trial.device_used_bytes is not None
    return f"{verb} the budget by {format_gib(trial.excess_bytes) if known else 'some memory'}"
