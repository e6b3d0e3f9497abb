"""What `torch.cuda` answers about a card that is not here, so that code believes in it.

Only what reads the card or works on it is replaced; where tensors say they are is `card_places`. The card is alone:
device 0.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from vramfit.cards import CARDS, Card
from vramfit.prediction.overheads import context_bytes
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.card_places import CARD
from vramfit.prediction.tracing.swapping import swap_all
from vramfit.units import MIB

_SEGMENT_BYTES = 2 * MIB
_CUDNN_VERSION = 91_002
_OF_TENSORS = ("allocated_bytes", "active_bytes", "requested_bytes")  # names of `torch.cuda.memory_stats`


class Allocations(Protocol):
    """Who knows how much memory of the card is taken."""

    @property
    def allocated_bytes(self) -> int:
        """What is on the card now, before the allocator's rounding."""
        ...

    @property
    def trace(self) -> Trace:
        """What was recorded so far."""
        ...


def card_of(capability: tuple[int, int]) -> Card:
    """A card of a compute capability, the first of the table, for answers that rest on nothing else."""
    return next((card for card in CARDS if card.compute_capability == capability), CARDS[0])


@contextmanager
def believed_card(card: Card, allocations: Allocations) -> Iterator[None]:
    """Within it, `torch.cuda` answers as with a card of the given model."""
    with ExitStack() as stack:
        answers = _questions(card) | _statistics(card, allocations) | _actions()
        swap_all(stack, torch.cuda, answers)
        for owner in (torch.cuda.memory, torch.cuda.random):  # by whose names libraries call them, too
            swap_all(stack, owner, {name: answer for name, answer in answers.items() if hasattr(owner, name)})
        swap_all(stack, torch.cuda.memory, dict.fromkeys(("_record_memory_history", "_dump_snapshot"), _nothing))
        swap_all(stack, torch.cuda.nvtx, dict.fromkeys(("range_push", "range_pop", "mark"), _nothing))
        swap_all(stack, torch.accelerator, _accelerator())
        swap_all(stack, torch.backends.cuda, {"is_built": lambda: True})
        swap_all(stack, torch.backends.cudnn, {"version": lambda: _CUDNN_VERSION, "is_available": lambda: True})
        if torch.version.cuda is None:
            swap_all(stack, torch.version, {"cuda": "12.8"})
        # One buffer for all weights of a layer, which takes what they take.
        swap_all(stack, torch.nn.RNNBase, {"flatten_parameters": _nothing})
        yield


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
        max_threads_per_block=1024,
        max_threads_per_multi_processor=1536,
        clock_rate=1_500_000,  # kHz
        memory_clock_rate=8_000_000,
        memory_bus_width=256,
        pci_bus_id=0,
        pci_device_id=0,
        pci_domain_id=0,
        regs_per_multiprocessor=65536,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=101376,
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


def _statistics(card: Card, allocations: Allocations) -> dict[str, Any]:
    """What the allocator says; reserved bytes are whole segments of what is allocated, and no cache beside them."""

    def allocated(device: Any = None) -> int:
        return allocations.allocated_bytes

    def reserved(device: Any = None) -> int:
        return -(-allocated() // _SEGMENT_BYTES) * _SEGMENT_BYTES

    def most(device: Any = None) -> int:
        return max(allocations.trace.peak_bytes, allocated())

    def most_reserved(device: Any = None) -> int:
        return -(-most() // _SEGMENT_BYTES) * _SEGMENT_BYTES

    def free_and_total(device: Any = None) -> tuple[int, int]:
        return max(0, card.memory_bytes - context_bytes(card) - reserved()), card.memory_bytes

    def stats(device: Any = None) -> Counter[str]:
        told = Counter[str]()  # what is not counted is 0
        for when, used, kept in (("current", allocated(), reserved()), ("peak", most(), most_reserved())):
            told.update(dict.fromkeys((f"{name}.all.{when}" for name in _OF_TENSORS), used))
            told[f"reserved_bytes.all.{when}"] = kept
        return told

    def nested(device: Any = None) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name, size in stats().items():
            *path, last = name.split(".")
            place = tree
            for part in path:
                place = place.setdefault(part, {})
            place[last] = size
        return tree

    return {
        "memory_allocated": allocated,
        "max_memory_allocated": most,
        "memory_reserved": reserved,
        "max_memory_reserved": most_reserved,
        "memory_cached": reserved,
        "max_memory_cached": most_reserved,
        "mem_get_info": free_and_total,
        "memory_stats": stats,
        "memory_stats_as_nested_dict": nested,
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
        "default_generators": (torch.default_generator,),
        "CUDAGraph": _Graph,
        "graph": _entered,
        "graph_pool_handle": lambda: (0, 0),
        "make_graphed_callables": lambda callables, *_, **__: callables,
    }


def _entered(*_: Any, **__: Any) -> Any:
    return nullcontext()


class _Stream:
    """A stream on which everything has happened already."""

    device = CARD
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


class _Graph(_Stream):
    """A graph of work that ran as it was captured; known limitation: its memory is not kept apart from the rest."""

    def pool(self) -> tuple[int, int]:
        """Which memory it takes."""
        return 0, 0


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
