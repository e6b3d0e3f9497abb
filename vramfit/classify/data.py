"""Images in folders by class, read and changed by timm's own pipeline: B batch, H W pixels."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vramfit.errors import DataError
from vramfit.jobs.job import Batch
from vramfit.jobs.random_state import CPU, random_state, set_random_state

_VALIDATE_ONE_IN = 5
Entry = tuple[Path, int]


@dataclass(frozen=True)
class ImageSamples:
    """Some images with the numbers of their classes; `transform` makes a float32 3HW tensor of a PIL image."""

    entries: tuple[Entry, ...]
    transform: Callable[[Any], Tensor]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.entries)

    def fetch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """(float32 B3HW, int64 B); an image's changes follow from seed, epoch and index alone."""
        images = [self._image(epoch, index) for index in indices]
        return torch.stack(images), torch.tensor([self.entries[index][1] for index in indices])

    def _image(self, epoch: int, index: int) -> Tensor:
        from PIL import Image, UnidentifiedImageError

        path, _ = self.entries[index]
        try:
            with Image.open(path) as image, _seeded(self.seed, epoch, index):
                return self.transform(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); mend it, or take it away.") from None


def read_classes(root: Path, seed: int) -> tuple[tuple[str, ...], list[Entry], list[Entry]]:
    """The classes of a folder, and its training and validation images.

    A folder without `val` (or `valid`, `validation`) gives one image in five of each class to validation, by `seed`.
    DataError where there is no such folder, or there are no images in folders of classes.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; name one with a folder of images for each class.")
    numbers, training = _entries(root, "train", None)
    _, validation = _entries(root, "validation", numbers)
    if {path for path, _ in training} & {path for path, _ in validation}:  # timm found no split folders, and took all
        training, validation = _split(training, seed)
    if not validation:
        raise DataError(f"{root}: too few images to keep any for validation; add some, or a val folder.")
    return tuple(sorted(numbers, key=numbers.__getitem__)), training, validation


def _entries(root: Path, split: str, numbers: dict[str, int] | None) -> tuple[dict[str, int], list[Entry]]:
    from timm.data.dataset_factory import create_dataset

    try:
        reader: Any = create_dataset("", str(root), split, class_map=numbers or {}).reader
    except (RuntimeError, AssertionError, FileNotFoundError, KeyError) as error:
        raise DataError(f"{root}: {error}; a folder of images for each class is needed, in train and in val.") from None
    return dict(reader.class_to_idx), [(Path(path), int(number)) for path, number in reader.samples]


def _split(entries: list[Entry], seed: int) -> tuple[list[Entry], list[Entry]]:
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(entries))
    kept: tuple[list[Entry], list[Entry]] = ([], [])
    seen: Counter[int] = Counter()
    for entry in (entries[place] for place in order):
        seen[entry[1]] += 1
        kept[seen[entry[1]] % _VALIDATE_ONE_IN == 0].append(entry)
    return sorted(kept[0]), sorted(kept[1])


@contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """Random numbers that follow from a key; those that were to come go on afterwards."""
    before, number = random_state(CPU), int(np.random.SeedSequence(key).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)
    try:
        yield
    finally:
        set_random_state(before, CPU)
