"""DataLoaders of a watched script: read in its own process, and no further than the answer needs.

Worker processes would prepare batches that nobody takes. After the steps that are asked for a training loader ends, so
that a script goes on to its validation by itself; a validation ends after two batches.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader, _utils
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind, _SingleProcessDataLoaderIter

from vramfit.prediction.tracing.swapping import swap
from vramfit.script.observer import Observer

_VALIDATION_BATCHES = 2


@contextmanager
def short_loaders(observer: Observer) -> Iterator[None]:
    """Within it, every DataLoader is read in this process, and only as far as `observer` wants."""
    training: WeakSet[Any] = WeakSet()  # loaders whose batches were learned from
    with ExitStack() as stack:
        swap(stack, DataLoader, "_get_iterator", lambda loader: _Watched(loader, observer, training))
        yield


@contextmanager
def noted_batches(observer: Observer) -> Iterator[None]:
    """Within it, `observer` is told of every batch that any DataLoader brings."""
    bring = _BaseDataLoaderIter.__next__

    def brought(iterator: Any) -> Any:
        batch = bring(iterator)
        observer.note_batch(batch)
        return batch

    with ExitStack() as stack:
        swap(stack, _BaseDataLoaderIter, "__next__", brought)
        yield


class _Watched(_SingleProcessDataLoaderIter):
    """The iterator of a loader without workers, for a loader that asked for some."""

    def __init__(self, loader: Any, observer: Observer, training: WeakSet[Any]) -> None:
        _BaseDataLoaderIter.__init__(self, loader)
        self._observer = observer
        self._loader, self._training = loader, training
        self._reset(loader)
        self._set_up_worker(loader)

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin an epoch, as a loader with persistent workers asks of the iterator that it has."""
        super()._reset(loader, first_iter)
        self._dataset_fetcher = _DatasetKind.create_fetcher(
            self._dataset_kind, self._dataset, self._auto_collation, self._collate_fn, self._drop_last
        )
        self._taken = 0
        self._steps_before = self._observer.steps_made

    def _set_up_worker(self, loader: Any) -> None:
        """A dataset that opens its files in `worker_init_fn` finds itself in a worker, the only one."""
        if loader.worker_init_fn is None or not loader.num_workers:
            return
        info = _utils.worker.WorkerInfo(id=0, num_workers=1, seed=int(self._base_seed), dataset=self._dataset)
        _utils.worker._worker_info = info
        try:
            loader.worker_init_fn(0)
        finally:
            _utils.worker._worker_info = None

    def _next_index(self) -> Any:
        index = super()._next_index()  # type: ignore[no-untyped-call]
        self._observer.drawn = len(index) if isinstance(index, (list, tuple)) else 0
        return index

    def __next__(self) -> Any:
        """The next batch, unless nothing more is wanted."""
        observer = self._observer
        learned = observer.phase in ("backward", "optimizer") or observer.steps_made > self._steps_before
        if learned and self._taken:
            self._training.add(self._loader)
        trains = self._loader in self._training and torch.is_grad_enabled()
        validates = not trains and (observer.done or observer.validating or not torch.is_grad_enabled())
        if trains and not self._taken:
            observer.epoch_begins()
        observer.loader_ended = observer.loader_ended or (observer.done and trains)
        if (observer.done and trains) or observer.late or (validates and self._taken >= _VALIDATION_BATCHES):
            raise StopIteration
        self._taken += 1
        batch = super().__next__()
        observer.batch_moves()
        return batch
