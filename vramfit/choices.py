"""Words that options may be, and figures that stand where none is given. Loads nothing: the command line reads it."""

from typing import Literal

Amp = Literal["fp16", "bf16"]
Objective = Literal["fastest", "largest"]
Mode = Literal["auto", "measure", "predict"]

# The run of the guide that this project replaces: the training set of 'Aariz, 200 times.
IMAGES = 700
EPOCHS = 200
