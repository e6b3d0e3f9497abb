"""Robust statistics of landmark shapes: which points are not where they are on other films.

N shapes, K landmarks. Shapes are float NxKx2 in millimetres, NaN where missing. Every shape is laid over the median
shape by a similarity whose fit trusts the points that agree (iteratively reweighted least squares), so that one wrong
point pulls nothing else away.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.check.shape_model import ShapeModel, known_median

Array = NDArray[np.float64]

# Fewer shapes say too little of what is usual.
FEWEST_SHAPES = 10
# Fewer points are no shape: any two lie on any two others.
FEWEST_POINTS = 4
_ROUNDS = 8
_TRUST_MM = 2.0


@dataclass(frozen=True)
class Oddities:
    """What is unusual about some shapes: indices into them."""

    outlying: tuple[tuple[int, int], ...]
    swapped: tuple[tuple[int, int, int], ...]
    mirrored: tuple[int, ...]


def find_oddities(shapes: Array) -> Oddities:
    """Outlying landmarks (shape, landmark), swapped pairs (shape, first, second) and mirrored shapes.

    Landmarks that fewer than ten shapes have, and shapes of fewer than four landmarks, are not judged.
    """
    known = np.isfinite(shapes).all(axis=2)
    shapes = np.where((known & (known.sum(axis=0) >= FEWEST_SHAPES))[..., None], shapes, np.nan)
    rows = np.flatnonzero(np.isfinite(shapes).all(axis=2).sum(axis=1) >= FEWEST_POINTS).tolist()
    if len(rows) < FEWEST_SHAPES:
        return Oddities((), (), ())
    faced, mirrored = _faced(shapes[rows])
    median, laid = _lay(faced)
    model = ShapeModel.of(median, laid)
    odd = {n: model.judge(shape) for n, shape in zip(rows, laid, strict=True)}
    outlying = tuple((n, k) for n, one in odd.items() for k in one.outlying)
    swapped = tuple((n, *pair) for n, one in odd.items() for pair in one.swapped)
    return Oddities(outlying, swapped, tuple(rows[place] for place in mirrored))


def relative_sizes(shapes: Array) -> Array:
    """How large each shape is beside the others: the median of its distances, each by what is usual; 1 is usual.

    NaN for a shape without two landmarks.
    """
    first, second = np.triu_indices(shapes.shape[1], k=1)
    apart = np.linalg.norm(shapes[:, first] - shapes[:, second], axis=2)
    return known_median(apart / np.fmax(known_median(apart, axis=0), 1e-6), axis=1)


def _faced(shapes: Array) -> tuple[Array, tuple[int, ...]]:
    """All shapes facing as most do, and which did not."""
    model = _start(shapes)
    flipped = shapes * [-1, 1]
    plain, mirror = (_misfit(kind, model) for kind in (shapes, flipped))
    away = mirror < 0.5 * plain
    turned: Array = np.where(away[:, None, None], flipped, shapes)
    return turned, tuple(int(n) for n in np.flatnonzero(away))


def _misfit(shapes: Array, model: Array) -> Array:
    laid = np.stack([_fit(shape, model) for shape in shapes])
    misfit: Array = known_median(np.linalg.norm(laid - model, axis=2), axis=1)
    return misfit


def _start(shapes: Array) -> Array:
    """A first model: the shapes' median, each centred on its own; films hang upright, which is enough to begin."""
    centred = shapes - known_median(shapes, axis=1, keepdims=True)
    model: Array = known_median(centred, axis=0)
    return model


def _lay(shapes: Array) -> tuple[Array, Array]:
    model = _start(shapes)
    for _ in range(2):
        laid = np.stack([_fit(shape, model) for shape in shapes])
        model = known_median(laid, axis=0)
    return model, laid


def _fit(shape: Array, model: Array) -> Array:
    """The shape laid over the model by the similarity that most of its points agree on."""
    known = np.isfinite(shape).all(axis=1) & np.isfinite(model).all(axis=1)
    source, target = shape[known, 0] + 1j * shape[known, 1], model[known, 0] + 1j * model[known, 1]
    weights = np.ones(len(source))
    turn, shift = 1 + 0j, 0j
    for _ in range(_ROUNDS):
        turn, shift = _similarity(source, target, weights)
        weights = 1 / (1 + (np.abs(turn * source + shift - target) / _TRUST_MM) ** 2)
    laid = turn * (shape[:, 0] + 1j * shape[:, 1]) + shift
    return np.column_stack([laid.real, laid.imag])


def _similarity(
    source: NDArray[np.complex128], target: NDArray[np.complex128], weights: Array
) -> tuple[complex, complex]:
    """Turn and shift with the least weighted sum of |turn source + shift - target|^2; turning scales too."""
    total = weights.sum()
    middle, aim = (weights * source).sum() / total, (weights * target).sum() / total
    across = (weights * np.conj(source - middle) * (target - aim)).sum()
    turn = complex(across / max(float((weights * np.abs(source - middle) ** 2).sum()), 1e-12))
    return turn, complex(aim - turn * middle)
