"""Bytes of tensors that are alive while a real step runs on the CPU: the truth that a trace is held to."""

import weakref
from functools import partial

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from vramfit.jobs import offload
from vramfit.jobs.batch import sample_batch, tensors_in
from vramfit.jobs.step import Step


class Live(TorchDispatchMode):
    """Counts the storages of what operations return, from then until they are freed; `peak` in bytes."""

    def __init__(self):
        super().__init__()
        self.sizes, self.references = {}, {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.add(out)
        return out

    def add(self, tree):
        for value in tree_leaves(tree):
            if isinstance(value, Tensor):
                self._add(value.untyped_storage())

    def _add(self, storage):
        key = storage._cdata
        if key not in self.sizes:
            self.references[key] = weakref.ref(storage, lambda _: self._drop(key))
        self.now += storage.nbytes() - self.sizes.get(key, 0)
        self.sizes[key] = storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _drop(self, key):
        self.references.pop(key, None)
        self.now -= self.sizes.pop(key)


def live_peak(job, samples, monkeypatch, steps=2):
    """The most bytes alive in real steps of a job on the CPU; what is offloaded does not count."""
    to_host = offload.to_host

    def uncounted(tensor):
        with _disable_current_modes():
            return to_host(tensor)

    monkeypatch.setattr(offload, "to_host", uncounted)
    torch.manual_seed(0)
    step, live = Step(job, "cpu"), Live()
    batch = sample_batch(job, samples)
    with live:
        live.add([*step.model.parameters(), *step.model.buffers(), *tensors_in(batch)])
        for _ in range(steps):
            step.train(batch, samples)
    return live.peak


def optimizer(kind=torch.optim.AdamW, **settings):
    """An optimizer that works through weights together, as on a card."""
    return partial(kind, foreach=True, **settings)
