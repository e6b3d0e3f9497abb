"""Several networks asked about the same films, each at its own image size: the mean of the points that they find.

N films, K landmarks. The networks lie on the device together and look one after the other: memory grows by weights
alone, time by their number. Averaging networks of other seeds is the deep ensemble of Lakshminarayanan et al. (2017).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.films import FilmSet
from vramfit.landmarks.evaluation.predict_points import Predictions, Validate, predict_points
from vramfit.landmarks.model.decode import Method
from vramfit.landmarks.model.trained_network import Trained, load_trained
from vramfit.training.run_options import DeviceChoice

# The cache of some films at a network's image size.
OpenCache = Callable[[FilmSet, tuple[int, int]], FilmCache]


def load_ensemble(first: Trained, others: Sequence[Path], device: DeviceChoice) -> tuple[Trained, ...]:
    """A network and others that know the same landmarks, in any order.

    Raises:
        DataError: not a checkpoint, or of other landmarks.
        NoUsableGpu: `cuda` was asked for and cannot be used.

    """
    found = [first]
    for path in others:
        other = load_trained(path, device)
        apart = {each.symbol for each in first.landmarks} ^ {each.symbol for each in other.landmarks}
        if apart:
            raise DataError(
                f"{path} and {first.path} do not know the same landmarks: {', '.join(sorted(apart))}; an ensemble "
                "takes checkpoints of the same ones."
            )
        found.append(other)
    return tuple(found)


def open_caches(networks: Iterable[Trained], films: FilmSet, open_one: OpenCache) -> list[FilmCache]:
    """The same films for each of some networks: at its image size, with its landmarks in its order."""
    return [
        open_one(films.of_landmarks([each.symbol for each in network.landmarks]), network.options.image_size)
        for network in networks
    ]


def ensemble_points(
    networks: Sequence[tuple[Trained, Validate]],
    caches: Sequence[FilmCache],
    *,
    batch_size: int,
    method: Method,
    views: int,
    on_batch: Callable[[int], None],
) -> Predictions:
    """What networks find, each on the films of its cache, as points of the first one's landmarks.

    `on_batch` is told the films done, up to their number times that of the networks.
    """
    found: list[Predictions] = []
    for (network, validate), cache in zip(networks, caches, strict=True):
        before = len(found) * len(cache)
        mine = predict_points(
            validate,
            cache,
            batch_size=batch_size,
            stride=network.options.heatmap_stride,
            method=method,
            views=views,
            on_batch=partial(_told, on_batch, before),
        )
        found.append(mine.of_landmarks(cache.film_set.symbols, caches[0].film_set.symbols))
    return mean_of(found)


def _told(on_batch: Callable[[int], None], before: int, done: int) -> None:
    on_batch(before + done)


def mean_of(found: Sequence[Predictions]) -> Predictions:
    """The mean of what several networks found on the same films and landmarks; one alone is as it is.

    The areas of heatmaps are left out: those of other networks are not those that one was calibrated with.
    """
    if len(found) == 1:
        return found[0]
    return Predictions(
        points=np.mean([each.points for each in found], axis=0),
        confidence=np.mean([each.confidence for each in found], axis=0),
        loss=float(np.mean([each.loss for each in found])),
        indices=found[0].indices,
        method=found[0].method,
        views=found[0].views,
        networks=len(found),
    )
