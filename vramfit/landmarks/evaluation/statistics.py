"""How sure a mean error is, and whether two differ.

N films, K landmarks. Landmarks of one film go together, films do not: whatever is drawn anew or flipped is a film.
Everything is seeded: the same errors give the same figures.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 10_000
FLIPS = 10_000
SEED = 0
LEVEL = 0.95
# Percentile bootstraps of fewer films are clearly too narrow; docs/cli/evaluate.md says by how much.
FEW_FILMS = 20
# Sums of the same numbers in another order differ by this much; such flips are as extreme as what was seen.
_ROUNDING = 1e-12


def bootstrap_interval(
    errors_mm: Array, *, resamples: int = RESAMPLES, seed: int = SEED, level: float = LEVEL
) -> Interval | None:
    """The interval that holds the mean of NxK radial errors with a probability of `level`.

    Efron's percentile bootstrap (1979) over films. NaN errors are left out; None for fewer than two films.
    """
    known = np.isfinite(errors_mm)
    points = known.sum(axis=1)
    sums = np.where(known, errors_mm, 0).sum(axis=1)[points > 0]
    points = points[points > 0]
    if len(points) < 2:
        return None
    drawn = _draws(len(points), resamples, seed)
    return _middle((drawn @ sums) / (drawn @ points), level)


def paired_interval(
    differences: Array, *, resamples: int = RESAMPLES, seed: int = SEED, level: float = LEVEL
) -> Interval | None:
    """The bootstrap interval of the mean of N differences, one a film; None for fewer than two known ones."""
    return bootstrap_interval(differences[:, None], resamples=resamples, seed=seed, level=level)


def sign_flip_p_values(differences: Array, *, flips: int = FLIPS, seed: int = SEED) -> Array:
    """Two-sided p-values, K, that the means of NxK paired differences are 0; NaN differences are left out.

    Fisher's randomization test for pairs (The Design of Experiments, 1935): were both the same, each film's difference
    could as well have had the other sign. Random flips, counted as Phipson and Smyth (2010) advise:
    (1 + flips at least as extreme) / (1 + flips), never 0. A film's landmarks flip together.
    """
    filled = np.where(np.isfinite(differences), differences, 0)
    signs = np.random.Generator(np.random.Philox(seed)).choice((-1.0, 1.0), size=(flips, len(filled)))
    seen = np.abs(filled.sum(axis=0))
    extreme = np.abs(signs @ filled) >= seen - _ROUNDING * max(1.0, float(np.abs(filled).sum()))
    p_values: Array = (1 + extreme.sum(axis=0)) / (1 + flips)
    return p_values


def holm(p_values: Array) -> Array:
    """P-values adjusted so that all conclusions hold together, by Holm's step-down rule (1979).

    The i-th smallest of m becomes the largest of p(j) (m - j + 1) over j up to i, at most 1.
    """
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's rank correlation of N pairs (1904), ties in order of place; 0 where one of the two never varies."""
    if min(np.ptp(first), np.ptp(second)) == 0:
        return 0.0
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (first, second)]
    one, other = (rank - rank.mean() for rank in ranks)
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


@lru_cache(maxsize=4)
def _draws(films: int, resamples: int, seed: int) -> Array:
    """How often each film is drawn when as many are drawn with replacement, resamples x films; kept, as it is slow."""
    picked = np.random.Generator(np.random.Philox(seed)).integers(films, size=(resamples, films))
    places = picked + films * np.arange(resamples)[:, None]
    drawn = np.bincount(places.ravel(), minlength=resamples * films).reshape(resamples, films).astype(np.float64)
    drawn.setflags(write=False)
    return drawn


def _middle(values: Array, level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
