"""The error of a cephalometric measure from those of its landmarks.

K landmarks. To first order, and with landmarks that err independently of each other, the variance of a measure m is the
sum over landmarks of J C J', where C is the landmark's 2x2 second moment and J the 2 derivatives of m by its place (the
law of propagation of uncertainty: JCGM 100:2008, 5.1.2). Landmarks that err together, as two found on one blurred
edge do, make it wrong by what they share.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.evaluation.measures import measured

Array = NDArray[np.float64]

# In the points' unit: far below what anyone marks, far above rounding.
_STEP = 1e-3


def measure_spreads(
    points: Array, moments: Array, symbols: Sequence[str], *, has_millimetres: bool
) -> dict[str, float]:
    """The standard deviation of every measure that the landmarks allow, in the measure's unit.

    Args:
        points: Kx2 with square units.
        moments: Kx2x2, the second moments of the landmarks' errors in the same units.
        symbols: K names.
        has_millimetres: whether the units are millimetres; measures in mm are left out if not.

    """
    steps = np.eye(points.size).reshape(-1, *points.shape) * _STEP
    moved = np.concatenate([points + steps, points - steps])
    spreads = {}
    for name, values in measured(moved, symbols, has_millimetres=has_millimetres).items():
        ahead, behind = np.split(values, 2)
        slopes = ((ahead - behind) / (2 * _STEP)).reshape(points.shape)
        # A landmark that a measure does not use, or that is missing, has no part in it.
        slopes = np.where(np.isfinite(slopes), slopes, 0)
        spreads[name] = float(np.sqrt(np.einsum("ki,kij,kj->", slopes, moments, slopes)))
    return spreads
