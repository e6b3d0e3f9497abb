"""What PyTorch says of the card when it runs out, read from its message. Sizes in bytes.

The wordings are those of PyTorch 1.x to 2.15.
"""

import re
from dataclasses import dataclass

from vramfit.units import GIB, KIB, MIB

_UNITS = {"bytes": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}
_SIZE = r"([\d.]+) (bytes|KiB|MiB|GiB)"
# Each figure with the words around it; the first that fits counts.
_WORDS = {
    "request_bytes": (rf"Tried to allocate {_SIZE}",),
    "total_bytes": (rf"total capaci?ty of {_SIZE}", rf"{_SIZE} total capacity"),
    "free_bytes": (rf"of which {_SIZE} is free", rf"{_SIZE} free"),
    "process_bytes": (rf"this process has {_SIZE} memory in use",),
    "allocated_bytes": (rf"{_SIZE} is allocated by PyTorch", rf"{_SIZE} already allocated"),
    "unallocated_bytes": (rf"{_SIZE} is reserved by PyTorch but unallocated",),
    "reserved_bytes": (rf"{_SIZE} reserved in total",),
}


@dataclass(frozen=True)
class OomMessage:
    """The figures of a message; None for one that it does not have.

    `process_bytes` is what the card shows for this process, `unallocated_bytes` what is reserved and not in use.
    """

    request_bytes: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    process_bytes: int | None = None
    allocated_bytes: int | None = None
    unallocated_bytes: int | None = None
    reserved_bytes: int | None = None

    @classmethod
    def of(cls, text: str) -> "OomMessage":
        """The figures in a message of `torch.OutOfMemoryError`."""
        return cls(**{name: _first(patterns, text) for name, patterns in _WORDS.items()})

    @property
    def others_bytes(self) -> int | None:
        """What other processes and the driver hold, where total, free and this process are known."""
        if self.total_bytes is None or self.free_bytes is None or self.process_bytes is None:
            return None
        return max(0, self.total_bytes - self.free_bytes - self.process_bytes)

    @property
    def held_free_bytes(self) -> int | None:
        """What is reserved and not in use, however it is told."""
        if self.unallocated_bytes is not None:
            return self.unallocated_bytes
        if self.reserved_bytes is None or self.allocated_bytes is None:
            return None
        return max(0, self.reserved_bytes - self.allocated_bytes)


def _first(patterns: tuple[str, ...], text: str) -> int | None:
    for pattern in patterns:
        found = re.search(pattern, text)
        if found is not None:
            return round(float(found[1]) * _UNITS[found[2]])
    return None
