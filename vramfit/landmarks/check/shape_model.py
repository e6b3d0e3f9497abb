"""How the landmarks of a head hang together: where each must be, given where the others are.

N shapes, K landmarks, in mm. Shapes that are laid over each other are taken as draws of one Gaussian of 2K coordinates,
missing ones left out. Given all other landmarks of its shape, a landmark is then a Gaussian of two coordinates, and its
squared distance from where it should be, in standard deviations, is chi-squared with two degrees of freedom: its
*surprise*. A long jaw moves all its landmarks and surprises nobody; one that left its neighbours does.

The covariance is that of deviations cut off at a few spreads, and without what was odd in the round before, so that
faults do not teach the model to expect them. It is shrunk towards independent landmarks, the more the fewer shapes
there are, and each landmark's surprises are divided by a factor that makes their median chi-squared's.
"""

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Raters are never surer than this.
_NOISE_MM = 0.7
_CUT_SPREADS = 3.5
_SHRINKAGE = 0.5
_ROUNDS = 2
_MEDIAN_OF_CHI_SQUARED_2 = float(2 * np.log(2))
# benchmarks/data_check.py measures what these find, and how often they are wrong.
_ODD_SURPRISE, _ODD_MM = 50.0, 4.0
_ODD_GAIN = 30.0
# Few shapes know little of what is usual: with so many, twice the surprise and gain are asked for.
_FEW = 60


@dataclass(frozen=True)
class OddShape:
    """What is odd about one shape: landmarks that have each other's place, and others that are where none is."""

    swapped: tuple[tuple[int, int], ...]
    outlying: tuple[int, ...]


@dataclass(frozen=True)
class ShapeModel:
    """The Gaussian of shapes: `median` Kx2, `covariance` 2Kx2K, and what surprises are divided by.

    That is a factor for each landmark, NaN for one that no shape has, and `caution` for all, which few shapes ask for.
    """

    median: Array
    covariance: Array
    factors: Array
    caution: float

    @classmethod
    def of(cls, median: Array, laid: Array) -> Self:
        """The model of shapes NxKx2 laid over their median Kx2; NaN where missing."""
        kept = laid
        for _ in range(_ROUNDS):
            covariance, caution = _covariance((kept - median).reshape(len(laid), -1)), 1 + _FEW / len(laid)
            model = cls(median, covariance, np.ones(len(median)), caution)
            model = replace(model, factors=model._factors(laid))
            odd = np.stack([model._surprises(shape) > _ODD_SURPRISE for shape in laid])
            kept = np.where(odd[..., None], np.nan, laid)
        return model

    def judge(self, shape: Array) -> OddShape:
        """What is odd about a shape Kx2 laid over the median.

        Swaps are undone and odd landmarks taken away, one at a time and the one that explains most first, for one
        wrong landmark makes its neighbours look wrong too.
        """
        swapped: list[tuple[int, int]] = []
        outlying: list[int] = []
        shape = shape.copy()
        most = int(np.isfinite(shape).all(axis=1).sum()) // 2
        while len(outlying) + 2 * len(swapped) < most:
            surprises, gains = self._surprises(shape), self._gains(shape)
            worst = int(np.nanargmax(surprises))
            first, second = (int(k) for k in np.unravel_index(np.nanargmax(gains), gains.shape))
            # Compared before the factors: what explains the more of the whole shape is undone.
            alone = surprises[worst] * self.factors[worst]
            if gains[first, second] > max(_ODD_GAIN * np.nanmean(self.factors), alone):
                swapped.append((first, second))
                shape[[first, second]] = shape[[second, first]]
            elif surprises[worst] > _ODD_SURPRISE:
                outlying.append(worst)
                shape[worst] = np.nan
            else:
                break
        return OddShape(tuple(swapped), tuple(sorted(outlying)))

    def _factors(self, laid: Array) -> Array:
        plain = self.caution * np.stack([self._surprises(shape, least_mm=0) for shape in laid])
        factors = np.maximum(known_median(plain, axis=0) / _MEDIAN_OF_CHI_SQUARED_2, 1e-6)
        # The fewer shapes, the more all landmarks share one factor.
        share = 1 / self.caution
        shared: Array = np.exp(share * np.log(factors) + (1 - share) * np.nanmean(np.log(factors)))
        return shared

    def _surprises(self, shape: Array, least_mm: float = _ODD_MM) -> Array:
        """Each landmark's surprise, K; 0 for one that is less than `least_mm` away, NaN for a missing one."""
        known, precision = self._known(shape)
        pulls = np.einsum("ijab,jb->ia", precision, shape[known] - self.median[known])
        own = precision[np.arange(len(known)), np.arange(len(known))]
        away = np.linalg.solve(own, pulls[..., None])[..., 0]
        far = np.linalg.norm(away, axis=1) >= least_mm
        surprises = np.full(len(shape), np.nan)
        surprises[known] = np.where(far, (pulls * away).sum(axis=1), 0) / (self.caution * self.factors[known])
        return surprises

    def _gains(self, shape: Array) -> Array:
        """By how much the Gaussian's exponent falls when two landmarks change places, KxK above the diagonal."""
        known, precision = self._known(shape)
        count = len(known)
        pulls = np.einsum("ijab,jb->ia", precision, shape[known] - self.median[known])
        # Landmark i moves by step[i, j] and j by its opposite; the Gaussian's exponent is quadratic in that.
        step = shape[known][None] - shape[known][:, None]
        own = precision[np.arange(count), np.arange(count)]
        across = precision + precision.transpose(1, 0, 2, 3)
        change = 2 * (step * (pulls[:, None] - pulls[None])).sum(axis=2)
        change += np.einsum("ija,ijab,ijb->ij", step, own[:, None] + own[None] - across, step)
        gains = np.zeros((len(shape), len(shape)))
        gains[np.ix_(known, known)] = -change / self.caution
        return np.triu(gains, k=1)

    def _known(self, shape: Array) -> tuple[NDArray[np.intp], Array]:
        """The landmarks that a shape has, k of K, and their precision kxkx2x2, the others unknown."""
        known = np.flatnonzero(np.isfinite(shape).all(axis=1))
        if len(known) == len(shape):
            return known, self._precision
        coordinates = np.stack([2 * known, 2 * known + 1], axis=1).ravel()
        return known, _blocks(np.linalg.inv(self.covariance[np.ix_(coordinates, coordinates)]))

    @cached_property
    def _precision(self) -> Array:
        return _blocks(np.linalg.inv(self.covariance))


def known_median(values: Array, axis: int, *, keepdims: bool = False) -> Array:
    """The median of those values that are known, NaN where none is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        median: Array = np.nanmedian(values, axis=axis, keepdims=keepdims)
    return median


def _blocks(matrix: NDArray[np.floating]) -> Array:
    """A matrix 2kx2k as kxk blocks 2x2."""
    count = len(matrix) // 2
    return matrix.astype(np.float64).reshape(count, 2, count, 2).transpose(0, 2, 1, 3)


def _covariance(deviations: Array) -> Array:
    """The covariance of Nx2K deviations, cut off and shrunk; NaN is left out."""
    spreads = 1.4826 * known_median(np.abs(deviations), axis=0)
    cut = _CUT_SPREADS * np.fmax(spreads, _NOISE_MM)
    known = np.isfinite(deviations).astype(np.float64)
    clipped = np.nan_to_num(np.clip(deviations, -cut, cut))
    raw = clipped.T @ clipped / np.maximum(known.T @ known, 1)
    few = _SHRINKAGE * raw.shape[0] / (_SHRINKAGE * raw.shape[0] + len(deviations))
    covariance: Array = (1 - few) * raw + few * np.diag(np.diag(raw)) + _NOISE_MM**2 * np.eye(len(raw))
    return covariance
