"""What the replayed allocator says where torch would raise `OutOfMemoryError`."""

from vramfit.errors import VramfitError
from vramfit.units import format_size


class AllocatorOom(VramfitError):
    """A request that the limit does not allow, even after everything cached was released."""

    def __init__(self, requested_bytes: int, reserved_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"out of memory: {format_size(requested_bytes)} more than the {format_size(reserved_bytes)} reserved "
            f"exceed the limit of {format_size(limit_bytes)}; use a smaller batch."
        )
        self.requested_bytes = requested_bytes
        self.reserved_bytes = reserved_bytes
        self.limit_bytes = limit_bytes
