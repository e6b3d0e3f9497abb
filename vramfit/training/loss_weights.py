"""What is hard counts for more: factors of the loss for the figures of a task, from the errors of validation.

A figure is a column of `Task.rows`, such as one landmark. After each epoch, with its mean error over the validation
samples, in the units of the task:

    running_k <- 0.7 running_k + 0.3 error_k                  the first epoch's errors to begin with
    factor_k   = (running_k / mean of running) ^ power        kept within 1/3 and 3, then divided by the mean factor

A figure that no validation sample has takes no part in the mean, and its factor is 1 before the division.
Factors change between epochs alone, so how a batch is split into micro-batches changes no gradient. They follow from
the running errors, which every checkpoint holds. What they learn of the validation samples is one number a figure.
"""

from collections.abc import Sequence

import numpy as np

from vramfit.training.task import Rows

_KEPT = 0.7
_MOST = 3.0


def running_errors(running: Sequence[float], rows: Rows) -> list[float]:
    """The running errors after an epoch, from the rows NxK of its validation.

    NaN is an error that is not known, and a figure of which none is.
    """
    known = np.isfinite(rows)
    count = known.sum(axis=0)
    means = np.where(known, rows, 0.0).sum(axis=0) / np.where(count, count, np.nan)
    before = np.array(running, dtype=np.float64) if running else means
    mixed = _KEPT * before + (1 - _KEPT) * means
    # What one of the two does not know is what the other says.
    whole: list[float] = np.where(np.isnan(means), before, np.where(np.isnan(before), means, mixed)).tolist()
    return whole


def loss_factors(running: Sequence[float], power: float) -> list[float]:
    """A factor of the loss for each figure, 1 on average; empty while there is nothing to weigh by."""
    errors = np.array(running, dtype=np.float64)
    known = errors[np.isfinite(errors)]
    if not power or not known.any():
        return []
    factors = np.nan_to_num((errors / known.mean()) ** power, nan=1.0).clip(1 / _MOST, _MOST)
    shares: list[float] = (factors / factors.mean()).tolist()
    return shares
