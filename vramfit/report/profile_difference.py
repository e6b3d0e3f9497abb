"""What matters of the difference between two profiles, as a table with units; the JSON has every key."""

from collections.abc import Iterator

from rich.table import Table

from vramfit.jobs.levers.text import short_levers
from vramfit.records import Profile, Trial
from vramfit.report.table import RISKS, device_cell, step_cell
from vramfit.report.terminal import make_table
from vramfit.units import format_size


def difference_table(names: tuple[str, str], profiles: tuple[Profile, Profile]) -> Table:
    """One row for each of plan, job, machine, budget and batch tried in which the two differ; maybe none."""
    first, second = (dict(_facts(profile)) for profile in profiles)
    batches = sorted({trial.micro_batch for profile in profiles for trial in profile.trials})
    for facts, profile in zip((first, second), profiles, strict=True):
        facts.update({f"batch {size}, GiB": _tried(profile.trial(size)) for size in batches})
    table = make_table(("what", *names))
    for column in table.columns:
        column.justify = "left"
    for what, value in first.items():
        if value != second[what]:
            table.add_row(what, value, second[what])
    return table


def _facts(profile: Profile) -> Iterator[tuple[str, str]]:
    plan, job, machine = profile.plan, profile.job, profile.machine
    yield "planned micro-batch", str(plan.micro_batch)
    yield "accumulation steps", str(plan.accumulation_steps)
    yield "effective batch", str(plan.effective_batch)
    yield "levers", short_levers(plan.levers)
    yield "model", job.model
    yield "image", "x".join(map(str, job.image_size or ())) or "-"
    yield "precision", job.amp or "fp32"
    yield "memory order", "channels_last" if job.channels_last else "contiguous"
    yield "optimizer", job.optimizer or "-"
    yield "source", profile.source
    yield "card", machine.card or "-"
    yield "driver", machine.driver or "-"
    yield "torch", machine.torch or "-"
    yield "budget", format_size(profile.budget.budget_bytes)


def _tried(trial: Trial | None) -> str:
    if trial is None:
        return "not tried"
    return f"{device_cell(trial)}, {RISKS[trial.verdict]}, {step_cell(trial)}"
