"""From samples to batches: the order of an epoch, its optimizer steps, and the loader that fetches them.

Order and augmentation are functions of seed, epoch and sample, so that neither workers nor a resume change them.
"""

import signal
from collections.abc import Iterator, Sequence, Sized
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vramfit.jobs.job import Batch


class Samples(Sized, Protocol):
    """Samples of one split; pickles, for workers on Windows."""

    def fetch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Some samples as a host batch, in this order, as this epoch is to see them."""


Key = tuple[int, tuple[int, ...]]


def epoch_order(samples: int, *, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch takes its samples, each once."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return [int(index) for index in random.permutation(samples)]


def cut(order: Sequence[int], effective_batch: int) -> list[tuple[int, ...]]:
    """The samples of each optimizer step, in order.

    The last step takes what is left. A single sample left over joins the step before it: batch normalisation
    cannot learn from one.
    """
    starts = list(range(0, len(order), effective_batch))
    if len(starts) > 1 and effective_batch > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    stops = [*starts[1:], len(order)] if starts else []
    return [tuple(order[start:stop]) for start, stop in zip(starts, stops, strict=True)]


def share(samples: Sequence[int], rank: int, world_size: int) -> tuple[int, ...]:
    """The samples of one rank: consecutive, sizes that differ by one at most."""
    size, more = divmod(len(samples), world_size)
    start = rank * size + min(rank, more)
    return tuple(samples[start : start + size + (rank < more)])


class _Fetcher(Dataset[Any]):
    """Samples as a data set whose items are whole batches."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, key: Key) -> Batch | None:
        epoch, indices = key
        return self.samples.fetch(epoch, indices) if indices else None


class _Keys:
    """The batches of the epoch under way; the loader asks anew at each epoch."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class Loader:
    """Fetches batches of samples in worker processes that outlive an epoch, each with some batches `ahead`."""

    def __init__(self, samples: Samples, *, workers: int = 0, ahead: int = 2, pin_memory: bool = False) -> None:
        self._keys = _Keys()
        self._loader: DataLoader[Any] = DataLoader(
            _Fetcher(samples),
            batch_size=None,
            sampler=self._keys,
            num_workers=workers,
            prefetch_factor=ahead if workers else None,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_interrupt,
            # Its own: a loader that draws its seed from torch's generator changes the run that resumes.
            generator=torch.Generator(),
        )

    def batches(self, epoch: int, cuts: Sequence[Sequence[int]]) -> Iterator[Batch | None]:
        """The batches of these samples, in order; None for one without samples."""
        self._keys.keys = [(epoch, tuple(indices)) for indices in cuts]
        return iter(self._loader)


def _ignore_interrupt(_worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; the workers are to live until the checkpoint is written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
