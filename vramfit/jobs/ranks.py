"""Several processes as one run: votes, averages and exact sums over ranks.

Every rank runs forward and backward alone, with no communication inside: a rank that runs out of memory would leave
the others waiting in it for ever. Then all vote, and only when nobody failed are gradients averaged.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Ranks:
    """This process among those of the run; alone, every method is a matter of returning what it was given."""

    def __init__(
        self,
        rank: int = 0,
        world_size: int = 1,
        local_rank: int = 0,
        local_size: int = 1,
        votes: Any = None,
    ) -> None:
        self.rank = rank
        self.world_size = world_size
        self.local_rank = local_rank
        self.local_size = local_size
        self._votes = votes

    @classmethod
    def join(cls, device_type: str) -> "Ranks":
        """Join the others that torchrun started; alone where it started none."""
        if "WORLD_SIZE" not in os.environ or not dist.is_available():
            return cls()
        if not dist.is_initialized():
            # Votes are host tensors and go over gloo: they never wait for the card.
            dist.init_process_group("cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo")
        here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return cls(dist.get_rank(), dist.get_world_size(), *here)

    @classmethod
    def here(cls) -> "Ranks":
        """The processes that someone else has joined already; alone where nobody did. Every rank must call it."""
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
            return cls()
        here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return cls(dist.get_rank(), dist.get_world_size(), *here, votes=_group_of_hosts())

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        """End the group that `join` began."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that writes and reports."""
        return self.rank == 0

    def any(self, mine: bool) -> bool:
        """Whether any rank says yes."""
        return -self.minimum(-int(mine)) > 0

    def minimum(self, mine: int) -> int:
        """The smallest of the ranks' numbers."""
        if self.world_size == 1:
            return mine
        number = torch.tensor(mine, dtype=torch.int64)
        dist.all_reduce(number, op=dist.ReduceOp.MIN, group=self._votes)
        return int(number)

    def gather(self, mine: Any) -> list[Any]:
        """Every rank's object, in order of rank."""
        if self.world_size == 1:
            return [mine]
        everyones: list[Any] = [None] * self.world_size
        dist.all_gather_object(everyones, mine, group=self._votes)
        return everyones

    def others(self, mine: Any) -> list[Any]:
        """Every other rank's object."""
        return [theirs for rank, theirs in enumerate(self.gather(mine)) if rank != self.rank]

    def share_weights(self, model: nn.Module) -> None:
        """Give every rank the first one's parameters and buffers."""
        if self.world_size > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, src=0)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the ranks' tensors."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def average_gradients(self, parameters: Iterable[nn.Parameter], weight: float) -> None:
        """Replace each gradient by the ranks' average, in place and without a buffer that could run out of memory.

        `weight` is this rank's share of the step's samples, so that the result is the gradient of the mean over all
        of them whatever each rank's number. `fill_gradients` must have been called.
        """
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, weight)
        for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
            if work is not None:
                work.wait()

    def fill_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give parameters that saw no sample here a gradient of zeros, as ranks must reduce the same tensors."""
        if self.world_size > 1:
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def average_statistics(self, model: nn.Module, weight: float) -> None:
        """Make the running statistics of batch normalisation those of all ranks' samples."""
        if self.world_size == 1:
            return
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                statistics = dict(module.named_buffers(recurse=False))
                count = statistics.pop("num_batches_tracked", None)
                for statistic in statistics.values():
                    dist.all_reduce(statistic.mul_(weight))
                if count is not None:
                    dist.all_reduce(count, op=dist.ReduceOp.MAX)


def _group_of_hosts() -> Any:
    """A group for host tensors, where the one that there is (NCCL) takes a card's alone."""
    if "gloo" in str(dist.get_backend_config()):
        return None
    return dist.new_group(backend="gloo")
