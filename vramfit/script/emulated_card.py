"""What `torch.cuda` answers about a card that is not here, so that an unchanged script believes in it.

Only what reads the card or works on it is replaced; tensors are the recorder's affair. The card is alone: device 0.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor

from vramfit.cards import Card
from vramfit.prediction.overheads import context_bytes
from vramfit.prediction.tracing.compiled import UNCOMPILED
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.host_access import swap
from vramfit.script.default_device import DefaultDevice
from vramfit.script.recorder import ScriptRecorder, in_words
from vramfit.units import MIB

_CARD = torch.device("cuda", 0)
_SEGMENT_BYTES = 2 * MIB
_CUDNN_VERSION = 91_002


@contextmanager
def emulated_card(card: Card, recorder: ScriptRecorder) -> Iterator[None]:
    """Within it, `cuda` is a card of the given model whose memory the recorder watches."""
    with ExitStack() as stack:
        stack.enter_context(cuda_everywhere(card.compute_capability, recorder))
        _swap_all(stack, torch.cuda, _questions(card) | _statistics(card, recorder) | _actions())
        _swap_all(stack, torch.cuda.memory, dict.fromkeys(("_record_memory_history", "_dump_snapshot"), _nothing))
        _swap_all(stack, torch.cuda.nvtx, dict.fromkeys(("range_push", "range_pop", "mark"), _nothing))
        _swap_all(stack, torch.accelerator, _accelerator())
        _swap_all(stack, torch.backends.cuda, {"is_built": lambda: True})
        _swap_all(stack, torch.backends.cudnn, {"version": lambda: _CUDNN_VERSION, "is_available": lambda: True})
        if torch.version.cuda is None:
            _swap_all(stack, torch.version, {"cuda": "12.8"})
        _swap_all(stack, torch, DefaultDevice().answers())
        _swap_all(stack, torch, _autocast_states() | {"Generator": _Generator, "compile": partial(_compile, recorder)})
        _swap_all(stack, torch.amp.GradScaler, {"_maybe_opt_step": _always_step, "get_scale": _first_scale})
        # One buffer for all weights of a layer, which takes what they take.
        _swap_all(stack, torch.nn.RNNBase, {"flatten_parameters": _nothing})
        _swap_places(stack, recorder)
        yield


def _swap_all(stack: ExitStack, owner: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        swap(stack, owner, name, value)


def _nothing(*_: Any, **__: Any) -> None:
    """Nothing that memory depends on."""


def _questions(card: Card) -> dict[str, Any]:
    """What the card is."""
    major, minor = card.compute_capability
    properties = SimpleNamespace(
        name=f"NVIDIA GeForce {card.name}" if card.name.startswith(("RTX", "GTX")) else f"NVIDIA {card.name}",
        major=major,
        minor=minor,
        total_memory=card.memory_bytes,
        multi_processor_count=card.sms,
        is_integrated=0,
        is_multi_gpu_board=0,
        max_threads_per_multi_processor=1536,
        regs_per_multiprocessor=65536,
        shared_memory_per_block=49152,
        shared_memory_per_multiprocessor=102400,
        warp_size=32,
        L2_cache_size=4 * MIB,
        gcnArchName="",
        uuid="00000000-0000-0000-0000-000000000000",
    )
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: int(os.environ.get("LOCAL_WORLD_SIZE", "1")),  # the other ranks have theirs
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: properties.name,
        "get_device_properties": lambda device=None: properties,
        "get_device_capability": lambda device=None: (major, minor),
        "get_arch_list": lambda: [f"sm_{major}{minor}"],
        "is_bf16_supported": lambda including_emulation=True: including_emulation or major >= 8,
        "can_device_access_peer": lambda device, peer: False,
        "is_current_stream_capturing": lambda: False,
        "get_allocator_backend": lambda: "native",
        "get_per_process_memory_fraction": lambda device=None: 1.0,
        "get_sync_debug_mode": lambda: 0,
        "list_gpu_processes": lambda device=None: "",
        "clock_rate": lambda device=None: 1500,
        "utilization": lambda device=None: 0,
        "temperature": lambda device=None: 40,
        "power_draw": lambda device=None: 100_000,
    }


def _statistics(card: Card, recorder: ScriptRecorder) -> dict[str, Any]:
    """What the allocator says; reserved bytes are whole segments of what is allocated, and no cache beside them."""

    def allocated(device: Any = None) -> int:
        return recorder.allocated_bytes

    def reserved(device: Any = None) -> int:
        return -(-allocated() // _SEGMENT_BYTES) * _SEGMENT_BYTES

    def most(device: Any = None) -> int:
        return max(recorder.trace.peak_bytes, allocated())

    def most_reserved(device: Any = None) -> int:
        return -(-most() // _SEGMENT_BYTES) * _SEGMENT_BYTES

    def free_and_total(device: Any = None) -> tuple[int, int]:
        return max(0, card.memory_bytes - context_bytes(card) - reserved()), card.memory_bytes

    def stats(device: Any = None) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": allocated(),
            "allocated_bytes.all.peak": most(),
            "reserved_bytes.all.current": reserved(),
            "reserved_bytes.all.peak": most_reserved(),
            "num_alloc_retries": 0,
            "num_ooms": 0,
        }

    return {
        "memory_allocated": allocated,
        "max_memory_allocated": most,
        "memory_reserved": reserved,
        "max_memory_reserved": most_reserved,
        "memory_cached": reserved,
        "max_memory_cached": most_reserved,
        "mem_get_info": free_and_total,
        "memory_stats": stats,
        "memory_usage": lambda device=None: 0,
        "memory_summary": lambda *_, **__: f"allocated {allocated()} bytes",
        "memory_snapshot": lambda *_, **__: [],
    }


def _actions() -> dict[str, Any]:
    """What a script does to a card that changes no memory of its own."""
    idle = ("synchronize", "empty_cache", "set_device", "ipc_collect", "init", "_lazy_init", "_lazy_call")
    statistics = ("reset_peak_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached")
    more = ("reset_accumulated_memory_stats", "set_per_process_memory_fraction", "set_stream", "set_sync_debug_mode")
    seeds = ("manual_seed", "manual_seed_all", "seed", "seed_all", "set_rng_state", "set_rng_state_all")
    return {
        **dict.fromkeys((*idle, *statistics, *more, *seeds), _nothing),
        "initial_seed": torch.initial_seed,
        "get_rng_state": lambda device=None: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "Stream": _Stream,
        "ExternalStream": _Stream,
        "Event": _Event,
        "stream": _entered,
        "current_stream": lambda device=None: _Stream(),
        "default_stream": lambda device=None: _Stream(),
        "device": _entered,
        "device_of": _entered,
        "_DeviceGuard": _entered,
        "current_blas_handle": lambda: 0,
    }


def _entered(*_: Any, **__: Any) -> Any:
    return nullcontext()


class _Stream:
    """A stream on which everything has happened already."""

    device = _CARD
    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Event if name == "record_event" else _nothing

    def query(self) -> bool:
        """Whether all is done."""
        return True

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None: ...


class _Event(_Stream):
    """An event that has come already."""

    def elapsed_time(self, end: object) -> float:
        """Milliseconds to another event: 1, for time is predicted from the trace."""
        return 1.0


def _accelerator() -> dict[str, Any]:
    return {
        "is_available": lambda: True,
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "device_count": lambda: 1,
        "current_device_index": lambda: 0,
        "current_device_idx": lambda: 0,
        "set_device_index": _nothing,
        "set_device_idx": _nothing,
        "current_stream": lambda device=None: _Stream(),
        "set_stream": _nothing,
        "synchronize": _nothing,
        "device_index": _entered,
        "empty_cache": _nothing,
    }


class _Generator(torch._C.Generator):
    """A generator that says it is on the card and draws on the host."""

    _place: torch.device

    def __new__(cls, device: Any = "cpu") -> Self:
        made = super().__new__(cls, "cpu")  # type: ignore[call-arg]  # torch's stub has no constructor
        made._place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # torch's stub has it writable
        """Where it was asked for."""
        return self._place


def _compile(recorder: ScriptRecorder, model: Any = None, **_: Any) -> Any:
    """Nothing is compiled: what a compiled step saves is not known."""
    recorder.note(UNCOMPILED)
    return model if model is not None else lambda function: function


def _always_step(self: Any, optimizer: Any, optimizer_state: Any, *args: Any, **kwargs: Any) -> Any:
    """Gradients are taken to be finite, so that no step is skipped."""
    return optimizer.step(*args, **kwargs)


def _first_scale(self: Any) -> float:
    return float(self._init_scale) if self._enabled else 1.0


def _autocast_states() -> dict[str, Any]:
    """CUDA's autocast is the CPU's, whose kernels follow CUDA's rules here."""
    enabled, set_enabled = torch.is_autocast_enabled, torch.set_autocast_enabled
    dtype, set_dtype = torch.get_autocast_dtype, torch.set_autocast_dtype
    chosen = {"cuda": torch.float16}

    def set_dtype_of(device: str, value: torch.dtype) -> None:
        chosen[device] = value
        set_dtype("cpu", value)

    def dtype_of(device: str) -> torch.dtype:
        if device == "cuda":
            return dtype("cpu") if enabled("cpu") else chosen["cuda"]
        return dtype(device)

    def set_enabled_of(*args: Any) -> None:
        set_enabled("cpu", args[-1])

    return {
        "is_autocast_enabled": lambda device="cuda": enabled("cpu" if device == "cuda" else device),
        "set_autocast_enabled": set_enabled_of,
        "get_autocast_dtype": dtype_of,
        "set_autocast_dtype": set_dtype_of,
        "get_autocast_gpu_dtype": lambda: dtype_of("cuda"),
        "set_autocast_gpu_dtype": lambda value: set_dtype_of("cuda", value),
    }


def _swap_places(stack: ExitStack, recorder: ScriptRecorder) -> None:
    """Tensors on the card say so, and have an address of their own."""
    device, is_cuda, is_cpu = (vars(torch._C.TensorBase)[name] for name in ("device", "is_cuda", "is_cpu"))
    swap(stack, Tensor, "device", property(lambda self: _CARD if recorder.on_card(self) else device.__get__(self)))
    swap(stack, Tensor, "is_cuda", property(lambda self: recorder.on_card(self) or is_cuda.__get__(self)))
    swap(stack, Tensor, "is_cpu", property(lambda self: not recorder.on_card(self) and is_cpu.__get__(self)))
    get_device = Tensor.get_device
    swap(stack, Tensor, "get_device", lambda self: 0 if recorder.on_card(self) else get_device(self))
    swap(stack, Tensor, "is_pinned", lambda self, *_: True)
    swap(stack, Tensor, "record_stream", _nothing)
    swap(stack, Tensor, "data_ptr", lambda self: self.untyped_storage()._cdata + self.storage_offset())
    swap(stack, torch.UntypedStorage, "data_ptr", lambda self: self._cdata)
    swap(stack, torch.UntypedStorage, "device", property(lambda self: _place_of(recorder, self)))
    to, cuda = Tensor.to, Tensor.cuda

    def moved(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return to(self, *map(in_words, args), **{name: in_words(value) for name, value in kwargs.items()})

    swap(stack, Tensor, "to", moved)
    swap(stack, Tensor, "cuda", lambda self, *_, **__: cuda(self))
    for name in ("tensor", "as_tensor", "asarray"):
        swap(stack, torch, name, _with_place(getattr(torch, name)))


def _place_of(recorder: ScriptRecorder, storage: torch.UntypedStorage) -> torch.device:
    return _CARD if storage._cdata in recorder._live else torch.device("cpu")


def _with_place(original: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs:
            kwargs["device"] = in_words(kwargs["device"])
        return original(*args, **kwargs)

    return made
