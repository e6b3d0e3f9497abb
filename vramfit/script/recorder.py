"""Records what a script does on its card, beside what it does on the host for real.

Three kinds of tensors meet in a script: those on the card, which have no memory; those on the host, which are real;
and network weights that are still on the host, whose values nobody needs: they have no memory either.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass_type

from vramfit.prediction.trace_records import Kind, Trace
from vramfit.prediction.tracing.address_space import is_reserved
from vramfit.prediction.tracing.assumptions import Assumptions
from vramfit.prediction.tracing.card_places import CARD, is_card
from vramfit.prediction.tracing.fake_tensors import HOST, Operations, storageless
from vramfit.prediction.tracing.op_schema import Nature, nature_of
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.prediction.tracing.sparse_tensors import dense_parts
from vramfit.prediction.tracing.tensor_trees import tensors_given, tensors_in
from vramfit.prediction.tracing.values import Values

_ATEN = torch.ops.aten
_UNSAID = torch.device("cpu")  # where C++ makes the parts of a call: where its tensors say that they are
# Weights below this size are real: gates, scales and their like, which a script may read.
_SMALL_WEIGHT_BYTES = 16 << 10


class ScriptRecorder(Recorder):
    """A recorder for code that names its devices: `cuda` is the card, and everything else is the host."""

    def __init__(self, trace: Trace, capability: tuple[int, int]) -> None:
        super().__init__(trace, capability)
        values = Values(_has_no_memory, "nothing")
        self._on_host = Operations(_has_no_memory, lambda _: None, values, Assumptions(values, []))
        self._given_card = False
        self._lock = threading.RLock()  # a script's threads run in this mode, too
        self.brought = 0  # the first dimension of the batch that was brought last

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation where its tensors are."""
        if any(map(is_traceable_wrapper_subclass_type, types)):
            return NotImplemented  # a DTensor: its parts come here by themselves
        with self._lock:
            return self._run(func, types, args, kwargs or {})

    def _run(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = tensors_given(args, kwargs)
        if kwargs.get("device") == _UNSAID and self._given_card:
            kwargs = {**kwargs, "device": CARD}
        if kwargs.get("device") == CARD or any(map(self.on_card, given)):
            out = super().__torch_dispatch__(func, types, args, kwargs)
            return (out[0], _batch_sizes(args[1])) if func is _ATEN._pack_padded_sequence.default else out
        if nature_of(func) is Nature.VIEW or not any(map(_has_no_memory, given)):
            return func(*args, **kwargs)
        return self._on_host.run(func, args, kwargs, given)

    def bring(self, tensor: Tensor) -> Tensor:
        """The card's copy of a host tensor: a weight, or a batch."""
        kind: Kind = "parameter" if isinstance(tensor, nn.Parameter) else self._kind(None, ())
        if kind != "parameter" and tensor.dim():
            self.brought = int(tensor.shape[0])
        if nn.parameter.is_lazy(tensor):  # of a lazy layer, without a size yet
            tensor = tensor.data
        moved = self.move(tensor, kind, self.running.name)
        return moved.requires_grad_(tensor.requires_grad)

    def enter(self, name: str, inputs: Any) -> None:
        """A module of the script's networks begins."""
        self.running.enter(name, inputs)

    def leave(self, output: Any) -> None:
        """The module that began last is at its end."""
        self.running.leave(output)

    @property
    def in_step(self) -> bool:
        """Whether a network runs, and not what prepares its data."""
        return bool(self.running.name)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Within it, what torch makes inside a call is on the card if the call was given a tensor that is.

        Torch composes operations of others, and asks for the parts where a traced tensor says it is: on a CPU.
        """
        with _Calls(self):
            yield

    @contextmanager
    def made_on_card(self) -> Iterator[None]:
        """Within it, what torch makes for itself is on the card."""
        before, self._given_card = self._given_card, True
        try:
            yield
        finally:
            self._given_card = before

    def step_ended(self, name: str, samples: int) -> None:
        """Note how many samples a step had."""
        self.trace.samples[name] = samples

    def empty_weight(self, parameter: nn.Parameter) -> None:
        """Take the memory from a network's weight on the host, unless it is small."""
        real = parameter.device.type == "cpu" and not self.on_card(parameter)
        if real and parameter.layout is torch.strided and parameter.nbytes > _SMALL_WEIGHT_BYTES:
            with torch.utils._python_dispatch._disable_current_modes():
                parameter.data = storageless(parameter.shape, parameter.stride(), parameter.dtype)

    def holds_card(self, values: Any) -> bool:
        """Whether a tensor among some arguments is on the card."""
        return any(self.on_card(part) for tensor in tensors_in(values) for part in dense_parts(tensor))


class _Calls(TorchFunctionMode):
    def __init__(self, recorder: ScriptRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        recorder, kwargs = self._recorder, kwargs or {}
        if getattr(func, "__name__", "") == "__get__":  # an attribute such as a shape
            return func(*args, **kwargs)
        with recorder._lock:
            before, place = recorder._given_card, kwargs.get("device")
            recorder._given_card = before or recorder.holds_card((args, tuple(kwargs.values())))
            recorder._given_card |= place is not None and is_card(place)
            try:
                return func(*args, **kwargs)
            finally:
                recorder._given_card = before


def _batch_sizes(lengths: Tensor) -> Tensor:
    """How many sequences reach each position, on the host as packing has it; `lengths` fall."""
    positions = torch.arange(int(lengths[0]), device=HOST)
    return (lengths[:, None] > positions).sum(0)


def _has_no_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and is_reserved(tensor.untyped_storage())
