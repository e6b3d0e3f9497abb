"""The live bytes of real CPU tensors through a job's steps: a truth that shares no code with a prediction.

The loop is written out here, as a user would write it, and knows nothing of `vramfit.jobs.step`: two steps, the second
of two passes, then a validation, as a trial rehearses them.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim import optimizer as optimizer_module
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from vramfit.jobs.job import Job


class LiveBytes(TorchDispatchMode):
    """Follows every storage from the operation that returns it to its end; `peak_bytes` is the most that lived."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.now_bytes = self.peak_bytes = 0
        self._sizes: dict[int, int] = {}
        self._ends: dict[int, Any] = {}

    def count(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        self.now_bytes += size - self._sizes.get(address, 0)
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        if address not in self._sizes:
            self._ends[address] = weakref.ref(storage, lambda _: self._gone(address))
        self._sizes[address] = size

    def _gone(self, address: int) -> None:
        self.now_bytes -= self._sizes.pop(address)
        del self._ends[address]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.count(value)
        return out


@contextmanager
def kernels_of_a_card() -> Iterator[None]:
    """Optimizers and clipping work through lists of tensors at once, as they do on a card."""
    devices = [*_foreach_utils._get_foreach_kernels_supported_devices(), "cpu"]
    name = "_get_foreach_kernels_supported_devices"
    with (
        mock.patch.object(_foreach_utils, name, return_value=devices),
        mock.patch.object(optimizer_module, name, return_value=devices),
    ):
        yield


def true_peak_bytes(job: Job, micro_batch: int) -> int:
    """The most bytes that live at once through two steps and a validation of a float32 job on the CPU."""
    torch.manual_seed(0)
    with kernels_of_a_card():
        model = job.model().train()
        for name in job.frozen:
            model.get_submodule(name).requires_grad_(False)
        host = job.batch(micro_batch)  # type: ignore[operator]  # a function, in benchmarks
        live = LiveBytes()
        for value in [*model.parameters(), *model.buffers()]:
            live.count(value)
        with live:
            learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
            optimizer = job.optimizer(learning)  # type: ignore[operator]  # one, in benchmarks
            for passes in (1, 2):
                for _ in range(passes):
                    _forward_and_backward(job, model, host, 1 / passes)
                if job.clip_norm:
                    nn.utils.clip_grad_norm_(model.parameters(), job.clip_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                model.eval()
                _loss(job, model, _moved(host))
    return live.peak_bytes


def _forward_and_backward(job: Job, model: nn.Module, host: Any, share: float) -> None:
    for name in job.frozen:
        model.get_submodule(name).eval()
    batch = _moved(host)
    outputs, loss = _loss(job, model, batch)
    loss = loss * share
    loss.backward()
    del outputs, batch


def _moved(host: Any) -> Any:
    return tree_map(torch.clone, host)


def _loss(job: Job, model: nn.Module, batch: Any) -> tuple[Any, Tensor]:
    if job.loss is None:
        outputs = model(**batch)
        return outputs, outputs["loss"]
    if isinstance(batch, dict):
        outputs = model(batch["x"])
        return outputs, job.loss(outputs, batch)
    outputs = model(batch[0])
    return outputs, job.loss(outputs, batch[1])
