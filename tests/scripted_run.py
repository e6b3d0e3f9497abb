"""A scripted card in the process of a script under `vramfit run`: the script's network takes its memory from it."""

import os

import torch
from scripted_card import Hungry, ScriptedCard

from vramfit.measure.memory import MemoryFigures
from vramfit.script.outcome import Measured, Outcome
from vramfit.units import GIB

CARD = ScriptedCard(
    capacity_bytes=int(os.environ.get("SCRIPTED_CAPACITY", 8 * GIB)),
    retries_at=lambda images: int(images == int(os.environ.get("SCRIPTED_RETRIES_AT", "-1"))),
    held_bytes=lambda steps: steps * int(os.environ.get("SCRIPTED_HELD_A_STEP", "0")),
    skipped_steps=0,
    validation=0.5,
)


def open_card() -> ScriptedCard:
    """The card of this process; torch says that CUDA is there for the script's own questions."""
    torch.manual_seed(0)
    return CARD


def network() -> Hungry:
    """A network on the card."""
    return Hungry(CARD)


def played(card, images=1000):
    """Runs of a script whose batch is its option, on the card alone: no process is started."""

    def measure(command):
        asked = int(command.arguments[command.arguments.index("--batch-size") + 1])
        size = min(asked, images)
        trial = card.trial(size)
        taken = (trial.device_used_bytes or card.context_bytes) - card.context_bytes
        return Outcome(
            ending="seen" if trial.verdict == "fits" else "out of memory",
            steps_made=3,
            batch_size=size,
            measured=Measured(
                figures=MemoryFigures(taken, taken, card.context_bytes, 0),
                warm_up_retries=0,
                step_time_s=trial.step_time_s,
                peak_phase="forward",
                phases={},
                samples={},
            ),
        )

    return measure
