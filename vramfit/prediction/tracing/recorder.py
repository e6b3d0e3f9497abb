"""Watches every operation on storage-less tensors and writes down what it allocates, frees, reads and computes."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type

from vramfit.choices import ASSUMED, ValuePolicy
from vramfit.prediction.trace_records import (
    FROM_HOST,
    TO_HOST,
    Kind,
    OperationRecord,
    StorageRecord,
    Trace,
    TracePhase,
)
from vramfit.prediction.tracing.assumptions import Assumptions
from vramfit.prediction.tracing.card_places import CARD
from vramfit.prediction.tracing.cuda_kernels import AMPERE
from vramfit.prediction.tracing.fake_tensors import HOST, Operations, storageless
from vramfit.prediction.tracing.gradient_formulas import as_on_a_card
from vramfit.prediction.tracing.meta_kernels import unknown_of
from vramfit.prediction.tracing.op_costs import convolution_of, flops_of, reduction_of
from vramfit.prediction.tracing.op_schema import Nature, nature_of
from vramfit.prediction.tracing.rounds import Rounds
from vramfit.prediction.tracing.running_module import RunningModule
from vramfit.prediction.tracing.sparse_tensors import concerns_sparse, dense_parts, run_sparse, sparse_of
from vramfit.prediction.tracing.step_lines import place
from vramfit.prediction.tracing.tensor_trees import patterns, tensors_given, tensors_in
from vramfit.prediction.tracing.undecided import Undecided
from vramfit.prediction.tracing.values import Values, limit_of
from vramfit.prediction.tracing.workspaces import workspaces_of

_ATEN = torch.ops.aten
_COMPRESSED = {torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
_PLAIN = (Tensor, nn.Parameter)
_ALL_LAYERS = "no layer is dropped at random"
_TO_TORCH = torch.device("cpu")  # where a traced tensor is to torch's C++


class Recorder(TorchDispatchMode):
    """A dispatch mode that runs operations without their kernels and fills a `Trace`.

    `phase` says which part of the step runs, `stream` of which stream memory is taken. A tensor is on the card if the
    recorder made it, else on the host. `running` tells which module runs, once it watches the network.
    `capability` is the card's compute capability, `undecided` how what is not known is answered.
    """

    supports_higher_order_operators = True  # is handed them, to refuse them in words

    def __init__(
        self,
        trace: Trace,
        capability: tuple[int, int] = AMPERE,
        policy: ValuePolicy = ASSUMED,
        undecided: Undecided | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.trace = trace
        self.phase: TracePhase = "setup"
        self.stream = 0
        self._capability = capability
        self._values = Values(self.on_card, limit_of(policy))
        self.undecided = undecided or Undecided()
        self._rounds = Rounds(lambda: self.allocated_bytes)
        self._assumptions = Assumptions(
            self._values, trace.assumptions, policy, undecided=self.undecided, rounds=self._rounds
        )
        self._operations = Operations(self.on_card, self._made, self._values, self._assumptions)
        self.policy = policy
        self._making: tuple[str, Kind, str] = ("", "temporary", "")
        self._live: dict[int, int] = {}  # address of a storage -> its number in the trace
        self._references: dict[int, weakref.ref[Any]] = {}
        self._emptied: set[int] = set()  # addresses of storages that are there and hold nothing
        self.running = RunningModule(trace, self._numbers, lambda: self.phase, self._rounds.forget)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation and record it."""
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            raise NotImplementedError(
                f"torch's {func.name()} cannot be predicted; write it with Python's own if or loop"
            )
        if any(map(is_traceable_wrapper_subclass_type, types)):
            return NotImplemented  # a DTensor: its parts come here by themselves
        if func.namespace == "profiler" or nature_of(func) is Nature.VIEW:
            return func(*args, **kwargs)
        given = tensors_given(args, kwargs)
        place = kwargs.get("device")
        if place == CARD:  # torch itself knows the card as a CPU
            kwargs = {**kwargs, "device": _TO_TORCH}
            if given and not any(map(self.on_card, given)):
                return self._made_of_host(func, args, kwargs)
        elif place is not None and (place.type == "meta" or (place == HOST and any(map(self.on_card, given)))):
            return func(*patterns(args), **{**kwargs, "device": torch.device(place.type)})
        if concerns_sparse(func, given):
            return run_sparse(self._dispatch, func, args, kwargs)
        return self._dispatch(func, args, kwargs, given)

    def _dispatch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor] | None = None
    ) -> Any:
        func, given = as_on_a_card(func, args), tensors_given(args, kwargs) if given is None else given
        name, module = func.name().removeprefix("aten::"), self.running.name
        self._making = (name, self._kind(func, args), module)
        out = self._operations.run(func, args, kwargs, given)
        self._making = (name, "temporary", module)
        on_card = any(map(self.on_card, given))
        sizes = workspaces_of(func, args, self._capability) if on_card else ()
        workspaces = [storageless((size,), (1,), torch.uint8) for size in sizes if size]  # held while the kernel runs
        for workspace in workspaces:
            self._made(workspace)
        if on_card and (unknown := unknown_of(func)):
            self._assumptions.note(unknown)
        self._record_operation(func, args, kwargs, given, out)
        return out

    def _made_of_host(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """A tensor on the card after the pattern of one on the host."""
        if func is _ATEN._to_copy.default:
            return self.move(func(*args, **kwargs), self._kind(func, args), self.running.name)
        shape = func(*args, **{**kwargs, "device": torch.device("meta"), "pin_memory": None})
        return self.move(shape, self._kind(func, args), self.running.name)

    def move(self, tensor: Tensor, kind: Kind, module: str = "") -> Tensor:
        """The card's copy of a tensor from the host, or of the parts of a sparse one."""
        if tensor.layout is torch.sparse_coo:
            with torch.utils._python_dispatch._disable_current_modes():
                indices, values = (self.move(part, kind, module) for part in dense_parts(tensor))
                return sparse_of(indices, values, tensor.shape, coalesced=tensor.is_coalesced())
        self._making = ("to", kind, module)
        with torch.utils._python_dispatch._disable_current_modes():
            stride = tensor.stride() if _dense(tensor) else torch.empty(tensor.shape, device="meta").stride()
            copy = storageless(tensor.shape, stride, tensor.dtype)
            self._made(copy)
            if not tensor.is_meta and (kind != "parameter" or self.policy.real):
                self._values.adopt(copy, tensor)
        return copy

    def bring(self, tensor: Tensor) -> Tensor:
        """The card's copy of a host tensor that the step itself moves."""
        moved = self.move(tensor, self._kind(None, ()), self.running.name)
        if tensor.is_meta:
            self._record_transfer(FROM_HOST, moved)
        return moved.requires_grad_(tensor.requires_grad)

    def park(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor that waits on the host: a meta tensor, which `bring` brings back."""
        self._record_transfer(TO_HOST, tensor)
        with torch.utils._python_dispatch._disable_current_modes():
            return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")

    def read(self, tensor: Tensor, what: str) -> Tensor:
        """The values of a tensor on the card, known or assumed, as a host tensor that must not be written into."""
        with torch.utils._python_dispatch._disable_current_modes():
            return self._assumptions.read(tensor, what)

    def empty(self, tensor: Tensor) -> None:
        """Free the memory of a tensor that stays, as a storage that is resized to nothing does."""
        address = self._address(tensor)
        if address in self._live and address not in self._emptied:
            self.trace.events.append(~self._live[address])
            self._emptied.add(address)

    def refill(self, tensor: Tensor, op: str) -> None:
        """Give a tensor that was emptied its memory again."""
        address = self._address(tensor)
        if address in self._emptied:
            self._emptied.remove(address)
            self._making = (op, "temporary", self.running.name)
            self._made(tensor)

    @property
    def in_step(self) -> bool:
        """Whether what runs is the step: of a job, all that is traced."""
        return True

    def has_assumed_length(self, tensor: Tensor) -> bool:
        """Whether it is assumed how many elements a tensor on the card has."""
        return self._values.counts.has_assumed_length(tensor)

    def draw(self, tensor: Tensor, low: float, high: float) -> None:
        """Let a tensor of one number drawn at random hold an end of its range."""
        end = self.undecided.drawn(place(), low, high)
        if self.on_card(tensor):
            self._values.fill(tensor, end, "")
        else:
            tensor.fill_(end)
            if tensor.is_floating_point() and end == high:
                self._assumptions.note(_ALL_LAYERS)

    def note(self, assumed: str) -> None:
        """Remember that the caller's line relies on an assumption."""
        self._assumptions.note(assumed)

    def mark_kind(self, tensor: Tensor, kind: Kind, module: str = "") -> None:
        """Say what a recorded tensor is for, and of which module it is where that is known."""
        for part in dense_parts(tensor):
            number = self._live.get(self._address(part))
            if number is not None:
                self.trace.storages[number].kind = kind
                self.trace.storages[number].module = module or self.trace.storages[number].module

    def begin_loss(self) -> None:
        """The loss is computed from here on: what its backward pass makes is told apart from the network's."""
        self.phase = "loss"
        self.running.begin_loss()

    def mark(self, name: str) -> None:
        """Begin a part of the trace."""
        self.trace.marks[name] = len(self.trace.events)
        self._rounds.forget()

    def stop(self) -> None:
        """Note no more: what is freed from now on, some of it whenever Python collects garbage, is no step's doing."""
        self._references.clear()
        del self.trace.events[self.trace.marks["end"] :]

    def _numbers(self, value: Any) -> tuple[int, ...]:
        parts = (part for tensor in tensors_in(value) for part in dense_parts(tensor))
        addresses = dict.fromkeys(map(self._address, parts))
        return tuple(self._live[address] for address in addresses if address in self._live)

    def _record_operation(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor], out: Any
    ) -> None:
        inputs = [tensor for tensor in given if self.on_card(tensor)]
        outputs = [part for tensor in tensors_in(out) for part in dense_parts(tensor)]
        written = outputs or inputs[:1]
        if not any(map(self.on_card, written)):
            return
        name, _, module = self._making
        self.trace.operations.append(
            OperationRecord(
                name=name,
                module=module,
                phase=self.phase,
                dtype=str(written[0].dtype).removeprefix("torch."),
                flops=flops_of(func, args, kwargs, out),
                read_bytes=sum(map(_size, inputs)),
                written_bytes=sum(map(_size, written)),
                position=len(self.trace.events),
                tensors=len(args[0]) if name.startswith("_foreach") else 1,
                convolution=convolution_of(func, args, out),
                reduction=reduction_of(func, args),
            )
        )

    def _record_transfer(self, name: str, tensor: Tensor) -> None:
        """A copy over the bus, which the card waits for."""
        size, dtype = _size(tensor), str(tensor.dtype).removeprefix("torch.")
        position = len(self.trace.events)
        self.trace.operations.append(
            OperationRecord(name, self.running.name, self.phase, dtype, 0, size, size, position)
        )

    def on_card(self, tensor: Tensor) -> bool:
        """Whether a tensor is on the card: it is if the recorder made its storage, or those of its parts."""
        if tensor.layout is torch.sparse_coo or _has_parts(tensor):
            return any(map(self.on_card, dense_parts(tensor)))
        return self._address(tensor) in self._live

    def holds(self, storage: torch.UntypedStorage) -> bool:
        """Whether a storage is on the card."""
        return storage._cdata in self._live

    @property
    def allocated_bytes(self) -> int:
        """What is on the card now, before the allocator's rounding."""
        return sum(self.trace.storages[number].size_bytes for number in list(self._live.values()))

    def _kind(self, func: Any, args: tuple[Any, ...]) -> Kind:
        if self.phase in ("input", "loss"):
            return "input" if self.phase == "input" else "loss"
        if self.phase != "forward":
            return "temporary"
        if func is _ATEN._to_copy.default:
            source = self._live.get(self._address(args[0]))
            if source is not None and self.trace.storages[source].kind == "parameter":
                return "cast weight"
        return "activation"

    def _made(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        size, address = storage.nbytes(), storage._cdata
        number = len(self.trace.storages)
        op, kind, module = self._making
        self.trace.storages.append(StorageRecord(size, op, module, self.phase, kind, self.stream))
        self.trace.events.append(number)
        self._live[address] = number

        def freed(_: Any) -> None:
            self._references.pop(address, None)
            self._free(address, number)

        self._references[address] = weakref.ref(storage, freed)

    def _free(self, address: int, number: int) -> None:
        self._live.pop(address, None)
        self._values.drop(address)
        if address in self._emptied:
            self._emptied.remove(address)
            return
        record = self.trace.storages[number]
        if record.kind in ("activation", "loss") and self.phase == record.phase:
            record.kind = "temporary"
        self.trace.events.append(~number)

    @classmethod
    def _address(cls, tensor: Tensor) -> int:
        try:
            # `untyped_storage()._cdata`, which function modes do not see.
            return int(torch._C._storage_address(tensor))  # type: ignore[attr-defined]  # torch's stub lacks it
        except NotImplementedError:
            if tensor.layout is torch.sparse_coo:
                return cls._address(tensor._values())
            if tensor.layout in _COMPRESSED:
                raise NotImplementedError(
                    "a compressed sparse tensor (CSR, CSC, BSR or BSC) cannot be predicted; give it as COO "
                    "(torch.sparse_coo_tensor)"
                ) from None
            # Within torch.func's transforms, tensors are wrapped in ones without a storage.
            return cls._address(torch._C._functorch.get_unwrapped(tensor))


def _has_parts(tensor: Tensor) -> bool:
    kind = type(tensor)
    return kind not in _PLAIN and is_traceable_wrapper_subclass_type(kind)


def _size(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _dense(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
