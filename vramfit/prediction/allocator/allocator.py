"""A replay of PyTorch's CUDACachingAllocator (2.15): what it would reserve, reuse, release and refuse. Sizes in bytes.

The rules are those of `c10/cuda/CUDACachingAllocator.cpp`. Requests are rounded (512 bytes at least) and served from
the smallest free block that holds them, the lowest address first, in the pool of their size and stream. What no block
holds gets a new segment: 2 MiB for requests of up to 1 MiB, 20 MiB for those under 10 MiB, else the size rounded up to
2 MiB. A block is split if the rest is worth keeping; free neighbours merge; what is not split counts as allocated.

Not modelled: private pools of CUDA graphs, and physical fragmentation of the card.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Sequence

from vramfit.prediction.allocator.block import Block, Pool, chained, insert_after, mapped_from, merge
from vramfit.prediction.allocator.expandable import ExpandableSegments, least_growing
from vramfit.prediction.allocator.out_of_memory import AllocatorOom
from vramfit.prediction.allocator.settings import UNLIMITED, Settings
from vramfit.units import GIB, MIB

__all__ = ["AllocatorOom", "CachingAllocator", "Settings"]

_SMALL = MIB
_SMALL_SEGMENT = 2 * MIB
_MIN_LARGE_ALLOCATION = 10 * MIB
_ROUND_LARGE = 2 * MIB
# Segments are handed out at rising addresses, a gap between any two, above those of any recorded one.
_FIRST_ADDRESS = 1 << 48
_GAP = 512
_UNKNOWN_CARD = 1024 * GIB


class CachingAllocator:
    """The allocator of one card, fed by `malloc` and `free` of any hashable keys.

    Attributes:
        allocated_bytes, reserved_bytes: what torch's `memory_allocated` and `memory_reserved` would say.
        peak_allocated_bytes, peak_reserved_bytes: their maxima.
        retries: torch's `num_alloc_retries`: how often everything cached had to go before a request was tried again.

    """

    def __init__(self, settings: Settings | None = None, limit_bytes: int | None = None) -> None:
        self.settings = settings or Settings()
        self.limit_bytes = limit_bytes and int(limit_bytes * self.settings.memory_fraction)
        self.allocated_bytes = self.reserved_bytes = 0
        self.peak_allocated_bytes = self.peak_reserved_bytes = 0
        self.retries = 0
        self._plain_segments = 0
        self._live: dict[Hashable, Block] = {}
        self._pools: dict[tuple[int, bool], Pool] = {}
        self._next_address = _FIRST_ADDRESS
        self._rounded: dict[int, int] = {}
        self._expandable: ExpandableSegments | None = None
        if self.settings.expandable_segments:
            card_bytes = limit_bytes or _UNKNOWN_CARD
            self._expandable = ExpandableSegments(card_bytes, self._new_addresses, self._may_reserve, self._reserve)
        self._clocks = {True: [0], False: [0]}
        self._collects = self.limit_bytes is not None and self.settings.garbage_collection_threshold > 0

    @property
    def segments(self) -> int:
        """Segments held; an expandable one, mapped in part or not, is one."""
        return self._plain_segments + (self._expandable.count if self._expandable else 0)

    def malloc(self, key: Hashable, size_bytes: int, stream: int = 0) -> None:
        """Allocate under a key; nothing for 0 bytes, as torch does not ask for them.

        Raises:
            AllocatorOom: the limit does not allow it; the allocator can still be used.

        """
        if size_bytes == 0:
            return
        size = self._rounded.get(size_bytes) or self._round(size_bytes)
        pool = self._pools.get((stream, size <= _SMALL)) or self._pool(stream, size <= _SMALL)
        block = self._find(pool, size) or self._grow(pool, size)
        rest = block.size - size
        if rest > pool.largest_unsplit_rest and size < pool.max_split_size:
            self._split(block, size)
        block.free = False
        self._live[key] = block
        self.allocated_bytes += block.size
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)

    def free(self, key: Hashable) -> None:
        """Free what a key holds; nothing for a key of 0 bytes."""
        block = self._live.pop(key, None)
        if block is None:
            return
        self.allocated_bytes -= block.size
        self._give_back(block)

    def free_later(self, key: Hashable) -> Callable[[], None]:
        """Stop counting a key as allocated now, as when another stream still uses it; call the result to free it."""
        block = self._live.pop(key)
        self.allocated_bytes -= block.size
        return lambda: self._give_back(block)

    def replay(self, events: Iterable[int], sizes_bytes: Sequence[int], streams: Sequence[int] = ()) -> None:
        """Run the events of a trace: `i` allocates `sizes_bytes[i]` under the key `i`, `~i` frees it.

        `streams` are those that storages belong to; empty where all belong to the first.

        Raises:
            AllocatorOom: as `malloc`.

        """
        malloc, free = self.malloc, self.free
        for event in events:
            if event >= 0:
                malloc(event, sizes_bytes[event], streams[event] if streams else 0)
            else:
                free(~event)

    def empty_cache(self) -> None:
        """Release every segment with nothing in it; unmap every free page of expandable segments."""
        for pool in sorted(self._pools.values(), key=lambda pool: pool.small):
            self._release(pool)

    def adopt(
        self,
        address: int,
        blocks: Sequence[tuple[int, Hashable | None]],
        *,
        small: bool,
        stream: int,
        expandable: bool = False,
    ) -> None:
        """Take over a segment that is older than the replay.

        Args:
            address: where it begins; no other segment may be there.
            blocks: size and key of each block, in order; None as key for a free one, `UNMAPPED` for bare address space.
            small: whether it belongs to the pool of small requests.
            stream: the stream it belongs to.
            expandable: whether it is an expandable segment; then address space to grow into follows it.

        """
        pool = self._pool(stream, small)
        chain = chained(pool, address, blocks, expandable=expandable)
        for block, (_, key) in zip(chain, blocks, strict=True):
            if not block.free:
                self._live[key] = block
                self.allocated_bytes += block.size
        if self._expandable is not None and expandable:
            self._expandable.take_over(chain[-1])
        else:
            self._plain_segments += 1
        self._reserve(sum(block.size for block in chain if block.mapped))
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)

    def segment_sizes(self) -> list[int]:
        """Bytes of every segment, in no order; of an expandable one, of each stretch that is mapped."""
        return [mapped_from(block) for block in self.blocks() if block.begins]

    def blocks(self) -> list[Block]:
        """Every block, in use or free, mapped or not."""
        pools = self._pools.values()
        free = [entry[2] for pool in pools for entry in (*pool.free, *pool.unmapped)]
        return [*self._live.values(), *free]

    def _round(self, size_bytes: int) -> int:
        size = self._rounded[size_bytes] = self.settings.round_size(size_bytes)
        return size

    def _pool(self, stream: int, small: bool) -> Pool:
        if (stream, small) not in self._pools:
            self._pools[stream, small] = Pool(
                small=small, stream=stream, settings=self.settings, clock=self._clocks[small]
            )
        return self._pools[stream, small]

    def _find(self, pool: Pool, size: int) -> Block | None:
        """The best free block of a pool, taken out of it; None if there is none that may be used."""
        free = pool.free
        if self._collects:
            pool.clock[0] += 1
        index = bisect_left(free, (size,))
        if index == len(free):
            return None
        if self._expandable is not None:
            index = least_growing(pool, index)
        found = free[index][0]
        limit = self.settings.max_split_size_bytes
        if size < limit <= found:
            return None
        if size >= limit and found >= size + self.settings.max_non_split_rounding_bytes:
            return None
        return free.pop(index)[2]

    def _split(self, block: Block, size: int) -> None:
        pool = block.pool
        rest = Block(block.address + size, block.size - size, pool, True)
        rest.expandable = block.expandable
        block.size = size
        insert_after(block, rest)
        rest.born = pool.clock[0]
        insort(pool.free, (rest.size, rest.address, rest))

    def _give_back(self, block: Block) -> None:
        before, after, pool = block.previous, block.next, block.pool
        if before is not None and before.free:
            merge(block, before)
        if after is not None and after.free:
            merge(block, after)
        block.free = True
        block.born = pool.clock[0]
        insort(pool.free, (block.size, block.address, block))

    def _grow(self, pool: Pool, size: int) -> Block:
        """A new block of at least `size`, releasing cached ones step by step if the limit is in the way."""
        self._collect_garbage()
        segment = self._segment_size(size)
        block = self._allocate(pool, size, segment)
        if block is None and self._release_oversize(pool, size):
            block = self._allocate(pool, size, segment)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._allocate(pool, size, segment)
        if block is None:
            raise AllocatorOom(size, self.reserved_bytes, self.limit_bytes or 0)
        return block

    def _segment_size(self, size: int) -> int:
        if size <= _SMALL:
            return _SMALL_SEGMENT
        if size < _MIN_LARGE_ALLOCATION:
            return self.settings.large_segment_bytes
        return -(-size // _ROUND_LARGE) * _ROUND_LARGE

    def _allocate(self, pool: Pool, size: int, segment: int) -> Block | None:
        if not self._may_reserve(segment):
            return None
        if self._expandable is not None:
            return self._expandable.allocate(pool, size)
        self._plain_segments += 1
        self._reserve(segment)
        return Block(self._new_addresses(segment), segment, pool, free=False)

    def _release(self, pool: Pool) -> None:
        for _, _, block in list(pool.free):
            if block.alone and not block.expandable:
                self._release_segment(block)
        if self._expandable is not None:
            self._expandable.release(pool)

    def _release_segment(self, block: Block) -> None:
        block.pool.remove(block)
        self._plain_segments -= 1
        self.reserved_bytes -= block.size

    def _release_oversize(self, pool: Pool, size: int) -> bool:
        """Release blocks that are never split: the smallest that yields `size`, or the largest ones until they do."""
        limit = self.settings.max_split_size_bytes
        if limit == UNLIMITED or self._expandable is not None:
            return False
        wanted = max(size, limit)
        index = bisect_left(pool.free, (wanted,))
        if index < len(pool.free):
            self._release_segment(pool.free[index][2])
            return True
        gained = 0
        while pool.free and gained < wanted and pool.free[-1][0] >= limit:
            gained += pool.free[-1][0]
            self._release_segment(pool.free[-1][2])
        return gained >= wanted

    def _collect_garbage(self) -> None:
        """Release cached segments of the large pool that are older than the mean, until below the threshold."""
        if not self._collects:
            return
        threshold = int(self.settings.garbage_collection_threshold * (self.limit_bytes or 0))
        target = self.reserved_bytes - threshold
        now = self._clocks[False][0]
        large = (block for pool in self._pools.values() if not pool.small for _, _, block in pool.free)
        whole = [block for block in large if block.alone and not block.expandable]
        while target > 0 and whole:
            mean = sum(now - block.born for block in whole) / len(whole)
            old = [block for block in whole if now - block.born >= mean]
            for block in old:
                target -= block.size
                self._release_segment(block)
            whole = [block for block in whole if now - block.born < mean]

    def _may_reserve(self, size: int) -> bool:
        return self.limit_bytes is None or self.reserved_bytes + size <= self.limit_bytes

    def _reserve(self, size: int) -> None:
        self.reserved_bytes += size
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)

    def _new_addresses(self, size: int) -> int:
        address = self._next_address
        self._next_address += size + _GAP
        return address
