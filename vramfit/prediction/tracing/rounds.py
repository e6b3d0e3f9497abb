"""How long a loop goes on that ends by a value which only a card has, as an iteration to a fixed point does.

Asked for such a value round after round, a trace would never end. After some rounds it is answered so that the loop
ends: where no round holds more than the one before it, their number makes no difference to memory. Where each does,
nobody knows.
"""

import ast
import linecache
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import FrameType

from vramfit.prediction.tracing.step_lines import NOT_THEIRS, TRACE
from vramfit.prediction.tracing.undecided import EndlessLoop

# Rounds after which a loop is taken to end, and those after which one that holds more in each is given up.
_ROUNDS, _MOST_ROUNDS = 64, 1024
_FEW_BYTES = 64  # more than this in each round, a number or two that is kept of it apart, is growth
_ENDLESS = ("count(", "itertools.count(", "cycle(", "itertools.cycle(", "iter(")
_Loop = tuple[int, str, int]


class Rounds:
    """Counts how often each loop asked; `held_bytes` says what the card holds."""

    def __init__(self, held_bytes: Callable[[], int]) -> None:
        self._held_bytes = held_bytes
        self._held: dict[_Loop, list[int]] = {}

    def forget(self, frame: FrameType | None = None) -> None:
        """A function was entered, whose frame is given: loops as deep as it have ended. All have where none is."""
        if self._held:
            depth = _depth_of(frame)
            self._held = {loop: held for loop, held in self._held.items() if loop[0] < depth}

    def ended(self) -> bool:
        """Whether the loop around the line that asks has gone on for so long that it is taken to end.

        Raises:
            EndlessLoop: it goes on, and holds more in each round.

        """
        loop = _loop_around(sys._getframe(1))
        if loop is None:
            return False
        held = self._held.setdefault(loop, [])
        held.append(self._held_bytes())
        if len(held) <= _ROUNDS:
            return False
        grown = (held[-1] - held[len(held) // 2]) / (len(held) - len(held) // 2)
        if len(held) > _MOST_ROUNDS:
            raise EndlessLoop(
                f"the loop at {Path(loop[1]).name}:{loop[2]} ends by a value that only a card has and holds more in "
                "each round, so its memory is not known; bound its rounds (for _ in range(n)), or measure on a card."
            )
        return grown <= _FEW_BYTES


def _depth_of(frame: FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


def _loop_around(frame: FrameType | None) -> _Loop | None:
    """The line of the innermost loop without a bound in a job's own code, with its depth; None where there is none."""
    while frame is not None and (path := frame.f_code.co_filename) != TRACE:
        if not path.startswith(NOT_THEIRS):
            bounded = _bounds(path).get(frame.f_lineno)
            if bounded is not None or not linecache.getlines(path):
                return None if bounded else (_depth_of(frame), path, frame.f_lineno)
        frame = frame.f_back
    return None


@lru_cache(maxsize=256)
def _bounds(path: str) -> dict[int, bool]:
    """Whether the innermost loop around each line of a file has a bound; lines outside of loops are left out."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except SyntaxError:
        return {}
    found: dict[int, bool] = {}
    _walk(tree, None, found)
    return found


def _walk(node: ast.AST, bounded: bool | None, found: dict[int, bool]) -> None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        bounded = None
        for inside in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            found.pop(inside, None)
    elif isinstance(node, ast.While):
        bounded = False
    elif isinstance(node, (ast.For, ast.comprehension)):
        bounded = not ast.unparse(node.iter).startswith(_ENDLESS)
    if bounded is not None and (line := getattr(node, "lineno", None)) is not None:
        found.update(dict.fromkeys(range(line, (node.end_lineno or line) + 1), bounded))  # type: ignore[attr-defined]
    for child in ast.iter_child_nodes(node):
        _walk(child, bounded, found)
