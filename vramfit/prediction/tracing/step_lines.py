"""Which lines are the step's own: neither torch's nor vramfit's, and below the trace that runs the step."""

import os
import sys
from pathlib import Path

import torch

TRACE = str(Path(__file__).with_name("trace.py"))  # what calls it is no part of the step
NOT_THEIRS = (f"{Path(__file__).parents[2]}{os.sep}", f"{Path(torch.__file__).parent}{os.sep}")


def place() -> str:
    """File and line of the innermost caller that is neither torch nor vramfit; "the step" where there is none."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(NOT_THEIRS):
        if frame.f_code.co_filename == TRACE:
            return "the step"
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
