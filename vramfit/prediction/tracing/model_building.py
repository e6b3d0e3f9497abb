"""Building a network without memory: its large tensors hold nothing, its small ones are real.

Schedules, anchors and index maps are small and are computed for real, whether they become buffers or plain
attributes; weight matrices are large, and nobody needs what is drawn for them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vramfit.jobs.job import Job, build_model
from vramfit.prediction.tracing.address_space import is_reserved
from vramfit.prediction.tracing.assumptions import Assumptions
from vramfit.prediction.tracing.fake_tensors import Operations, storageless
from vramfit.prediction.tracing.op_schema import Nature, nature_of
from vramfit.prediction.tracing.tensor_trees import tensors_given
from vramfit.prediction.tracing.values import Values

_REAL_LIMIT_BYTES = 1 << 20


def built_without_memory(job: Job, *, real: bool = False) -> nn.Module:
    """The job's network with large tensors that have no memory, or `real` ones; on the CPU either way."""
    if real:
        return build_model(job)
    with _Building():
        return build_model(job)


class _Building(TorchDispatchMode):
    """Makes large tensors without memory, and leaves out what would fill them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        values = Values(_is_empty, "nothing")
        self._operations = Operations(_is_empty, lambda _: None, values, Assumptions(values, []))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if nature_of(func) is Nature.VIEW:
            return func(*args, **kwargs)
        given = tensors_given(args, kwargs)
        if not given and any(argument.name == "device" for argument in func._schema.arguments):
            return _new(func, args, kwargs)
        return self._operations.run(func, args, kwargs, given)


def _new(func: Any, args: Any, kwargs: Any) -> Any:
    """A new tensor: real if it is small."""
    if torch.device(kwargs.get("device") or "cpu").type != "cpu":
        return func(*args, **kwargs)
    shape = func(*args, **{**kwargs, "device": "meta", "pin_memory": None})
    if shape.untyped_storage().nbytes() <= _REAL_LIMIT_BYTES:
        return func(*args, **kwargs)
    return storageless(shape.shape, shape.stride(), shape.dtype)


def _is_empty(tensor: Tensor) -> bool:
    return is_reserved(tensor.untyped_storage())
