"""How many images a second one worker feeds: vramfit's loader, the old guide's pipeline, and torchvision's transforms.

    python benchmarks/data_pipeline.py [--rounds 5]

One process with one thread; the same eight generated films of 1935x2400 as grey PNG, 768x768 out, batches of six; the
three pipelines take turns in every round. Ours is the loader that `vramfit train` uses, once its cache is built. What
it leaves to the card (the look of the film, normalisation, heatmaps) is a part of the training step there. Neither of
the others has a cache: they decode each film each time, as they do in training. Needs albumentations, which brings
another OpenCV of the same name unless it is told not to:

    pip install --no-deps albumentations==2.0.8 albucore==0.0.24 stringzilla simsimd

Writes benchmarks/results/data_pipeline.json; exits with 1 if a ratio is below what is claimed.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import albumentations
import cv2
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from ending import keep
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset
from torchvision import io, tv_tensors
from torchvision.transforms import v2

from vramfit.landmarks.data.cache import FilmCache
from vramfit.landmarks.data.films import Film, FilmSet
from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.loading.augment import preset
from vramfit.landmarks.loading.dataset import FilmDataset
from vramfit.landmarks.sample.make import SampleMachine, make_sample
from vramfit.landmarks.training.task import FilmSamples
from vramfit.training.loading import Loader

PACKAGES = ("torch", "torchvision", "albumentations", "numpy", "opencv-python")
SIZE, BATCH = 768, 6
# 12 films are split 8, 2 and 2; those to train on are measured.
MACHINE, FILMS = SampleMachine("Benchmark Ceph", (193.5, 240.0), 1.0), 12
IMAGES = {"ours": 240, "guide": 6, "torchvision": 24}
CLAIMS = {"guide": 100.0, "torchvision": 20.0}
BYTES_CLAIM = 50.0
SIGMA = 6.0

Batches = Callable[[int], Iterable[Any]]


class Guide(Dataset[tuple[Tensor, Tensor]]):
    """The old guide's: the film in colour, resized, changed by albumentations, a full-size target a landmark."""

    def __init__(self, films: Sequence[Film]) -> None:
        self.films = films
        self.transform = albumentations.Compose(
            [
                albumentations.Resize(SIZE, SIZE),
                albumentations.Affine(rotate=(-12, 12), scale=(0.87, 1.15), translate_percent=(-0.06, 0.06), p=1),
                albumentations.RandomBrightnessContrast(brightness_limit=0.08, contrast_limit=0.2, p=1),
                albumentations.RandomGamma(gamma_limit=(74, 135), p=1),
                albumentations.GaussianBlur(blur_limit=(3, 5), p=0.5),
                albumentations.GaussNoise(std_range=(0.0, 0.04), p=1),
                albumentations.CoarseDropout(
                    num_holes_range=(1, 1), hole_height_range=(0.0, 0.2), hole_width_range=(0.0, 0.2), p=0.3
                ),
                albumentations.Normalize(),
                ToTensorV2(),
            ],
            keypoint_params=albumentations.KeypointParams(format="xy", remove_invisible=False),
            seed=0,
        )
        self.y, self.x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        film = self.films[index]
        picture = cv2.cvtColor(cv2.imdecode(np.fromfile(film.path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        changed = self.transform(image=picture, keypoints=film.points)
        return changed["image"], torch.from_numpy(np.stack([self._target(x, y) for x, y in changed["keypoints"]]))

    def _target(self, x: float, y: float) -> Any:
        return np.exp(-((self.x - np.float32(x)) ** 2 + (self.y - np.float32(y)) ** 2) / np.float32(2 * SIGMA**2))


class Torchvision(Dataset[tuple[Tensor, Tensor]]):
    """torchvision's transforms on a grey film and its points, without targets."""

    def __init__(self, films: Sequence[Film]) -> None:
        self.films = films
        self.transform = v2.Compose(
            [
                v2.Resize((SIZE, SIZE), antialias=True),
                v2.RandomAffine(degrees=12, translate=(0.06, 0.06), scale=(0.87, 1.15)),
                v2.ColorJitter(brightness=0.08, contrast=0.2),
                v2.RandomApply([v2.GaussianBlur(5, sigma=(0.1, 1.0))], p=0.5),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.GaussianNoise(sigma=0.02),
                v2.RandomErasing(p=0.3, scale=(0.0, 0.04)),
                v2.Normalize([0.449], [0.226]),
            ]
        )

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        film = self.films[index]
        picture = tv_tensors.Image(io.decode_image(str(film.path), mode=io.ImageReadMode.GRAY))
        canvas = film.size[1], film.size[0]
        points = tv_tensors.KeyPoints(torch.from_numpy(film.points).float(), canvas_size=canvas)
        changed, moved = self.transform(picture, points)
        return changed.as_subclass(Tensor), moved.as_subclass(Tensor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    load_before = _load()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        films = load_films(make_sample(Path(folder) / "films", films=FILMS, height=2400, machines=(MACHINE,)), "train")
        began = time.perf_counter()
        cache = FilmCache.open(films, (SIZE, SIZE), folder=Path(folder) / "cache")
        built_s = time.perf_counter() - began
        pipelines = pipelines_of(films, cache)
        moved = {name: _bytes_a_sample(batches) for name, batches in pipelines.items()}
        timed = _timed(pipelines, rounds)
    result = {
        **_rates(timed),
        "bytes_a_sample": moved,
        "bytes_ratio": round(moved["guide"] / moved["ours"], 1),
        "cache": {"films": len(films), "threads": os.cpu_count(), "build_s": round(built_s, 2)},
        "films": {"number": len(films), "size": list(films.films[0].size), "type": "grey PNG"},
        "load_average": {"before": load_before, "after": _load()},
    }
    keep("data_pipeline", result, packages=PACKAGES)
    reached = all(result["ratio"][name] >= least for name, least in CLAIMS.items())
    sys.exit(0 if reached and result["bytes_ratio"] >= BYTES_CLAIM else 1)


def pipelines_of(films: FilmSet, cache: FilmCache) -> dict[str, Batches]:
    """Each as a function of a number of images, which gives their batches."""
    loader = Loader(FilmSamples(FilmDataset(cache, preset("standard"))))
    epochs = iter(range(10**6))

    def ours(images: int) -> Iterable[Any]:
        order = [place % len(films) for place in range(images)]
        return loader.batches(next(epochs), [order[at : at + BATCH] for at in range(0, images, BATCH)])

    def theirs(dataset: Dataset[Any]) -> Batches:
        return lambda images: DataLoader(dataset, BATCH, sampler=[place % len(films) for place in range(images)])

    return {"ours": ours, "guide": theirs(Guide(films.films)), "torchvision": theirs(Torchvision(films.films))}


def _bytes_a_sample(batches: Batches) -> int:
    """Bytes of a real batch's tensors, all of which cross to the card; also warms the pipeline up."""
    (batch,) = batches(BATCH)
    return sum(leaf.nbytes for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)) // BATCH


def _timed(pipelines: dict[str, Batches], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds an image, round by round."""
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, batches in pipelines.items():
            wall, processor = time.perf_counter(), time.process_time()
            for _ in batches(IMAGES[name]):
                pass
            spent = time.perf_counter() - wall, time.process_time() - processor
            timed[name].append((spent[0] / IMAGES[name], spent[1] / IMAGES[name]))
    return timed


def _rates(timed: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Medians over the rounds. The ratios are of processor time, which other work on the machine disturbs least."""
    wall = {name: median(one for one, _ in times) for name, times in timed.items()}
    processor = {name: median(one for _, one in times) for name, times in timed.items()}
    return {
        "images_per_s": {name: round(1 / seconds, 2) for name, seconds in processor.items()},
        "images_per_s_by_the_wall_clock": {name: round(1 / seconds, 2) for name, seconds in wall.items()},
        "ratio": {name: round(processor[name] / processor["ours"], 1) for name in CLAIMS},
        "ratio_by_the_wall_clock": {name: round(wall[name] / wall["ours"], 1) for name in CLAIMS},
        "rounds": len(timed["ours"]),
    }


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    main()
