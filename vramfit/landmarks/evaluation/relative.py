"""Errors by the size of what is marked, for films without pixel sizes: what is usual for bodies and animals.

N films, K landmarks. The reference of a film is the larger side of the box around its true points; its area is the
box's, at least a quarter of the reference squared, for points may lie on a line.
"""

import numpy as np
from numpy.typing import NDArray

from vramfit.records import Record

Array = NDArray[np.float64]

LIMITS = (0.05, 0.1, 0.2)
# One spread for every landmark, where COCO has one for each joint of a body.
SIGMA = 0.05


class RelativeScores(Record):
    """Mean error in per cent of the reference, PCK and OKS, all over known points.

    `pck` maps `0.05` and so on to the share of points nearer than that part of the reference (Yang and Ramanan 2013);
    `oks` is COCO's object keypoint similarity, exp(-d^2 / (2 area (2 sigma)^2)), with sigma 0.05 for every landmark.
    """

    mean_percent: float
    pck: dict[str, float]
    oks: float


def relative_scores(errors: Array, truth: Array) -> RelativeScores | None:
    """The scores of NxK errors in pixels by the true points NxKx2; None where no film has two points and an error."""
    sides = np.fmax.reduce(truth, axis=1) - np.fmin.reduce(truth, axis=1)
    reference = np.where(sides.max(axis=1) > 0, sides.max(axis=1), np.nan)
    area = np.maximum(sides.prod(axis=1), reference**2 / 4)
    shares = errors / reference[:, None]
    known = shares[np.isfinite(shares)]
    if not known.size:
        return None
    similarity = np.exp(-(errors**2) / (2 * area[:, None] * (2 * SIGMA) ** 2))
    return RelativeScores(
        mean_percent=float(100 * known.mean()),
        pck={f"{limit:g}": float((known < limit).mean()) for limit in LIMITS},
        oks=float(np.nanmean(similarity)),
    )
