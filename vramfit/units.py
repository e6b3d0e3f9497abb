"""Sizes and durations: parsing what a person writes, and writing what a person reads."""

import math
import re

from vramfit.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}
# A unit is asked for: who writes 8 means 8 GB, and would get 8 bytes.
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:I?B)?|B)\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in a size such as `8GB`, `600 MiB` or `7.5G`.

    Units are binary whether or not the `i` is written: a card sold as 8GB has 8 x 2^30 bytes.

    Raises:
        UsageError: the text is not a size, or is zero.

    """
    match = _SIZE.fullmatch(text)
    size = round(float(match[1]) * _FACTORS[(match[2] or "").upper()]) if match else 0
    if size <= 0:
        raise UsageError(f"'{text}' is not a memory size; write a number and a unit, such as 8GB or 600MB.")
    return size


def size_in_bytes(size: str | int | None) -> int | None:
    """Bytes of a size given as text or bytes; None stays None.

    Raises:
        UsageError: not a size, or fewer bytes than 1 MiB: who passes 8 means 8 GB.

    """
    if size is None or isinstance(size, str):
        return None if size is None else parse_size(size)
    if size < MIB:
        raise UsageError(f"{size} bytes is too little for a memory size; write '8GB', or 8 * 2**30 bytes.")
    return size


def format_size(size_bytes: int | None) -> str:
    """A size in bytes as GiB or MiB, such as `6.81 GiB`; `-` for None."""
    if size_bytes is None:
        return "-"
    if abs(size_bytes) >= GIB:
        return f"{size_bytes / GIB:.2f} GiB"
    return f"{size_bytes / MIB:.0f} MiB"


def format_duration(seconds: float | None) -> str:
    """A duration as `220 ms`, `8.1 s`, `3 min 20 s` or `1 h 32 min`; `-` for None or not finite."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
