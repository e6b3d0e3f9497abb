"""A network on several cards: shared by torch's FSDP2, or whole on each with DistributedDataParallel.

With FSDP2 each card holds a part of every weight, gradient and moment. Blocks are gathered one by one as they are
needed (`torch.distributed.fsdp.fully_shard`), what is in none of them together. A weight is cut along its first
dimension into parts of equal length, the last ones filled up.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vramfit.errors import UsageError
from vramfit.jobs.recompute import find_recomputable


def shard(
    model: nn.Module,
    device: torch.device,
    move: Callable[[nn.Module], object],
    *,
    names: Collection[str] = (),
    keep: bool,
    gathered_in: torch.dtype | None,
) -> None:
    """Shard a network in place over the ranks of the process group; it is moved block by block.

    Args:
        model: the network, on the host.
        device: where this rank computes.
        move: moves a module and its parts to the device.
        names: dotted names of the modules that are gathered one by one, inner ones first; empty for every block.
        keep: leave gathered weights whole from the forward to the backward pass: faster, and larger.
        gathered_in: the dtype of gathered weights; None for their own. Gradients are summed in float32.

    Raises:
        UsageError: there are no other ranks, this torch has no FSDP2, or the network has no such module.

    """
    _require_others("fsdp")
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    except ImportError as error:
        raise UsageError("fsdp needs torch 2.6 or later; upgrade torch.") from error
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=gathered_in, reduce_dtype=torch.float32 if gathered_in else None)
    parts = dict(model.named_modules())
    if missing := [name for name in names if name not in parts]:
        raise UsageError(f"{type(model).__name__} has no module '{missing[0]}' to shard; see model.named_modules().")
    for module in (*map(parts.__getitem__, names or find_recomputable(model).blocks), model):
        move(module)
        fully_shard(module, mesh=mesh, reshard_after_forward=not keep, mp_policy=policy)


def average_in_buckets(model: nn.Module, *, views: bool) -> None:
    """Average a network's gradients over the ranks of the process group, in buckets, as they come.

    Args:
        model: the network, changed in place; its weights are taken to be those of the other ranks.
        views: let gradients be parts of the buckets.

    Raises:
        UsageError: there are no other ranks.

    """
    _require_others("ddp")
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=views)

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return wrapped._pre_forward(*args, **kwargs)

    def after(_: nn.Module, _args: Any, output: Any) -> Any:
        return wrapped._post_forward(output)

    model.register_forward_pre_hook(before, with_kwargs=True)
    model.register_forward_hook(after)


def _require_others(lever: str) -> None:
    if not dist.is_initialized() or dist.get_world_size() < 2:
        raise UsageError(
            f"{lever} is of several cards: predict with cards=2 (--cards 2) or more, and run the step in a process "
            "group (torchrun --nproc-per-node 2)."
        )
