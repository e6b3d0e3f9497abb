"""What `PYTORCH_ALLOC_CONF` says to PyTorch's CUDA allocator, read as PyTorch 2.15 reads it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vramfit.allocator_environment import split_options
from vramfit.errors import UsageError
from vramfit.units import MIB

UNLIMITED = 1 << 63
DEFAULT_LARGE_SEGMENT = 20 * MIB
_MIN_LARGE_ALLOCATION = 10 * MIB
# One entry for each power of two from 1 MiB to 32 GiB; smaller sizes use the first, larger ones the last.
_INTERVALS = 16
# Options that move no byte on the device.
_WITHOUT_EFFECT = frozenset(
    (
        "release_lock_on_cudamalloc",
        "graph_capture_record_stream_reuse",
        "throw_on_cudamalloc_oom",
        "expandable_segments_reserve",
        "expandable_segments_reserve_by_class",
    )
)


@dataclass(frozen=True)
class Settings:
    """How the allocator is set; the defaults are PyTorch's. Sizes in bytes.

    Attributes:
        max_split_size_bytes: blocks of this size or more are neither split nor given to smaller requests.
        max_non_split_rounding_bytes: how much larger than the request such a block may be.
        large_segment_bytes: segment of a request of 1 to 10 MiB, and page of an expandable segment of the large pool.
        roundup_power2_divisions: 16 entries for requests of 1 MiB, 2 MiB, 4 MiB ...; 0 and 1 round to 512 bytes.
        garbage_collection_threshold: share of the limit above which old cached segments go back; 0 for never.
        expandable_segments: one growing segment per pool and stream in place of many.
        memory_fraction: share of the limit the process may reserve.

    """

    max_split_size_bytes: int = UNLIMITED
    max_non_split_rounding_bytes: int = DEFAULT_LARGE_SEGMENT
    large_segment_bytes: int = DEFAULT_LARGE_SEGMENT
    roundup_power2_divisions: tuple[int, ...] = (0,) * _INTERVALS
    garbage_collection_threshold: float = 0.0
    expandable_segments: bool = False
    memory_fraction: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Settings":
        """Settings from a string such as `expandable_segments:True,max_split_size_mb:128`; "" for the defaults.

        Raises:
            UsageError: an option that PyTorch does not know, a value out of its range, or another backend.

        """
        settings = cls()
        for name, value in split_options(text):
            settings = _apply(settings, name, value)
        for name in ("max_split_size", "max_non_split_rounding"):
            if getattr(settings, f"{name}_bytes") < settings.large_segment_bytes:
                least = settings.large_segment_bytes // MIB
                raise UsageError(f"allocator option {name}_mb is too small; it must be at least {least}.")
        return settings

    @classmethod
    def parse_known(cls, text: str) -> tuple["Settings", str]:
        """Settings from what can be replayed of a string, and the rest of it: another backend, or a newer option.

        Raises:
            UsageError: a value out of its option's range.

        """
        options = [f"{name}:{value}" for name, value in split_options(text)]
        unknown = [option for option in options if not _is_known(*option.split(":", 1))]
        return cls.parse(",".join(option for option in options if option not in unknown)), ",".join(unknown)

    def round_size(self, size_bytes: int) -> int:
        """Bytes of the block that a request needs: a multiple of 512, or a division between powers of two."""
        power = size_bytes.bit_length() - 1
        divisions = self.roundup_power2_divisions[min(max(power - 20, 0), _INTERVALS - 1)]
        step = 512
        if divisions > 1 and size_bytes > 512 * divisions:
            step = (1 << power) // divisions
        return max(512, -(-size_bytes // step) * step)


def _is_known(name: str, value: str) -> bool:
    harmless = name in _WITHOUT_EFFECT or name.startswith("pinned_")
    return harmless or name in _READERS or (name == "backend" and value == "native")


def _apply(settings: Settings, name: str, value: str) -> Settings:
    if not _is_known(name, value):
        raise UsageError(f"allocator option '{name}:{value}' cannot be replayed; known: {', '.join(_READERS)}.")
    if name not in _READERS:
        return settings
    field, read = _READERS[name]
    try:
        return replace(settings, **{field: read(value)})
    except (ValueError, KeyError):
        raise UsageError(f"allocator option {name} cannot be '{value}'; see PyTorch's CUDA notes.") from None


def _megabytes(text: str) -> int:
    return int(text) * MIB


def _large_segment(text: str) -> int:
    size = _megabytes(text)
    if size <= _MIN_LARGE_ALLOCATION:
        raise ValueError(text)
    return size


def _switch(text: str) -> bool:
    return {"True": True, "False": False}[text]


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise ValueError(text)
    return share


def _fraction(text: str) -> float:
    return 1.0 if float(text) == 1 else _share(text)


def _divisions(text: str) -> tuple[int, ...]:
    """One number for all sizes, or a list by size in MiB: `[64:8,256:4,>:1]`."""
    if not text.startswith("["):
        return (_power_of_two(text),) * _INTERVALS
    result = [0] * _INTERVALS
    last = None
    for item in text.strip("[]").split(","):
        size, divisions = item.split(":")
        if size == ">":
            start = 0 if last is None else last + 1
            result[start:] = [_power_of_two(divisions)] * (_INTERVALS - start)
            continue
        index = min(_power_of_two(size).bit_length() - 1, _INTERVALS - 1)
        if last is None:
            result[:index] = [_power_of_two(divisions)] * index
        result[index] = _power_of_two(divisions)
        last = index
    return tuple(result)


def _power_of_two(text: str) -> int:
    number = int(text)
    if number < 0 or number & (number - 1):
        raise ValueError(text)
    return number


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "max_split_size_mb": ("max_split_size_bytes", _megabytes),
    "max_non_split_rounding_mb": ("max_non_split_rounding_bytes", _megabytes),
    "large_segment_size_mb": ("large_segment_bytes", _large_segment),
    "roundup_power2_divisions": ("roundup_power2_divisions", _divisions),
    "garbage_collection_threshold": ("garbage_collection_threshold", _share),
    "expandable_segments": ("expandable_segments", _switch),
    "per_process_memory_fraction": ("memory_fraction", _fraction),
}
