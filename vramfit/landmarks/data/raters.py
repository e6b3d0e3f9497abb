"""Whose points a film set's are, where two people marked it; read by the command line, so it loads fast."""

from typing import Literal

Annotator = Literal["mean", "senior", "junior"]
