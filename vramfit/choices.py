"""Words that options may be, and figures that stand where none is given. Loads nothing: the command line reads it."""

from dataclasses import dataclass
from typing import Literal

Amp = Literal["fp16", "bf16"]
Objective = Literal["fastest", "largest"]
Mode = Literal["auto", "measure", "predict"]

# What `--levers` may say beside a list of levers: those that cost no time, those that make the batch fit, none.
FREE, AUTO, NONE = "free", "auto", "none"

# The run of the guide that this project replaces: the training set of 'Aariz, 200 times.
IMAGES = 700
EPOCHS = 200
# At how many lengths batches are proven where samples vary in length: padding to the next costs a few percent.
BUCKETS = 32


@dataclass(frozen=True, slots=True)
class ValuePolicy:
    """What a trace does about values that only a card has."""

    strict: bool = False
    """Refuse a step that reads one, in place of assuming a healthy run at its largest."""

    real: bool = False
    """Compute them: run every operation for real on the CPU beside the trace, which suits small models alone."""

    number: int = 1
    """What a number is taken to be that is read from the card and of which nothing is known."""


ASSUMED = ValuePolicy()
