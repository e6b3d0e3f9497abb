"""How far a network's points are from the truth: expected errors, regions with a stated coverage, and its doubts.

N films, K landmarks, L levels. All lengths are in pixels of the network's image, as a head is about as large on each.

The expected error of a point is exp(usual of its landmark + weights . (evidence - usual evidence)), fitted to the
errors on films that the network did not learn from; its evidence is the logarithms of its heatmap's height and of the
area above half of that. A region is a circle of that error times a quantile of (error / expected error): conformal
prediction with normalised scores (Papadopoulos et al., ECML 2002), each film scored by a fit to the others, as in
the jackknife+ (Barber et al., Annals of Statistics 2021). The points of one film go together, so that the stated
coverage is that of many films; it holds for films like those calibrated on, and those had a part in choosing the
epoch, which flatters it a little.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.model.decode import Method
from vramfit.records import Record

Array = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.9, 0.95)
FEWEST_FILMS = 8
# A landmark's own mean counts as that of so many films more, at the mean of all landmarks.
_SHRINKAGE = 5.0
_RIDGE = 10.0
# Errors below this share of an image pixel are as good as it: their logarithms would rule the fit.
_LEAST_ERROR = 0.1
_LEAST_PEAK = 0.01
# A point has evidence when its heatmap is at least this share as high as the landmark's lowest in calibration.
_EVIDENCE = 0.5
# Films beyond so many standard deviations of those calibrated on are unlike them.
_UNLIKE_SD = 5.0

Nested = tuple[tuple[tuple[float, float], tuple[float, float]], ...]


class Certainty(NamedTuple):
    """How sure the points of one film are, in pixels of the image or of the film.

    `levels` are the coverages promised; `expected` K expected errors and `radii` LxK radii of the regions; `relative` K
    expected errors as a share of the median one in calibration; `evidence` K, False where a heatmap is too low to mean
    anything; `unlike` says in what the film is unlike those calibrated on, None where it is not; `network` and `raters`
    Kx2x2, the second moments of the points' errors and of one rater's, the latter None where unknown.
    """

    levels: tuple[float, ...]
    expected: Array
    radii: Array
    relative: Array
    evidence: NDArray[np.bool_]
    unlike: str | None
    network: Array
    raters: Array | None

    def enlarged(self, scale: float) -> "Certainty":
        """The same in pixels of which `scale` make one of these."""
        return self._replace(
            expected=self.expected * scale,
            radii=self.radii * scale,
            network=self.network * scale**2,
            raters=None if self.raters is None else self.raters * scale**2,
        )


class Calibration(Record):
    """What the errors on some films told; made by `calibrated`.

    `usual` and `usual_evidence` are of the K landmarks, `quantiles` of the `levels`, `typical` the median expected
    error, `lowest` each landmark's lowest heatmap; `film_evidence` and `film_shape` the mean and spread, over films, of
    the mean logarithm of heights and of the distance from the mean shape. `network` and `raters` are second moments,
    2x2 in square image pixels, of the errors and of one rater's points, None where no film has two raters. `method` and
    `views` are how the points were found: found otherwise they err otherwise; None in files that do not tell.
    """

    films: int
    levels: tuple[float, ...]
    usual: tuple[float, ...]
    usual_evidence: tuple[tuple[float, float], ...]
    weights: tuple[float, float]
    smear: float
    quantiles: tuple[float, ...]
    typical: float
    lowest: tuple[float, ...]
    film_evidence: tuple[float, float]
    film_shape: tuple[float, float]
    network: Nested
    raters: Nested | None
    method: Method | None = None
    views: int | None = None

    def misfit(self, method: Method, views: int, networks: int = 1) -> str | None:
        """Why it says nothing of points that are found so, in a sentence; None where it does."""
        if networks > 1:
            return (
                f"No certainty is given: the checkpoint was calibrated alone, and points are the mean of {networks} "
                "networks'; leave --ensemble out for it."
            )
        if (self.method, self.views) == (method, views):
            return None
        if self.method is None or self.views is None:
            return (
                "No certainty is given: the checkpoint's calibration does not tell how its points were decoded; run "
                "`vramfit evaluate --calibrate` again."
            )
        return (
            f"No certainty is given: the checkpoint was calibrated with --decode {self.method} --tta {self.views}, and "
            f"points are found with --decode {method} --tta {views}; use those, or calibrate again with these."
        )

    def of(self, points: Array, peaks: Array, areas: Array, shape: Array) -> Certainty:
        """How sure K points of one film are, Kx2 in image pixels.

        Args:
            points: Kx2.
            peaks: K heights of the heatmaps.
            areas: K areas above half the height, in square image pixels.
            shape: Kx2, the mean shape of the training films.

        """
        seen, usual = evidence(peaks, areas), self.smear * np.exp(self.usual)
        expected = usual * np.exp((seen - np.array(self.usual_evidence)) @ np.array(self.weights))
        return Certainty(
            levels=self.levels,
            expected=expected,
            radii=np.array(self.quantiles)[:, None] * expected,
            relative=expected / self.typical,
            evidence=peaks >= _EVIDENCE * np.array(self.lowest),
            unlike=self._unlike(seen, points, shape),
            network=np.array(self.network) * ((expected / usual) ** 2)[:, None, None],
            raters=None if self.raters is None else np.array(self.raters),
        )

    def _unlike(self, seen: Array, points: Array, shape: Array) -> str | None:
        mean, spread = self.film_evidence
        if mean - seen[:, 0].mean() > _UNLIKE_SD * spread:
            return "its heatmaps are lower than on the films that were calibrated on"
        mean, spread = self.film_shape
        if shape_distance(points, shape) - mean > _UNLIKE_SD * spread:
            return "its points lie in another shape than those of the films that were calibrated on"
        return None


class Observed(NamedTuple):
    """What a network found on films with known points, by `method` from `views` of each.

    `points` and `truth` NxKx2 in image pixels, truth NaN where missing; `peaks` and `areas` NxK; `raters` NxKx2, the
    difference of two raters' points in image pixels, NaN where a film has not both.
    """

    points: Array
    truth: Array
    peaks: Array
    areas: Array
    raters: Array
    method: Method = "dark"
    views: int = 1


def evidence(peaks: Array, areas: Array) -> Array:
    """What heatmaps say of their points, ...x2: the logarithms of height, 0 to 1, and of area."""
    return np.stack([np.log(np.maximum(peaks, _LEAST_PEAK)), np.log(np.maximum(areas, 1.0))], axis=-1)


def shape_distance(points: Array, shape: Array) -> float:
    """How far Kx2 points are from a shape Kx2 after the best shift, turn and scaling: RMS as a share of its size."""
    known = np.isfinite(points).all(axis=1) & np.isfinite(shape).all(axis=1)
    mine, theirs = (flat[known] @ np.array([1, 1j]) for flat in (points, shape))
    mine, theirs = mine - mine.mean(), theirs - theirs.mean()
    # A similarity of the plane is one complex factor; it never mirrors.
    factor = np.vdot(mine, theirs) / max(float(np.vdot(mine, mine).real), 1e-12)
    return float(np.linalg.norm(factor * mine - theirs) / max(float(np.linalg.norm(theirs)), 1e-12))


def calibrated(seen: Observed, shape: Array, levels: Sequence[float] = LEVELS) -> Calibration:
    """What the errors on N films tell of those on others.

    Raises:
        DataError: fewer than 8 films.

    """
    if len(seen.points) < FEWEST_FILMS:
        raise DataError(f"{len(seen.points)} films are too few to calibrate on; use a split of {FEWEST_FILMS} or more.")
    offsets = seen.points - seen.truth
    errors, said = np.linalg.norm(offsets, axis=2), evidence(seen.peaks, seen.areas)
    fit = _fitted(errors, said)
    others = np.arange(len(errors))
    scores = np.stack([errors[n] / _fitted(errors[others != n], said[others != n]).of(said[n]) for n in others])
    shapes = np.array([shape_distance(points, shape) for points in seen.points])
    heights = said[..., 0].mean(axis=1)
    return Calibration(
        films=len(errors),
        levels=tuple(levels),
        usual=tuple(fit.usual.tolist()),
        usual_evidence=tuple((float(one), float(other)) for one, other in fit.usual_evidence),
        weights=(float(fit.weights[0]), float(fit.weights[1])),
        smear=fit.smear,
        quantiles=tuple(_quantile(scores, level) for level in levels),
        typical=float(np.median(fit.of(said))),
        lowest=tuple(seen.peaks.min(axis=0).tolist()),
        film_evidence=(float(heights.mean()), float(heights.std(ddof=1))),
        film_shape=(float(shapes.mean()), float(shapes.std(ddof=1))),
        network=_moments(offsets),
        # Of two raters who err alike and apart, each has half of the difference's moments.
        raters=_moments(seen.raters / np.sqrt(2)) if np.isfinite(seen.raters).any() else None,
        method=seen.method,
        views=seen.views,
    )


class _Fit(NamedTuple):
    """The expected error as its parts: see the module's first lines."""

    usual: Array
    usual_evidence: Array
    weights: Array
    smear: float

    def of(self, said: Array) -> Array:
        """Expected errors, ...xK, of evidence ...xKx2."""
        expected: Array = self.smear * np.exp(self.usual + (said - self.usual_evidence) @ self.weights)
        return expected


def _fitted(errors: Array, said: Array) -> _Fit:
    known = np.isfinite(errors)
    logs = np.log(np.maximum(np.where(known, errors, 1.0), _LEAST_ERROR))
    counts = known.sum(axis=0)
    own = (logs * known).sum(axis=0) / np.maximum(counts, 1)
    usual_evidence = said.mean(axis=0)
    apart, rest = (said - usual_evidence)[known], (logs - own)[known]
    weights = np.linalg.solve(apart.T @ apart + _RIDGE * np.eye(2), apart.T @ rest)
    usual = (counts * own + _SHRINKAGE * logs[known].mean()) / (counts + _SHRINKAGE)
    plain = _Fit(usual, usual_evidence, weights, 1.0)
    return plain._replace(smear=float((errors[known] / plain.of(said)[known]).mean()))


def _quantile(scores: Array, level: float) -> float:
    """The conformal quantile: the ceil((n + 1) level)-th smallest of n scores, or the largest."""
    known = np.sort(scores[np.isfinite(scores)])
    return float(known[min(len(known), int(np.ceil((len(known) + 1) * level))) - 1])


def _moments(offsets: Array) -> Nested:
    """Second moments about 0 of NxKx2 offsets, K times 2x2; those of all landmarks for one without any."""
    known: NDArray[np.bool_] = np.isfinite(offsets[..., 0]) & np.isfinite(offsets[..., 1])
    filled = np.where(known[..., None], offsets, 0)
    sums, counts = np.einsum("nki,nkj->kij", filled, filled), known.sum(axis=0)[:, None, None]
    every = sums.sum(axis=0) / max(1, int(counts.sum()))
    each = np.where(counts > 0, sums / np.maximum(counts, 1), every)
    return tuple(((float(a), float(b)), (float(c), float(d))) for (a, b), (c, d) in each)
