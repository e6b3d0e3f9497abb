"""How good a checkpoint is on a split of films, beside the baseline that looks at no film.

N films, K landmarks.
"""

from pathlib import Path

import numpy as np

from vramfit.landmarks.aariz import load_films
from vramfit.landmarks.cache import FilmCache
from vramfit.landmarks.films import Annotator, FilmSet
from vramfit.landmarks.letterbox import Letterbox
from vramfit.landmarks.metrics import Evaluation, evaluate_points
from vramfit.records import Record
from vramfit.training.finder import Array, Finder
from vramfit.training.options import DeviceChoice


class EvaluationReport(Record):
    """A network's errors and the mean shape's on the same films; `epoch` is how long it was trained."""

    checkpoint: str
    epoch: int
    dataset: str
    split: str
    annotator: str
    films: int
    skipped: tuple[str, ...] = ()
    network: Evaluation
    mean_shape: Evaluation


def evaluate(
    checkpoint: Path,
    dataset_path: Path,
    *,
    split: str = "test",
    annotator: Annotator = "mean",
    skip_bad: bool = False,
    device: DeviceChoice = "auto",
    batch_size: int = 8,
    cache_dir: Path | None = None,
) -> EvaluationReport:
    """Judge a checkpoint on one split of a film set in 'Aariz layout.

    Raises:
        DataError: a checkpoint, film or annotation that cannot be used, or landmarks that the set does not have.
        NoUsableGpu: `cuda` without a GPU.

    """
    from vramfit.training.finder import usable_device

    finder = Finder(checkpoint, usable_device(device), batch_size=batch_size)
    films = load_films(dataset_path, split, annotator, skip_bad=skip_bad, landmarks=finder.landmarks)
    cache = FilmCache.open(films, finder.options.image_size, folder=cache_dir, skip_bad=skip_bad)
    films = cache.film_set
    return EvaluationReport(
        checkpoint=str(checkpoint),
        epoch=finder.epoch,
        dataset=str(dataset_path),
        split=split,
        annotator=annotator,
        films=len(films),
        skipped=tuple(f"{skipped.id}: {skipped.reason}" for skipped in films.skipped),
        network=evaluate_points(found_points(finder, cache), films),
        mean_shape=evaluate_points(_mean_points(finder, films), films),
    )


def found_points(finder: Finder, cache: FilmCache) -> Array:
    """The network's points of all films of a cache, NxKx2 in native pixels."""
    found = []
    for start in range(0, len(cache), finder.batch_size):
        places = range(start, min(start + finder.batch_size, len(cache)))
        images = np.stack([cache.image(place) for place in places])
        found += [points for points, _ in finder.find(images, cache.letterboxes[start : places.stop])]
    return np.stack(found)


def _mean_points(finder: Finder, films: FilmSet) -> Array:
    boxes = [Letterbox.of(film.size, finder.options.image_size) for film in films.films]
    return np.stack([box.to_film(finder.mean_shape) for box in boxes])
