"""What fits at each length: its table, and what that means for a loader."""

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.table import Table

from vramfit.plan.length_plan import LengthPlan, ProvenLength
from vramfit.plan.lengths import Length, name_of
from vramfit.records import Trial, Verdict
from vramfit.report.table import MARK, RISKS, assumptions_of, budget_sentence, device_cell, gib, step_cell
from vramfit.report.terminal import make_table, say, show
from vramfit.units import format_duration

# What the numbers of a length count, by axis.
_UNITS = {"tokens": "tokens", "points": "points", "frames": "frames", "image_size": "pixels"}


def length_table(plan: LengthPlan) -> Table:
    """One row a proven length: its share of the samples, its batch, and what that takes and does a second."""
    unit = _UNITS[plan.axis]
    shares = "samples" if plan.counted else "of range"
    columns = (f"{unit}\nup to", shares, "batch", f"{unit}\na batch", "device\nGiB", "headroom\nGiB", "step\ntime")
    table = make_table((*columns, f"{unit}/s", "source"))
    total = sum(one.samples for one in plan.proven)
    for one in plan.proven:
        trial = one.trial
        table.add_row(
            name_of(one.length),
            f"{one.samples / total:.1%}",
            str(trial.micro_batch),
            str(one.tokens),
            device_cell(trial),
            gib(trial.headroom_bytes, signed=True),
            step_cell(trial),
            f"{one.tokens / trial.step_time_s:.0f}" if trial.step_time_s else "-",
            trial.source,
        )
    return table


def length_sentences(plan: LengthPlan, batch: int | None = None) -> list[str]:
    """The worst batch of a loader that takes a fixed number of samples, the token budget, and what a sampler gains."""
    unit, longest = _UNITS[plan.axis], plan.longest
    said = [
        f"Worst reachable batch: with a fixed batch size all samples of a batch may be of {name_of(longest.length)}; "
        f"{plan.fixed_batch} of them fit."
    ]
    if batch is not None and batch > plan.fixed_batch:
        said[0] += f" Batch {batch} runs out of memory as soon as enough long samples meet."
    said.append(
        f"Token budget: {plan.token_budget} {unit} a batch, samples padded to the next length of the table, "
        "is the most that fits at all of them."
    )
    if gain := _gain(plan):
        said.append(gain)
    said.append(
        "vramfit.TokenBudgetSampler(lengths, plan) builds batches of which none is above this table; "
        "the plan is fit_lengths' own, or LengthPlan.read of --export's file."
    )
    if assumed := assumptions_of(one.trial for one in plan.proven):
        said.append(f"Assumed of values that only a card has: {assumed}.")
    return [*said, *plan.notes]


def show_lengths(plan: LengthPlan, batch: int | None = None, file: TextIO | None = None) -> None:
    """Print the budget, the table and what follows from it; `batch` is the loader's fixed batch, if it has one."""
    file = file or sys.stdout
    where = plan.machine.card or "this machine"
    say(f"{plan.job.model} {plan.job.optimizer} on {where} ({plan.source})", file=file)
    say(budget_sentence(plan.budget), "", file=file)
    show(length_table(plan), file)
    say("", *length_sentences(plan, batch), file=file)


def show_longest(
    axis: str, trials: Sequence[tuple[Length, Trial]], notes: Sequence[str] = (), file: TextIO | None = None
) -> None:
    """Print the trials of a search along an axis at one batch, the longest that fits marked, and it in a sentence."""
    file = file or sys.stdout
    unit = axis.replace("_", " ")
    answer = max(length for length, trial in trials if trial.verdict is Verdict.FITS)
    table = make_table((unit, "batch", "device\nGiB", "headroom\nGiB", "risk", "step\ntime", "source"))
    for length, trial in trials:
        table.add_row(
            f"{MARK if length == answer else ''}{name_of(length)}",
            str(trial.micro_batch),
            device_cell(trial),
            gib(trial.headroom_bytes, signed=True),
            RISKS[trial.verdict],
            step_cell(trial),
            trial.source,
            style="bold" if length == answer else None,
        )
    show(table, file)
    say("", f"Longest: {unit} {name_of(answer)} at batch {trials[0][1].micro_batch}.", *notes, file=file)


def _gain(plan: LengthPlan) -> str:
    """Steps and seconds of an epoch with the sampler, and with the fixed batch that fits at every length."""
    if not plan.counted:
        return ""
    samples = sum(one.samples for one in plan.proven)
    fixed = -(-samples // plan.fixed_batch)
    steps = sum(one.batches for one in plan.proven)
    said = f"An epoch of {samples} samples: about {steps} steps with the sampler, {fixed} with batch {plan.fixed_batch}"
    times = _seconds(plan.proven)
    if times is None or plan.longest.trial.step_time_s is None:
        return f"{said}."
    padded = format_duration(fixed * plan.longest.trial.step_time_s)
    return f"{said}: {format_duration(times)} against {padded} where every batch is padded to the longest."


def _seconds(proven: Sequence[ProvenLength]) -> float | None:
    times = [one.trial.step_time_s for one in proven]
    if any(time is None for time in times):
        return None
    return sum(one.samples / one.trial.micro_batch * (time or 0.0) for one, time in zip(proven, times, strict=True))
