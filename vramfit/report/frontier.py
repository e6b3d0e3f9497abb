"""The table of levers: what each choice takes, how fast it is, and why it was picked or not."""

import sys
from typing import TextIO

from rich.table import Table

from vramfit.prediction.frontier import Frontier, FrontierRow
from vramfit.records import Schedule
from vramfit.report.table import MARK, RISKS, device_cell, epoch_time_s, gib, make_table, short_levers, show
from vramfit.units import format_duration

_COLUMNS = (
    *("choice", "batch", "x steps", "device\nGiB", "headroom\nGiB", "risk"),
    *("step\ntime", "images/s", "time per\nepoch", "levers", "why"),
)


def frontier_table(frontier: Frontier, schedule: Schedule) -> Table:
    """One row a choice of levers, the chosen one marked. Step time is that of an optimizer step, all its parts."""
    table = make_table(_COLUMNS)
    for row in frontier.rows:
        table.add_row(*_cells(row, schedule), style="bold" if row.chosen else None)
    return table


def show_frontier(frontier: Frontier, schedule: Schedule, file: TextIO | None = None) -> None:
    """Print the table, and the pick with its reason in a sentence."""
    file = file or sys.stdout
    show(frontier_table(frontier, schedule), file)
    print("", choice_sentence(frontier), "", sep="\n", file=file)


def choice_sentence(frontier: Frontier) -> str:
    """The pick and its reason."""
    choice = frontier.choice
    steps = f" x {choice.accumulation_steps} accumulation steps" if choice.accumulation_steps > 1 else ""
    return f"Levers: {choice.label}, batch {choice.trial.micro_batch}{steps}: {choice.reason}."


def _cells(row: FrontierRow, schedule: Schedule) -> tuple[str, ...]:
    trial, steps = row.trial, row.accumulation_steps
    return (
        f"{MARK if row.chosen else ''}{row.label}",
        str(trial.micro_batch),
        str(steps),
        device_cell(trial),
        gib(trial.headroom_bytes, signed=True),
        RISKS[trial.verdict],
        format_duration(None if trial.step_time_s is None else trial.step_time_s * steps),
        f"{trial.throughput_images_per_s:.1f}" if trial.throughput_images_per_s else "-",
        format_duration(epoch_time_s(trial, schedule)),
        short_levers(row.levers),
        row.reason,
    )
