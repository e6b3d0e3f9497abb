"""From films to points: every film of a cache through the validation step, decoded and put back into the film.

N films, B batch, K landmarks, h w heatmap pixels. The one way from heatmaps to points: training's own validation,
`vramfit evaluate` and `vramfit infer` all come through here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from vramfit.jobs.batch import batch_size
from vramfit.jobs.job import Batch
from vramfit.jobs.step import Step
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.evaluation.metrics import to_films
from vramfit.landmarks.loading.augment import Augmentation, Change, undo
from vramfit.landmarks.loading.dataset import FilmDataset
from vramfit.landmarks.model.decode import Method, decode, half_area
from vramfit.landmarks.model.heatmap import present
from vramfit.records import OomEvent
from vramfit.training.recovery import Recovery

Array = NDArray[np.float64]

# How a film is changed for a further view of it: less than in training, so that the network knows what it sees.
VIEWS = Augmentation(rotation_degrees=4, scale=0.04, shift=0.02)

# A host batch in; heatmaps BxKxhxw and their mean loss out, on the device.
Validate = Callable[[Batch], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Predictions:
    """What a network found on some films.

    `points` float64 NxKx2, (x, y) in pixels of the native film; `confidence` float64 NxK, 0 to 1; `loss` the mean over
    films, 0 without films; `indices` the films' places in their cache; `areas` float64 NxK, those on which heatmaps are
    at least half as high as they get, in square image pixels; `method` and `views` how the points were found, and by
    how many `networks`, of several of which areas are None.
    """

    points: Array
    confidence: Array
    loss: float
    indices: tuple[int, ...]
    areas: Array | None = None
    method: Method = "dark"
    views: int = 1
    networks: int = 1

    def of_landmarks(self, known: Sequence[str], symbols: Sequence[str]) -> "Predictions":
        """Those of some landmarks alone, in their order; `known` are the symbols of all K."""
        places = [list(known).index(symbol) for symbol in symbols]
        areas = None if self.areas is None else self.areas[:, places]
        return replace(self, points=self.points[:, places], confidence=self.confidence[:, places], areas=areas)


def predict_points(
    validate: Validate,
    cache: FilmCache,
    *,
    batch_size: int,
    stride: int,
    method: Method = "dark",
    views: int = 1,
    indices: Sequence[int] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Predictions:
    """The points that a network finds, film by film.

    With several views each film is also seen turned, scaled and shifted a little, never flipped: the points of each
    view are put back into the film, and their mean is what was found; so with confidence. A view that moves a landmark
    out of its image, from where the film as it is has it, has no part in that landmark's mean. The loss is that of the
    film as it is.

    Args:
        validate: `Step.validate`, or `recovering` of a step.
        cache: the films.
        batch_size: films at once.
        stride: image pixels to a heatmap pixel.
        method: how points are decoded.
        views: how often each film is seen; 1 is the film as it is, alone.
        indices: the films wanted, by their place in the cache; None for all.
        on_batch: called after each batch with the films done.

    """
    chosen = tuple(range(len(cache)) if indices is None else indices)
    datasets = [FilmDataset(cache), *[FilmDataset(cache, VIEWS)] * (views - 1)]
    found: list[list[Tensor]] = [[] for _ in datasets]
    losses = []
    for start in range(0, len(chosen), batch_size):
        part = chosen[start : start + batch_size]
        for view, dataset in enumerate(datasets):
            inputs, targets, _ = default_collate([dataset[view, index] for index in part])
            outputs, loss = validate((inputs, targets))
            found[view].append(_decoded(outputs, stride, method))
            losses += [loss * len(part)] if view == 0 else []
        if on_batch is not None:
            on_batch(start + len(part))
    if not chosen:
        return _nothing(cache)
    changes = [[dataset.change(view, index) for index in chosen] for view, dataset in enumerate(datasets)]
    seen = [_as_it_is(torch.cat(mine), theirs) for mine, theirs in zip(found, changes, strict=True)]
    shown = [_shown(seen[0][..., :2], theirs, cache.image_size) for theirs in changes[1:]]
    weights = np.stack([np.ones(seen[0].shape[:2]), *shown])
    mean: Array = np.einsum("vnk,vnkx->nkx", weights / weights.sum(axis=0), seen)
    points, confidence = _in_films(mean, cache, chosen)
    loss_of_all = float(torch.stack(losses).sum()) / len(chosen)
    return Predictions(points, confidence, loss_of_all, chosen, mean[..., 3], method, views)


def film_points(
    heatmaps: Tensor, stride: int, cache: FilmCache, indices: Sequence[int], method: Method = "dark"
) -> tuple[Array, Array]:
    """Points in native film pixels, float64 BxKx2, and confidence, float64 BxK, of heatmaps BxKxhxw."""
    return _in_films(_on_host(_decoded(heatmaps, stride, method)), cache, indices)


def recovering(step: Step, batch_size: int, on_event: Callable[[OomEvent], None] = lambda _: None) -> Validate:
    """The step's validation, in smaller parts once the card runs out of memory.

    Raises:
        OutOfMemory: from the function returned, when a single film does not fit.

    """
    recovery = Recovery(step, batch_size, on_event=on_event)

    def validate(batch: Batch) -> tuple[Tensor, Tensor]:
        return _joined(recovery, batch)

    return validate


def _joined(recovery: Recovery, batch: Batch) -> tuple[Tensor, Tensor]:
    parts = list(recovery.validate(batch))
    losses = [loss * (place.stop - place.start) for _, loss, place in parts]
    return torch.cat([outputs for outputs, _, _ in parts]), torch.stack(losses).sum() / batch_size(batch)


def _decoded(heatmaps: Tensor, stride: int, method: Method) -> Tensor:
    """Points in image pixels, confidence and area, float32 BxKx4, on the device: nothing waits for the card."""
    return torch.cat(list(_film_by_film(heatmaps, stride, method)))


def _film_by_film(heatmaps: Tensor, stride: int, method: Method) -> Iterator[Tensor]:
    # Decoding makes a few float32 copies of its heatmaps; at stride 1 a whole batch of those would be gigabytes.
    for one in heatmaps.split(1):
        points, confidence = decode(one, stride, method)
        yield torch.cat([points, torch.stack([confidence, half_area(one, stride)], dim=-1)], dim=-1)


def _nothing(cache: FilmCache) -> Predictions:
    landmarks = len(cache.film_set.landmarks)
    return Predictions(np.empty((0, landmarks, 2)), np.empty((0, landmarks)), 0.0, (), np.empty((0, landmarks)))


def _as_it_is(decoded: Tensor, changes: Sequence[Change]) -> Array:
    """Points, confidence and area, NxKx4, of a view, with the points where they are on the unchanged image."""
    found = _on_host(decoded)
    for mine, change in zip(found, changes, strict=True):
        mine[:, :2] = undo(mine[:, :2], change.matrix)
    return found


def _shown(points: Array, changes: Sequence[Change], image_size: tuple[int, int]) -> Array:
    """1 where a point of the unchanged image, NxKx2, is on the changed one too, else 0: NxK."""
    moved = [change.of_points(mine, image_size) for mine, change in zip(points, changes, strict=True)]
    return present(torch.from_numpy(np.stack(moved)), image_size).double().numpy()


def _on_host(decoded: Tensor) -> Array:
    return decoded.cpu().numpy().astype(np.float64)


def _in_films(decoded: Array, cache: FilmCache, indices: Sequence[int]) -> tuple[Array, Array]:
    return to_films(decoded[..., :2], [cache.letterboxes[index] for index in indices]), decoded[..., 2]
