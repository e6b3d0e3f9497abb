"""Checkpoints of a watched script: its objects are kept, and of its tensors the shapes, for they hold no values.

A script that saves its best weights and loads them again at its end finds them; the real ones it began from are read
as they are.
"""

import copyreg
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from vramfit.prediction.tracing.fake_tensors import storageless
from vramfit.prediction.tracing.swapping import swap

_MAGIC = b"vramfit: shapes of a checkpoint\n"
_SMALL_BYTES = 4096


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Within it, `torch.save` writes shapes, and `torch.load` reads them again."""
    with ExitStack() as stack:
        swap(stack, torch, "save", _save)
        swap(stack, torch, "load", _loading(torch.load))
        if find_spec("safetensors") is not None:
            import safetensors.torch as library

            swap(stack, library, "save_file", _save)
            swap(stack, library, "load_file", _loading(library.load_file))
        yield


def shape_of(tensor: Tensor) -> tuple[Any, ...]:
    """What is kept of a tensor."""
    kept = tensor.detach()
    return tuple(kept.shape), kept.dtype, tensor.requires_grad, isinstance(tensor, nn.Parameter), tensor.is_cuda


def tensor_of(
    size: tuple[int, ...], dtype: torch.dtype, requires_grad: bool, is_parameter: bool, on_card: bool = False
) -> Tensor:
    """A tensor of such a shape: on the host without memory, or of zeros where it is small; or on the card."""
    with torch.utils._python_dispatch._disable_current_modes():
        stride = torch.empty(size, device="meta").stride()
        small = torch.Size(size).numel() * dtype.itemsize <= _SMALL_BYTES
        tensor = torch.zeros(size, dtype=dtype) if small else storageless(size, stride, dtype)
    if on_card:
        tensor = tensor.cuda()
    return nn.Parameter(tensor, requires_grad) if is_parameter else tensor.requires_grad_(requires_grad)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """Shapes for tensors; what cannot be pickled is left out."""
        if isinstance(value, Tensor):
            return tensor_of, shape_of(value)
        if isinstance(value, torch.device):
            return torch.device, (str(value),)
        return NotImplemented


_Pickler.dispatch_table = copyreg.dispatch_table


def _save(obj: Any, f: Any, *_: Any, **__: Any) -> None:
    buffer = io.BytesIO(_MAGIC)
    buffer.seek(0, io.SEEK_END)
    _Pickler(buffer).dump(obj)
    if hasattr(f, "write"):
        f.write(buffer.getvalue())
        return
    with open(f, "wb") as file:  # noqa: PTH123  # the one that a script's own code would call
        file.write(buffer.getvalue())


def _loading(original: Callable[..., Any]) -> Callable[..., Any]:
    def load(f: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        place = map_location if isinstance(map_location, (str, int, torch.device)) else None
        if _holds_shapes(f):
            loaded = _unpickled(f)
        elif original.__name__ == "load_file":  # of safetensors, which has no such argument
            place = kwargs.get("device", place)
            loaded = original(f)
        else:
            loaded = original(f, "cpu" if place is not None else map_location, *args, **kwargs)
        if place is None:
            return loaded
        return tree_map(lambda one: one.to(place) if isinstance(one, Tensor) else one, loaded)

    return load


def _holds_shapes(f: Any) -> bool:
    if not hasattr(f, "read"):
        with open(f, "rb") as file:  # noqa: PTH123  # as above
            return file.read(len(_MAGIC)) == _MAGIC
    place = f.tell()
    found: bool = f.read(len(_MAGIC)) == _MAGIC
    f.seek(place)
    return found


def _unpickled(f: Any) -> Any:
    if not hasattr(f, "read"):
        with open(f, "rb") as file:  # noqa: PTH123  # as above
            return _unpickled(file)
    f.read(len(_MAGIC))
    return pickle.load(f)
