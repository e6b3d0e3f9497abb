"""Blocks of a segment, and the pools of free ones that the allocator looks through. Sizes in bytes."""

from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from typing import Final

from vramfit.prediction.allocator.settings import UNLIMITED, Settings
from vramfit.units import MIB

# In place of a key: address space of an expandable segment that holds no memory.
UNMAPPED: Final = object()
# An entry of a pool: the size first, so that the list is in the order in which a best fit is sought.
Entry = tuple[int, int, "Block"]


class Pool:
    """Free blocks of one stream, for requests of up to 1 MiB (`small`) or above.

    Attributes:
        free: (size, address, block) of every free mapped block, in that order.
        unmapped: (address, size, block) of address space of expandable segments that holds no memory.
        largest_unsplit_rest: a block is split if more than this would be left of it.
        max_split_size: requests of this size or more split nothing.
        page: what an expandable segment of this pool maps at once.
        clock: searches in the pools of this size; shared by the streams, kept for garbage collection.

    """

    __slots__ = ("clock", "free", "largest_unsplit_rest", "max_split_size", "page", "small", "stream", "unmapped")

    def __init__(self, *, small: bool, stream: int, settings: Settings, clock: list[int]) -> None:
        fine = small or settings.expandable_segments
        self.small = small
        self.stream = stream
        self.free: list[Entry] = []
        self.unmapped: list[Entry] = []
        self.largest_unsplit_rest = 511 if fine else MIB
        self.max_split_size = UNLIMITED if fine else settings.max_split_size_bytes
        self.page = 2 * MIB if small else settings.large_segment_bytes
        self.clock = clock

    def add(self, block: "Block") -> None:
        """Put a free block where it will be found."""
        if block.mapped:
            block.born = self.clock[0]
            insort(self.free, (block.size, block.address, block))
        else:
            insort(self.unmapped, (block.address, block.size, block))

    def remove(self, block: "Block") -> None:
        """Take out a block that is in use, merged, released or mapped from now on."""
        if block.mapped:
            del self.free[bisect_left(self.free, (block.size, block.address))]
        else:
            del self.unmapped[bisect_left(self.unmapped, (block.address, block.size))]


class Block:
    """A part of a segment: its neighbours in it, and whether it is free and backed by memory."""

    __slots__ = ("address", "born", "expandable", "free", "mapped", "next", "pool", "previous", "size")

    def __init__(
        self, address: int, size: int, pool: Pool, free: bool, *, mapped: bool = True, expandable: bool = False
    ) -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.free = free
        self.mapped = mapped
        self.expandable = expandable
        self.previous: Block | None = None
        self.next: Block | None = None
        self.born = 0

    @property
    def alone(self) -> bool:
        """Whether it is all of its segment."""
        return self.previous is None and self.next is None

    @property
    def begins(self) -> bool:
        """Whether mapped memory begins with it: that of a segment, or of a stretch of an expandable one."""
        return self.mapped and (self.previous is None or not self.previous.mapped)


def insert_after(block: Block, new: Block) -> None:
    """Make `new` the next neighbour of a block."""
    new.previous, new.next = block, block.next
    if block.next is not None:
        block.next.previous = new
    block.next = new


def chained(
    pool: Pool, address: int, blocks: Sequence[tuple[int, Hashable | None]], *, expandable: bool
) -> list[Block]:
    """Blocks side by side from an address on; (size, key), None as key for a free one, `UNMAPPED` for no memory."""
    chain: list[Block] = []
    for size, key in blocks:
        bare = key is UNMAPPED
        block = Block(address, size, pool, bare or key is None, mapped=not bare, expandable=expandable)
        if chain:
            insert_after(chain[-1], block)
        if block.free:
            pool.add(block)
        chain.append(block)
        address += size
    return chain


def merge(block: Block, neighbour: Block | None) -> None:
    """Take a neighbour into a block, if it is free and as mapped as the block; `block` itself is in no pool."""
    if neighbour is None or not neighbour.free or neighbour.mapped is not block.mapped:
        return
    if neighbour.mapped:
        free = neighbour.pool.free
        del free[bisect_left(free, (neighbour.size, neighbour.address))]
    else:
        neighbour.pool.remove(neighbour)
    block.size += neighbour.size
    if block.previous is neighbour:
        block.address = neighbour.address
        before = block.previous = neighbour.previous
        if before is not None:
            before.next = block
    else:
        after = block.next = neighbour.next
        if after is not None:
            after.previous = block


def mapped_from(block: Block) -> int:
    """Bytes mapped without a gap from a block on."""
    size = 0
    after: Block | None = block
    while after is not None and after.mapped:
        size, after = size + after.size, after.next
    return size
