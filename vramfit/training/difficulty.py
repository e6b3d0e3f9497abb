"""Landmarks that are hard to find count for more: factors of the loss, from the errors of validation.

After each epoch, with the mean error of landmark k over the validation films, in the units of the task:

    running_k <- 0.7 running_k + 0.3 error_k                  the first epoch's errors to begin with
    factor_k   = (running_k / mean of running) ^ power        kept within 1/3 and 3, then divided by the mean factor

Factors change between epochs alone, so how a batch is split into micro-batches changes no gradient. They follow from
the running errors, which every checkpoint holds. What they learn of the validation films is one number a landmark.
"""

from collections.abc import Sequence

import numpy as np

from vramfit.training.task import Rows

_KEPT = 0.7
_MOST = 3.0


def running_errors(running: Sequence[float], rows: Rows) -> list[float]:
    """The running errors after an epoch, from the rows NxK of its validation; NaN is a point that nobody marked."""
    known = np.isfinite(rows)
    count = known.sum(axis=0)
    sums = np.where(known, rows, 0.0).sum(axis=0)
    before = np.array(running, dtype=np.float64) if running else sums / np.maximum(count, 1)
    errors = np.where(count > 0, sums / np.maximum(count, 1), before)
    mixed: list[float] = (_KEPT * before + (1 - _KEPT) * errors).tolist()
    return mixed


def loss_factors(running: Sequence[float], power: float) -> list[float]:
    """A factor of the loss for each landmark, 1 on average; empty while there is nothing to weigh by."""
    errors = np.array(running, dtype=np.float64)
    if not power or not errors.size or errors.mean() == 0:
        return []
    factors = ((errors / errors.mean()) ** power).clip(1 / _MOST, _MOST)
    shares: list[float] = (factors / factors.mean()).tolist()
    return shares
