"""Training a landmark network: films and options in, a run of the engine out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.folds import Fold
from vramfit.landmarks.loading.augment import preset
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.landmarks.training.task import FilmTask, metric_words, open_films
from vramfit.training.listeners import Listener, RunSummary
from vramfit.training.resume import Resumed
from vramfit.training.trainer import Told, run


def train(options: LandmarkOptions, listeners: Sequence[Listener] = ()) -> RunSummary:
    """Train a landmark network, from a checkpoint where `options.resume` says so.

    Raises:
        UsageError, NoUsableGpu, NothingFits, ProfileError: before anything is trained.
        DataError: films, annotations or a checkpoint that cannot be used.
        NotFinite, OutOfMemory, CannotWrite: the run ended early; the last checkpoint is whole.
        KeyboardInterrupt: Ctrl-C, after a checkpoint.

    """
    if options.folds and not options.fold:
        raise UsageError(f"--folds {options.folds} are several runs; name the --fold of this one.")
    return run(FilmSource(options), options, listeners)


@dataclass(frozen=True)
class FilmSource:
    """The film set that a run's options name."""

    options: LandmarkOptions

    def open(self, resumed: Resumed | None, told: Told) -> FilmTask:
        """The films as a task; they are decoded into the cache where they are not yet."""
        options = self.options
        task = open_films(
            options.dataset_path,
            lambda landmarks: LandmarkJobOptions.of(options, landmarks),
            film_format=options.film_format,
            annotator=options.annotator,
            skip_bad=options.skip_bad,
            augmentation=preset(options.augmentation, options.artefacts),
            cache_dir=options.cache_dir,
            seed=options.seed,
            landmarks=_landmarks_of(resumed) or None,
            fold=Fold(options.fold, options.folds, options.seed) if options.fold and options.folds else None,
            on_films=lambda split, done, total: told(f"decoding films of '{split}'", done, total),
        )
        return replace(task, follows_guide=options.follows_guide)

    def job_of(self, resumed: Resumed) -> Job:
        """The job for as many landmarks as the checkpoint has."""
        return landmark_job(LandmarkJobOptions.of(self.options, len(_landmarks_of(resumed)) or 1))

    def metric_words(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """MRE and SDR in words."""
        return metric_words(metrics)


def _landmarks_of(resumed: Resumed | None) -> tuple[Landmark, ...]:
    """Those that a checkpoint's heatmaps stand for, in order: the films' are joined with them by name."""
    named = resumed.content["task"].get("landmarks", ()) if resumed else ()
    return tuple(Landmark(symbol, title) for symbol, title in named)
