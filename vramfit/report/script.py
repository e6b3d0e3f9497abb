"""What a watched script takes of a card, for a terminal and a pipe."""

import sys
from typing import TextIO

from vramfit.report.explain import modules_table, words
from vramfit.report.table import (
    assumptions_of,
    budget_sentence,
    headline,
    host_bound_sentences,
    plan_sentence,
    trial_table,
)
from vramfit.report.terminal import make_table, say, show
from vramfit.script.answer import ScriptAnswer
from vramfit.units import GIB

_BAND = "Predicted: in parentheses the range that holds the true figure 9 times in 10."


def _times(answer: ScriptAnswer) -> list[str]:
    return [_BAND, *host_bound_sentences(answer.profile.trials)] if answer.peak else []


def show_script(answer: ScriptAnswer, file: TextIO | None = None) -> None:
    """Print an answer: the trials, the plan, the peak by phase and by module, and what was assumed."""
    file = file or sys.stdout
    profile = answer.profile
    say(headline(profile), budget_sentence(profile.budget), "", file=file)
    show(trial_table(profile.trials, profile.plan.micro_batch, None), file)
    say("", plan_sentence(profile), *_times(answer), *profile.notes, "", file=file)
    if answer.peak:
        say(words(answer.peak), "", file=file)
    # A phase's fullest moment, which of one phase alone is the peak's.
    phases = make_table(("phase, each at its fullest", "tensors\nGiB"))
    for phase, size in answer.phases.items():
        phases.add_row(phase, f"{size / GIB:.3f}")
    show(phases, file)
    if answer.peak:
        say("", file=file)
        show(modules_table(answer.peak), file)
    say(*_at_the_end(answer), file=file)


def _at_the_end(answer: ScriptAnswer) -> list[str]:
    """What a reader looks up rather than reads: assumptions, and files that the script thinks it wrote."""
    said = []
    if assumed := assumptions_of(answer.profile.trials):
        said.append(f"Assumed of values that only a card has: {assumed}.")
    if answer.written:
        said.append(f"Files that the script wrote to a scratch folder: {len(answer.written)}; yours are untouched.")
    return ["", *said] if said else []
