"""Out of memory at a chosen operation: a dispatch mode that raises when the k-th aten operation is about to run."""

import contextlib
import functools

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class FaultAt(TorchDispatchMode):
    """Raises once, at operation `k` (from 0); `count` is how many were seen."""

    def __init__(self, k, error=None):
        super().__init__()
        self.k = k
        self.count = 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    @property
    def struck(self):
        return self.count > self.k

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count - 1 == self.k:
            raise self.error
        return func(*args, **(kwargs or {}))


def strike_second_step(trainer, fault):
    """The second step of a Hugging Face trainer runs under a fault: its passes, its clipping and its update."""

    def faulty(act):
        @functools.wraps(act)
        def acted(*given, **named):
            with fault if trainer.state.global_step == 1 else contextlib.nullcontext():
                return act(*given, **named)

        return acted

    trainer.training_step = faulty(trainer.training_step)
    trainer._clip_grad_norm = faulty(trainer._clip_grad_norm)
    trainer.optimizer.step = faulty(trainer.optimizer.step)
