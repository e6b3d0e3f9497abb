"""What torch does for tensors on a card, done for storage-less tensors that say they are on a CPU."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode

from vramfit.jobs.job import Job, empty_model
from vramfit.prediction.tracing.autocast import cuda_autocast
from vramfit.prediction.tracing.cuda_kernels import AMPERE
from vramfit.prediction.tracing.op_schema import Nature, nature_of, written_argument
from vramfit.prediction.tracing.recorder import Recorder

# Read memory without an operation that the recorder could see.
_READERS = ("numpy", "data_ptr", "__dlpack__")


@contextmanager
def cuda_everywhere(capability: tuple[int, int] = AMPERE) -> Iterator[None]:
    """Autocast, kernels, optimizers and clipping are for CPU tensors what they are on a card; none can be read.

    `capability` is the card's compute capability.
    """
    benchmark = torch.backends.cudnn.benchmark
    with ExitStack() as stack:
        stack.callback(setattr, torch.backends.cudnn, "benchmark", benchmark)
        stack.enter_context(cuda_autocast(capability))
        foreach = _foreach_utils._get_foreach_kernels_supported_devices
        for module in (optimizer, _foreach_utils):
            _swap(stack, module, "_get_foreach_kernels_supported_devices", lambda: [*foreach(), "cpu"])
        _swap(stack, Tensor, "__deepcopy__", _deepcopy)
        for name in _READERS:
            _swap(stack, Tensor, name, _refuse(name))
        yield


def storageless_model(job: Job, recorder: Recorder) -> nn.Module:
    """The job's network without memory, moved to the card in the order in which `Module.to` moves it."""
    model = built_on_meta(job)
    moved: dict[int, tuple[Tensor, Tensor]] = {}  # originals are kept, for a number may stand for a new object else
    for name, module in _children_first(model, "", set()):
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    if id(tensor) not in moved:
                        moved[id(tensor)] = tensor, _moved(tensor, recorder, name)
                    tensors[key] = moved[id(tensor)][1]  # type: ignore[assignment]  # a parameter stays one
    return model


def built_on_meta(job: Job) -> nn.Module:
    """The network on meta tensors, or on the CPU if its construction needs values."""
    with _Unfilled():  # type: ignore[no-untyped-call]  # torch has no types there
        return empty_model(job)


class _Unfilled(TorchDispatchMode):
    """Leaves out what fills tensors with values: meta tensors have none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if nature_of(func) is Nature.WRITE and args and isinstance(args[0], Tensor) and args[0].is_meta:
            return written_argument(func, args, kwargs)
        return func(*args, **kwargs)


def _moved(tensor: Tensor, recorder: Recorder, module: str) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        return recorder.move(tensor, "buffer", module)
    copy = nn.Parameter(recorder.move(tensor.detach(), "parameter", module), tensor.requires_grad)
    copy.__dict__.update(tensor.__dict__)
    return copy


def _children_first(module: nn.Module, name: str, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    if module in seen:
        return
    seen.add(module)
    for child_name, child in module.named_children():
        yield from _children_first(child, f"{name}.{child_name}" if name else child_name, seen)
    yield name, module


def _deepcopy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    copied: Tensor = memo[id(tensor)]
    return copied


def _refuse(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"Tensor.{name} reads memory, which a traced tensor does not have")

    return refuse


def _swap(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Replace an attribute until the stack unwinds; one that was inherited is inherited again."""
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)
