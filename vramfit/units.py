"""Sizes, limits and durations: parsing what a person writes, and writing what a person reads."""

import math
import re
from dataclasses import dataclass, replace

from vramfit.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1024 * GIB}
# A unit is asked for: who writes 8 means 8 GB, and would get 8 bytes. `o` is the French octet.
_SIZE = re.compile(r"\s*(\d+(?:[.,]\d+)?|[.,]\d+)\s*(?:([KMGT])(?:I?[BO]|I)?|[BO])\s*", re.IGNORECASE)
# `8,500MB` is 8500 MB to some and 8.5 MB to others.
_THOUSANDS = re.compile(r"\s*[1-9]\d{0,2}(?:,\d{3})+(?!\d)")
# Between these lies every memory that a job can be given: a CUDA context alone takes over 100 MiB.
_SMALLEST, _LARGEST = MIB, 16 * 1024 * GIB


def parse_size(text: str) -> int:
    """Bytes in a size such as `8GB`, `600 MiB`, `7.5G`, `8,5GB`, `8 Gi` or `8 Go`.

    Units are binary whether or not the `i` is written: a card sold as 8GB has 8 x 2^30 bytes.

    Raises:
        UsageError: the text is not a size, may be read in two ways, or is less than 1 MiB or more than 16 TiB, as no
            memory of a card or desktop is.

    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is not a memory size; write a number and a unit, such as 8GB or 600MB.")
    if _THOUSANDS.match(text):
        raise UsageError(f"'{text}' is not a memory size that reads one way; write its number without a comma.")
    size = float(match[1].replace(",", ".")) * _FACTORS[(match[2] or "").upper()]
    if not _SMALLEST <= size <= _LARGEST:
        raise UsageError(f"'{text}' is not a memory size that a card can have; write one such as 8GB or 600MB.")
    return round(size)


def parse_image_size(text: str) -> tuple[int, int]:
    """(height, width) in pixels from `768`, `512x640` or `512 640`.

    >>> parse_image_size("512x640"), parse_image_size("768")
    ((512, 640), (768, 768))

    Raises:
        UsageError: the text is no image size.

    """
    parts = text.strip().lower().replace("x", " ").split()
    if len(parts) not in (1, 2) or not all(part.isdecimal() for part in parts):
        raise UsageError(f"'{text}' is not an image size; write 768, or HEIGHTxWIDTH such as 512x640.")
    return int(parts[0]), int(parts[-1])


@dataclass(frozen=True, kw_only=True)
class MemoryLimits:
    """What a person says of a card's memory, read once from what was typed.

    Raises:
        UsageError: fewer bytes than 1 MiB: who passes 8 means 8 GB.

    """

    vram_bytes: int | None = None
    """The most that the job may use at device level, its CUDA context included; None for all that is free."""

    reserve_bytes: int | None = None
    """What stays free for a desktop and other programs, beside what they hold already; None for nothing."""

    def __post_init__(self) -> None:
        for name, size in (("vram", self.vram_bytes), ("reserve", self.reserve_bytes)):
            if size is not None and size < MIB:
                raise UsageError(
                    f"{name} is {size} bytes, too little for a memory size; write '8GB', or 8 * 2**30 bytes."
                )

    @classmethod
    def parse(cls, *, vram: str | int | None = None, reserve: str | int | None = None) -> "MemoryLimits":
        """The limits from texts such as `8GB`, or bytes; None sets no limit.

        >>> MemoryLimits.parse(vram="8GB", reserve="600MB")
        MemoryLimits(vram_bytes=8589934592, reserve_bytes=629145600)

        Raises:
            UsageError: not a size, or fewer bytes than 1 MiB; names which of the two.

        """
        return cls(vram_bytes=_read_size("vram", vram), reserve_bytes=_read_size("reserve", reserve))

    def or_vram(self, vram_bytes: int | None) -> "MemoryLimits":
        """These limits, with another `vram_bytes` where they have none."""
        return self if self.vram_bytes is not None else replace(self, vram_bytes=vram_bytes)


NO_LIMITS = MemoryLimits()


def _read_size(name: str, size: str | int | None) -> int | None:
    if not isinstance(size, str):
        return size
    try:
        return parse_size(size)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def format_size(size_bytes: int | None) -> str:
    """A size in bytes as GiB or MiB, such as `6.81 GiB`; `-` for None."""
    if size_bytes is None:
        return "-"
    if abs(size_bytes) >= GIB:
        return f"{size_bytes / GIB:.2f} GiB"
    return f"{size_bytes / MIB:.0f} MiB"


def format_gib(size_bytes: int) -> str:
    """A size in bytes as GiB, such as `0.36 GiB`, the unit of tables."""
    return f"{size_bytes / GIB:.2f} GiB" if size_bytes >= GIB / 200 else "less than 0.01 GiB"


def format_duration(seconds: float | None) -> str:
    """A duration as `0.35 ms`, `220 ms`, `8.1 s`, `3 min 20 s` or `1 h 32 min`; `-` for None or not finite."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 1:
        return f"{_milliseconds(seconds)} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def format_duration_range(low: float, high: float) -> str:
    """A range of durations, short: `210-380 ms`, `36-66 s`, `1.5-2.5 min`, `12-18 min`, `2 h 00-3 h 40`; seconds in."""
    if high < 1:
        return f"{_milliseconds(low)}-{_milliseconds(high)} ms"
    if high < 10:
        return f"{low:.1f}-{high:.1f} s"
    if high < 120:
        return f"{low:.0f}-{high:.0f} s"
    if high < 10 * 60:
        return f"{low / 60:.1f}-{high / 60:.1f} min"
    if high < 2 * 3600:
        return f"{low / 60:.0f}-{high / 60:.0f} min"
    return f"{_hours(low)}-{_hours(high)}"


def _milliseconds(seconds: float) -> str:
    """Whole milliseconds, and below ten of them two digits that count: a small network takes less than one."""
    value = seconds * 1000
    if value == 0 or value >= 9.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2f}" if value >= 0.0995 else f"{value:.2g}"


def _hours(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d}"
