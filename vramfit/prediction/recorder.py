"""Watches every operation on storage-less tensors and writes down what it allocates, frees, reads and computes."""

import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vramfit.prediction.record import Call, Convolution, Kind, OperationRecord, StorageRecord, Trace, TracePhase

_ATEN = torch.ops.aten
_QUIET = {torch.ops.prim.device.default, _ATEN.detach.default}
_VIEWS = {
    _ATEN.view.default,
    _ATEN.t.default,
    _ATEN.transpose.int,
    _ATEN.expand.default,
    _ATEN.permute.default,
    _ATEN._unsafe_view.default,
    _ATEN.slice.Tensor,
    _ATEN.select.int,
    _ATEN.unsqueeze.default,
    _ATEN.squeeze.dim,
    _ATEN.alias.default,
    _ATEN.split.Tensor,
    _ATEN.as_strided.default,
    _ATEN.unbind.int,
}
_CONVOLUTIONS = {_ATEN.convolution.default, _ATEN.convolution_backward.default}


class Recorder(TorchDispatchMode):
    """A dispatch mode that fills a `Trace`; `phase` says which part of the step runs."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.phase: TracePhase = "setup"
        self._live: dict[int, int] = {}  # address of a storage -> its number in the trace
        self._host: set[int] = set()  # addresses of storages that are not on the card
        self._references: dict[int, weakref.ref[Any]] = {}
        self._modules: list[str] = []
        self._starts: list[tuple[int, tuple[int, ...]]] = []  # of each module: events before it, storages it was given
        self._nodes: list[int] = []  # sequence number of the first autograd node of each entry of _node_modules
        self._node_modules: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and record it."""
        if func in _QUIET:
            return func(*args, **(kwargs or {}))
        if func is _ATEN._local_scalar_dense.default and self._address(args[0]) in self._host:
            return 1.0  # a counter that the optimizer keeps on the host
        out = func(*args, **(kwargs or {}))
        if func is _ATEN.lift_fresh.default:
            self.mark_host(out)
        else:
            self._record(func, args, kwargs or {}, out)
        return out

    def mark_host(self, tensor: Tensor) -> None:
        """Say that a tensor lies in host memory: nothing is counted for it."""
        storage = tensor.untyped_storage()
        self._host.add(storage._cdata)
        self._watch(storage, partial(self._host.discard, storage._cdata))

    def mark_device(self, tensor: Tensor, kind: Kind, module: str) -> None:
        """Say that a tensor that was made before the recording is on the card."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._live:
            self._allocate(storage, "to", kind, module)

    def mark_kind(self, tensor: Tensor, kind: Kind) -> None:
        """Say what a recorded tensor is for."""
        number = self._live.get(self._address(tensor))
        if number is not None:
            self.trace.storages[number].kind = kind

    def mark(self, name: str) -> None:
        """Begin a part of the trace."""
        self.trace.marks[name] = len(self.trace.events)

    def watch_modules(self, model: nn.Module) -> None:
        """Note which module runs, in the forward pass and in the backward pass that belongs to it."""
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(self._leave, always_call=True)

    def live(self) -> Iterable[int]:
        """Numbers of the storages alive now."""
        return self._live.values()

    def _enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        self._modules.append(name)
        self._starts.append((len(self.trace.events), self._numbers(inputs)))
        self._note_node(name)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        name, (start, given) = self._modules.pop(), self._starts.pop()
        if self.phase == "forward":
            self.trace.calls.append(Call(name, start, len(self.trace.events), given, self._numbers(output)))
        self._note_node(self._modules[-1] if self._modules else "")

    def _numbers(self, value: Any) -> tuple[int, ...]:
        addresses = dict.fromkeys(self._address(tensor) for tensor in _tensors(value))
        return tuple(self._live[address] for address in addresses if address in self._live)

    def _note_node(self, name: str) -> None:
        self._nodes.append(torch._C._autograd._get_sequence_nr())
        self._node_modules.append(name)

    def _module(self) -> str:
        if self._modules:
            return self._modules[-1]
        node = torch._C._current_autograd_node() if self.phase == "backward" else None
        if node is None or not self._nodes:
            return ""
        return self._node_modules[max(0, bisect_right(self._nodes, node._sequence_nr()) - 1)]

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        outputs = list(_tensors(out))
        name = func.name().removeprefix("aten::")
        module = self._module()
        for tensor in outputs:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._live and storage._cdata not in self._host:
                self._allocate(storage, name, self._kind(func, args), module)
        if func not in _VIEWS:
            self._record_operation(func, name, module, args, kwargs, out, outputs)

    def _record_operation(
        self, func: Any, name: str, module: str, args: Any, kwargs: Any, out: Any, outputs: list[Tensor]
    ) -> None:
        inputs = [tensor for tensor in _tensors((args, tuple(kwargs.values()))) if not self._on_host(tensor)]
        written = outputs or inputs[:1]
        flops = flop_registry.get(func.overloadpacket)
        self.trace.operations.append(
            OperationRecord(
                name=name,
                module=module,
                phase=self.phase,
                dtype=str(written[0].dtype).removeprefix("torch.") if written else "",
                flops=int(flops(*args, **kwargs, out_val=out)) if flops else 0,
                read_bytes=sum(map(_size, inputs)),
                written_bytes=sum(map(_size, written)),
                position=len(self.trace.events),
                tensors=max(1, len(outputs)) if not name.startswith("_foreach") else _list_length(args),
                convolution=_convolution(func, args, out) if func in _CONVOLUTIONS else None,
            )
        )

    def _on_host(self, tensor: Tensor) -> bool:
        return self._address(tensor) in self._host

    def _kind(self, func: Any, args: tuple[Any, ...]) -> Kind:
        if self.phase in ("input", "loss"):
            return "input" if self.phase == "input" else "loss"
        if func is _ATEN._to_copy.default and self.phase == "forward":
            source = self._live.get(self._address(args[0]))
            if source is not None and self.trace.storages[source].kind == "parameter":
                return "cast weight"
        return "activation" if self.phase == "forward" else "temporary"

    def _allocate(self, storage: torch.UntypedStorage, op: str, kind: Kind, module: str) -> None:
        size = storage.nbytes()
        if size == 0:
            return
        number = len(self.trace.storages)
        self.trace.storages.append(StorageRecord(size, op, module, self.phase, kind))
        self.trace.events.append(number)
        self._live[storage._cdata] = number
        self._watch(storage, partial(self._free, storage._cdata, number))

    def _free(self, address: int, number: int) -> None:
        self._live.pop(address, None)
        record = self.trace.storages[number]
        if record.kind in ("activation", "loss") and self.phase == record.phase:
            record.kind = "temporary"
        self.trace.events.append(~number)

    def _watch(self, storage: torch.UntypedStorage, freed: Any) -> None:
        address = storage._cdata

        def forget(_: Any) -> None:
            self._references.pop(address, None)
            freed()

        self._references[address] = weakref.ref(storage, forget)

    @staticmethod
    def _address(tensor: Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _size(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _list_length(args: tuple[Any, ...]) -> int:
    return len(args[0]) if args and isinstance(args[0], (list, tuple)) else 1


def _convolution(func: Any, args: tuple[Any, ...], out: Any) -> Convolution:
    if func is _ATEN.convolution.default:
        x, weight, result, rest = args[0], args[1], out, args[3:]
    else:
        x, weight, result, rest = args[1], args[2], args[0], args[4:]
    stride, _, dilation, transposed, _, groups = rest[:6]
    return Convolution(
        input_shape=tuple(x.shape),
        weight_shape=tuple(weight.shape),
        output_shape=tuple(result.shape),
        groups=int(groups),
        transposed=bool(transposed),
        channels_last=x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous(),
        stride=tuple(stride),
        dilation=tuple(dilation),
    )
