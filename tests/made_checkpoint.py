"""A film set and a checkpoint of an untrained network on it, small enough for a test."""

from pathlib import Path

import torch

from vramfit.jobs.step import Step
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.sample.make import make_sample
from vramfit.landmarks.training.task import FilmTask, open_films
from vramfit.training.checkpoint import save

MODEL, SIZE = "hrnet_w18_small", (64, 64)


def make_films(folder: Path) -> Path:
    """Twelve films: eight to train on, two to validate, two to test."""
    return make_sample(folder, films=12, height=128)


def make_task(films: Path, folder: Path, **options) -> FilmTask:
    """The task of some films, its cache in a folder of the test."""
    chosen = {"model": MODEL, "image_size": SIZE, "weights": "none", "amp": None, **options}
    return open_films(films, lambda landmarks: LandmarkJobOptions(landmarks=landmarks, **chosen), cache_dir=folder)


def make_checkpoint(films: Path, path: Path, *, seed: int = 0, annotator: str = "mean", **options) -> Path:
    """A checkpoint with the weights that a seed gives."""
    task = make_task(films, path.parent / "cache", **options)
    torch.manual_seed(seed)
    step = Step(task.job, "cpu")
    content = {
        **step.state_dict(),
        "random": [],
        "position": {"epoch": 3},
        "config": {"annotator": annotator, "model": MODEL},
        "task": task.describe(task.job),
    }
    save(content, path)
    return path


def films_of(films: Path, split: str = "test"):
    """The film set of a split."""
    return load_films(films, split)
