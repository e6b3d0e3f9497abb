"""The table of levers: what each choice takes, how fast it is, and why it was picked or not.

The table has the figures; below it stand the levers and reasons by the number of their row, which no table has room
for.
"""

import sys
from typing import TextIO

from rich.table import Table

from vramfit.jobs.levers.text import short_levers
from vramfit.prediction.frontier import Frontier, FrontierRow
from vramfit.records import Schedule
from vramfit.report.table import MARK, RISKS, device_cell, epoch_cell, gib, step_cell
from vramfit.report.terminal import make_table, say, show

_FIGURES = ("choice", "batch", "x steps", "device\nGiB", "headroom\nGiB", "risk", "step\ntime")
_EPOCH = "time per\nepoch"


def frontier_table(frontier: Frontier, schedule: Schedule) -> Table:
    """One row a choice of levers, as a page numbers them, the chosen one marked.

    Step time is that of an optimizer step, all its parts.
    """
    table = make_table((*_FIGURES, "images/s", *_epoch_column(schedule)))
    for row in frontier.rows:
        rate = f"{row.trial.throughput_images_per_s:.1f}" if row.trial.throughput_images_per_s else "-"
        choice, *figures = _figures(row)
        name = f"{MARK if row.chosen else ''}{choice}"
        table.add_row(name, *figures, rate, *_epoch(row, schedule), style=_style(row))
    return table


def numbered_figures(frontier: Frontier, schedule: Schedule) -> Table:
    """The same rows in 120 columns, numbered, without images a second."""
    table = make_table(("row", *_FIGURES, *_epoch_column(schedule)))
    for number, row in enumerate(frontier.rows, start=1):
        name = f"{MARK if row.chosen else ''}{number}"
        table.add_row(name, *_figures(row), *_epoch(row, schedule), style=_style(row))
    return table


def legend(frontier: Frontier) -> list[str]:
    """One line a row of either table: its choice, batch and levers, and what speaks for or against it."""
    return [
        f"{number}. {row.label}, batch {row.trial.micro_batch}: "
        f"{short_levers(row.levers) if row.levers else 'no levers'}; {row.reason}."
        for number, row in enumerate(frontier.rows, start=1)
    ]


def show_frontier(frontier: Frontier, schedule: Schedule, file: TextIO | None = None) -> None:
    """Print the figures, the levers and reason of each row, and the pick with its reason in a sentence."""
    file = file or sys.stdout
    show(numbered_figures(frontier, schedule), file)
    say("", *legend(frontier), "", choice_sentence(frontier), "", file=file)


def choice_sentence(frontier: Frontier) -> str:
    """The pick and its reason."""
    choice = frontier.choice
    steps = f" x {choice.accumulation_steps} accumulation steps" if choice.accumulation_steps > 1 else ""
    return f"Levers: {choice.label}, batch {choice.trial.micro_batch}{steps}: {choice.reason}."


def _figures(row: FrontierRow) -> tuple[str, ...]:
    trial, steps = row.trial, row.accumulation_steps
    return (
        row.label,
        str(trial.micro_batch),
        str(steps),
        device_cell(trial),
        gib(trial.headroom_bytes, signed=True),
        RISKS[trial.verdict],
        step_cell(trial, steps),
    )


def _epoch_column(schedule: Schedule) -> tuple[str, ...]:
    return () if schedule.assumed else (_EPOCH,)


def _epoch(row: FrontierRow, schedule: Schedule) -> tuple[str, ...]:
    return () if schedule.assumed else (epoch_cell(row.trial, schedule),)


def _style(row: FrontierRow) -> str | None:
    return "bold" if row.chosen else None
