"""The landmark job with its films: all that the trainer knows of landmarks.

B batch, K landmarks, H W image pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import default_collate

from vramfit.jobs.job import Batch, Job
from vramfit.landmarks.check.pictures import sound_pictures
from vramfit.landmarks.check.screen import require_whole, screened
from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.films import FilmSet, Landmark, Unit
from vramfit.landmarks.data.folds import Fold, deal, pooled
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.data.marked import MarkedSet
from vramfit.landmarks.data.near_duplicates import directions, thumbnails, twins
from vramfit.landmarks.data.raters import Annotator
from vramfit.landmarks.evaluation.certainty import calibrated_after
from vramfit.landmarks.evaluation.metrics import (
    LIMITS_MM,
    LIMITS_PX,
    mean_shape,
    radial_errors_mm,
    scales,
    scores,
    true_points,
)
from vramfit.landmarks.evaluation.predict_points import film_points
from vramfit.landmarks.loading.augment import PRESETS, Augmentation
from vramfit.landmarks.loading.dataset import FilmDataset
from vramfit.landmarks.model.job import landmark_job, plain_task
from vramfit.landmarks.model.network import load_weights
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.model.two_stage import TwoStageNetwork, load_stages
from vramfit.landmarks.report.examples import FilmExample, example_of
from vramfit.landmarks.report.guide import guide_note
from vramfit.records import Profile
from vramfit.training.listeners import Example
from vramfit.training.task import Judgement, Rows, Task

# TensorBoard shows the first of these beside a run's options.
_METRICS: dict[Unit, tuple[str, ...]] = {
    "mm": ("mre_mm", *(f"sdr_{limit}mm" for limit in LIMITS_MM)),
    "px": ("mre_px", *(f"sdr_{limit:g}px" for limit in LIMITS_PX)),
}


@dataclass(frozen=True)
class FilmSamples:
    """Films of a data set as batches."""

    dataset: FilmDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """({"films": uint8 B1HW, "photometric": float32 BxP}, float32 BxKx2 in image pixels)."""
        inputs, targets, _ = default_collate([self.dataset[epoch, index] for index in indices])
        return inputs, targets


@dataclass(frozen=True)
class FilmTask(Task):
    """Training and validation films, and the landmark job on them; `follows_guide` where the old guide's line asks."""

    options: LandmarkJobOptions
    training: FilmSamples
    validation: FilmSamples
    fold: Fold | None = None
    follows_guide: bool = False
    job: Job = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "job", landmark_job(self.options))

    @property
    def name(self) -> str:
        """The model as the user calls it."""
        return self.options.model

    def start_weights(self, model: nn.Module) -> str:
        """Load `options.weights` into a new network; one sentence of which."""
        if isinstance(model, TwoStageNetwork):
            return load_stages(model, self.options.weights)
        return load_weights(model, self.options.model, self.options.weights)  # type: ignore[arg-type]  # our job's

    def rows(self, outputs: Tensor, indices: Sequence[int]) -> Rows:
        """Radial errors in the films' unit, BxK, of heatmaps BxKxhxw."""
        points, _ = film_points(outputs, self.options.heatmap_stride, self.validation.dataset.cache, indices)
        return self._errors(points, indices)

    def examples(self, outputs: Tensor, indices: Sequence[int]) -> list[Example]:
        """Pictures of some validation films, with their true points and those of heatmaps BxKxhxw."""
        cache = self.validation.dataset.cache
        points, _ = film_points(outputs, self.options.heatmap_stride, cache, indices)
        heatmaps = outputs.detach().float().amax(dim=1).clamp(0, 1).cpu().numpy()
        errors = self._errors(points, indices)
        return [
            example_of(
                FilmExample(
                    name=cache.film_set.films[index].id,
                    image=cache.image(index),
                    truth=cache.letterboxes[index].to_image(cache.film_set.films[index].points),
                    found=cache.letterboxes[index].to_image(mine),
                    heatmap=heatmap,
                    error=scores(row, self._unit).mre,
                    unit=self._unit,
                )
            )
            for index, mine, heatmap, row in zip(indices, points, heatmaps, errors, strict=True)
        ]

    @property
    def _unit(self) -> Unit:
        """Millimetres, or pixels where no film has a pixel size."""
        return self.validation.dataset.cache.film_set.unit

    def _errors(self, points: NDArray[np.float64], indices: Sequence[int]) -> Rows:
        """Radial errors BxK of points BxKx2 in film pixels."""
        films, chosen = self.validation.dataset.cache.film_set, list(indices)
        return radial_errors_mm(points, true_points(films)[chosen], scales(films)[chosen])

    def weighted(self, batch: Batch, factors: Sequence[float]) -> Batch:
        """The batch with a factor of the loss for each landmark, float32 BxK under "weights"."""
        inputs, points = batch
        return {**inputs, "weights": torch.tensor(factors).expand(len(points), -1)}, points

    def judge(self, rows: Rows) -> Judgement:
        """MRE in the films' unit and SDR over all films and landmarks."""
        overall = scores(rows, self._unit)
        shares = {f"sdr_{limit}": share for limit, share in overall.sdr.items()}
        if overall.mre is None:
            return Judgement(shares)
        name = f"mre_{self._unit}"
        return Judgement({name: overall.mre, **shares}, best_by=name)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Mean radial error, and success detection rates."""
        return _METRICS[self._unit]

    def metric_words(self, metrics: Mapping[str, float]) -> list[str]:
        """MRE and SDR in words."""
        return metric_words(metrics)

    def describe(self, job: Job) -> dict[str, Any]:
        """Options, landmarks, mean shape, and what the training films were."""
        films = self.training.dataset.cache.film_set
        seen = {"ids": [film.id for film in films.films], "thumbnails": self._thumbnails}
        shape = mean_shape(films, self.options.image_size)
        options = replace(self.options, levers=job.levers)
        return {**plain_task(options, films.landmarks, shape), "films": seen}

    @cached_property
    def _thumbnails(self) -> Tensor:
        """The training films in uint8 NxSxS, by which an evaluation knows them again."""
        cache = self.training.dataset.cache
        return torch.from_numpy(thumbnails(cache))

    def finish(self, best: Path, device: torch.device) -> list[str]:
        """Calibrate the best checkpoint on the validation films."""
        return [calibrated_after(best, self.validation.dataset.cache, device)]

    @property
    def notes(self) -> list[str]:
        """How films were read, those in both splits, and those that were skipped, one sentence each."""
        sets = [samples.dataset.cache.film_set for samples in (self.training, self.validation)]
        if self.fold is not None:
            return [*sets[0].notes, *_fold_note(self.fold, *sets), *self._leakage()]
        return [
            *sets[0].notes,
            *(
                f"Skipped {len(films.skipped)} films of '{films.split}': "
                + "; ".join(f"{skipped.id} ({skipped.reason})" for skipped in films.skipped)
                for films in sets
                if films.skipped
            ),
        ]

    def plan_notes(self, profile: Profile | None, effective_batch: int) -> list[str]:
        """What the guide promised, for who comes from it."""
        if not self.follows_guide:
            return []
        note = guide_note(self.options, profile, effective_batch)
        return [note] if note else []

    def _leakage(self) -> list[str]:
        """The validation films that are among the training films, whatever their files are called."""
        training, validation = (samples.dataset.cache for samples in (self.training, self.validation))
        pairs = twins(directions(thumbnails(validation)), directions(self._thumbnails.numpy()))
        same = {validation.film_set.films[place].id: training.film_set.films[twin].id for place, twin in pairs}
        said = ", ".join(f"{film} ({twin})" for film, twin in same.items())
        return [f"Seen in training, so that their errors tell little: validation films {said}."] if same else []


def open_films(
    root: Path,
    make_options: Callable[[int], LandmarkJobOptions],
    *,
    film_format: str | None = None,
    annotator: Annotator = "mean",
    skip_bad: bool = False,
    augmentation: Augmentation = PRESETS["standard"],
    cache_dir: Path | None = None,
    seed: int = 0,
    landmarks: tuple[Landmark, ...] | None = None,
    fold: Fold | None = None,
    on_films: Callable[[str, int, int], None] = lambda _split, _done, _total: None,
) -> FilmTask:
    """The task of a film set; `make_options` is given the number of landmarks found.

    `landmarks` are those of a checkpoint that goes on, in its order; None for those of the set. With a `fold` the films
    of both splits are dealt anew, one of which may be without films. `on_films` is told split, films done and films in
    all while they are decoded into the cache.

    Raises:
        DataError: a folder, film or annotation that cannot be used.
        UsageError: options that make no sense together.

    """
    marked = require_whole(screened(read_films(root, film_format)), skip_bad=skip_bad)
    splits = ("train", "valid") if fold is None else _to_be_dealt(marked)
    sets = [marked.of_split(split, annotator, skip_bad=skip_bad, landmarks=landmarks) for split in splits]
    options = make_options(len(sets[0].landmarks))

    def cached(films: FilmSet) -> FilmCache:
        progress = partial(on_films, films.split)
        return FilmCache.open(films, options.image_size, folder=cache_dir, skip_bad=skip_bad, progress=progress)

    # Copies of one film are dealt to one fold: they teach nothing false there.
    caches = [cached(films) for films in sets] if fold is None else [cached(pooled(sets))]
    caches = sound_pictures(caches, skip_bad=skip_bad, twice=fold is None)
    caches = caches if fold is None else _dealt(caches[0], fold)
    return FilmTask(
        options,
        FilmSamples(FilmDataset(caches[0], augmentation, seed=seed)),
        FilmSamples(FilmDataset(caches[1])),
        fold,
    )


def _to_be_dealt(marked: MarkedSet) -> tuple[str, ...]:
    """The splits whose films are dealt to folds: both, or the one of them that has films."""
    there = {film.split for film in marked.films}
    return tuple(split for split in ("train", "valid") if split in there) or ("train",)


def _dealt(pool: FilmCache, fold: Fold) -> list[FilmCache]:
    """The films of a pool to train on, and those to validate on."""
    folds = deal(pool.film_set.films, fold.of, fold.seed)
    places = range(len(pool))
    return [
        pool.only([place for place in places if folds[place] != fold.number]),
        pool.only([place for place in places if folds[place] == fold.number]),
    ]


def _fold_note(fold: Fold, training: FilmSet, validation: FilmSet) -> list[str]:
    films = len(training) + len(validation)
    skipped = "; ".join(f"{one.id} ({one.reason})" for one in training.skipped)
    return [
        f"Fold {fold.number} of {fold.of}, dealt by seed {fold.seed}: {len(validation)} of the {films} films of "
        "'train' and 'valid' validate, the others train.",
        *([f"Skipped {len(training.skipped)} films: {skipped}"] if skipped else []),
    ]


def metric_words(metrics: Mapping[str, float]) -> list[str]:
    """`MRE 1.95 mm` or `MRE 4.10 px`, and the SDRs in one part."""
    error = [f"MRE {metrics[f'mre_{unit}']:.2f} {unit}" for unit in ("mm", "px") if f"mre_{unit}" in metrics]
    rates = {name.removeprefix("sdr_"): share for name, share in metrics.items() if name.startswith("sdr_")}
    words = " ".join(f"SDR@{limit} {100 * share:.1f} %" for limit, share in rates.items())
    return [*error, *([words] if words else [])]
