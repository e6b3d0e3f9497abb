"""Words that findings share."""

from collections.abc import Sequence
from linecache import getline

from vramfit.postmortem.course import Course
from vramfit.postmortem.recording import Held
from vramfit.postmortem.stacks import Line
from vramfit.units import format_size

_LONGEST = 80


def share(size_bytes: int, whole_bytes: int) -> str:
    """A size and what it is of what was allocated."""
    return f"{format_size(size_bytes)} ({100 * size_bytes / max(1, whole_bytes):.0f} % of what was allocated)"


def since(blocks: Sequence[Held], course: Course) -> str:
    """Since which step blocks are held."""
    return f"since step {min(course.step_of(block.born) for block in blocks)}"


def at(verb: str, line: Line | None) -> str:
    """Where something is done, with the line itself where its file is here."""
    if line is None:
        return f"{verb} at an unknown line"
    source = "" if line.alias else getline(line.file, line.number).strip()
    if not source or len(source) > _LONGEST:
        return f"{verb} at {line}"
    return f"{verb} at {line} `{source}`"
