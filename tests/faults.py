"""Out of memory at a chosen operation: a dispatch mode that raises when the k-th aten operation is about to run."""

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
