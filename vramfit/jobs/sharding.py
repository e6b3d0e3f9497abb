"""A network shared by several cards with torch's FSDP2: each holds a part of every weight, gradient and moment.

Blocks are gathered one by one as they are needed (`torch.distributed.fsdp.fully_shard`), what is in none of them
together. A weight is cut along its first dimension into parts of equal length, the last ones filled up.
"""

from collections.abc import Callable, Collection

import torch
import torch.distributed as dist
from torch import nn

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
    if not dist.is_initialized() or dist.get_world_size() < 2:
        raise UsageError(
            "fsdp shares a network over several cards: predict with cards=2 (--cards 2) or more, and run the step in a "
            "process group (torchrun --nproc-per-node 2)."
        )
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
