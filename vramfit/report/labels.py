"""Names beside points: none covers another name or lies outside the picture, and few cover a point.

Known limitation: names are placed one after the other, each in the best place left (Christensen, Marks and Shieber 1995
call it the greedy method); a search over all of them together would place more where points are crowded.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # left, top, right, bottom

# Where a name is tried around its point, the best first: right of it and above, then the other corners and sides.
_SIDES = np.array([(1, -1), (1, 1), (-1, -1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1)], dtype=np.float64)
_RINGS = np.array([1, 2, 3.5, 5, 7, 10, 14], dtype=np.float64)
_PER_RING, _PER_POINT = 8.0, 20.0  # places in the order of `_SIDES` that a ring, and a covered point, are worth


def place_labels(
    points: NDArray[np.float64],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    *,
    gap: float,
    farthest: float = 14,
    among: NDArray[np.float64] | None = None,
    taken: Sequence[Box] = (),
) -> list[Box | None]:
    """Boxes for names beside their points, the first named placed first; None where none is left or the point is NaN.

    Args:
        points: Nx2, (x, y) with y down, in any unit.
        sizes: N names' (width, height).
        frame: what names must lie in.
        gap: from a point to its name, and the diameter of a point.
        farthest: how many times the gap a name may stand away from its point.
        among: Mx2 points that names should not cover; None for `points` themselves.
        taken: boxes that no name may cover.

    """
    dots = points if among is None else among
    around = np.concatenate([dots - gap / 2, dots + gap / 2], axis=1)
    boxes: list[Box | None] = []
    blocked = list(taken)
    for point, size in zip(points, sizes, strict=True):
        tried, cost = _candidates(point, size, gap)
        cost += _PER_POINT * _covers(tried, around).sum(axis=1)
        cost[np.repeat(farthest < _RINGS, len(_SIDES))] = np.inf
        cost[~_inside(tried, frame) | _covers(tried, np.array(blocked).reshape(-1, 4)).any(axis=1)] = np.inf
        box = _box(tried[cost.argmin()]) if np.isfinite(cost.min()) else None
        boxes.append(box)
        blocked += [box] if box else []
    return boxes


def leader(point: Sequence[float], box: Box) -> tuple[float, float]:
    """The place of a box that is nearest to a point: where a line from the point to its name ends."""
    left, top, right, bottom = box
    return min(max(point[0], left), right), min(max(point[1], top), bottom)


def _candidates(
    point: NDArray[np.float64], size: tuple[float, float], gap: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cx4 boxes around a point, and what each costs for where it lies."""
    away = (_RINGS[:, None, None] * gap * _SIDES).reshape(-1, 2)
    begins = np.tile((_SIDES - 1) / 2, (len(_RINGS), 1))  # a name right of its point begins there; left of it, it ends
    low = point + away + begins * np.array(size)
    cost = np.arange(len(low)) % len(_SIDES) + _PER_RING * np.repeat(_RINGS - 1, len(_SIDES))
    return np.concatenate([low, low + np.array(size)], axis=1), cost


def _inside(boxes: NDArray[np.float64], frame: Box) -> NDArray[np.bool_]:
    """Which boxes lie in a frame; none of NaN does."""
    return np.asarray((boxes[:, :2] >= frame[:2]).all(axis=1) & (boxes[:, 2:] <= frame[2:]).all(axis=1))


def _box(corners: NDArray[np.float64]) -> Box:
    left, top, right, bottom = corners.tolist()
    return left, top, right, bottom


def _covers(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """BxO: which boxes share some area with which others; a box of NaN covers nothing."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray((low < high).all(axis=2))
