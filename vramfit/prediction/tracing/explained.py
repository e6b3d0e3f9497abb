"""Why a step cannot be traced, in one sentence: the line, what fails there, and what to do."""

import inspect
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from vramfit.errors import NotTraceable, VramfitError
from vramfit.jobs.blame import place_of
from vramfit.jobs.job import Job
from vramfit.jobs.step import Step


@contextmanager
def explained(job: Job) -> Iterator[None]:
    """Within it, what fails is NotTraceable and one sentence; an error of vramfit's own is as it was."""
    try:
        yield
    except VramfitError:
        raise
    except Exception as error:
        explanation = _explanation(job, error)
        # Whoever prints a frame's tensors reads memory that is not there.
        traceback.clear_frames(error.__traceback__)
        raise NotTraceable(explanation) from error


# Raised by the stand-ins for kernels when a result's shape or value depends on values.
_NEEDS_VALUES = {"DataDependentOutputException", "DynamicOutputShapeException", "NeedsValues"}


def _explanation(job: Job, error: Exception) -> str:
    frame, place = frame_of(error), place_of(error)
    if type(error).__name__ in _NEEDS_VALUES:
        what = f"{getattr(error, 'func', error)} needs values that only a card has"
        advice = "write it without reading values (torch.where in place of a mask or .item())"
    else:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        what = f"{type(error).__name__}: {said}" if said else type(error).__name__
        ours = Path(frame.filename).parent == _JOBS or _LIBRARIES in frame.filename
        if job.loss is not None and (mending := place.advice_on_loss(error, frame.line or "")):
            return f"the step of '{job.name}' cannot be traced{place.words}: {what}; {mending}."
        advice = place.advice(error) or ("change what the job gives to it" if ours else "mend that line")
    line = f"{frame.filename.rpartition(_LIBRARIES)[2]}:{frame.lineno} `{frame.line}`"
    return f"the step of '{job.name}' cannot be traced at {line}{place.words}: {what}; {advice}, or measure on a card."


_LIBRARIES = f"site-packages{os.sep}"
_JOBS = Path(inspect.getfile(Step)).parent
_NOT_THEIRS = (Path(__file__).parent, Path(torch.__file__).parent)


def frame_of(error: Exception) -> traceback.FrameSummary:
    """The last frame of the traceback that is neither torch's nor the tracer's; the step's own where no other is.

    A class that looks attributes up itself fails where somebody asks it for one.
    """
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        frame
        for frame in frames
        if frame.name not in ("__getattr__", "__getattribute__")
        and not set(_NOT_THEIRS) & set(Path(frame.filename).parents)
    ]
    return (theirs or list(frames))[-1]
