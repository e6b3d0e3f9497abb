"""Expandable segments of the caching allocator: address space that is mapped page by page. Sizes in bytes.

There is one such segment for each pool and stream, of 9/8 of the card; pages are 2 MiB in the pool of small
requests and 20 MiB in the other.
"""

from collections.abc import Callable

from vramfit.prediction.allocator.block import Block, Pool, insert_after, merge


class ExpandableSegments:
    """Maps and unmaps memory of expandable segments of a card of `card_bytes`.

    `new_addresses(size)` hands out address space; `reserve(size)` is told of every size mapped, negative if unmapped.
    `may_reserve(size)` says whether so much more can be: a card has no more pages than it has, whatever PyTorch's own
    limit allows.
    """

    def __init__(
        self,
        card_bytes: int,
        new_addresses: Callable[[int], int],
        may_reserve: Callable[[int], bool],
        reserve: Callable[[int], None],
    ) -> None:
        self._card_bytes = card_bytes
        self._new_addresses = new_addresses
        self._may_reserve = may_reserve
        self._reserve = reserve
        self.count = 0

    def allocate(self, pool: Pool, size: int) -> Block | None:
        """A block of at least `size`, its missing pages mapped; it is in no pool. None if they cannot be had."""
        block = self._candidate(pool, size)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            neighbour = block.next
            if neighbour is None:
                raise AssertionError("the candidate was chosen for the room after it")
            if not self._map(neighbour, min(size - block.size, neighbour.size)):
                return None
            block = neighbour
        pool.remove(block)
        return block

    def release(self, pool: Pool) -> None:
        """Unmap every page of a pool that no block in use touches."""
        for _, _, block in list(pool.free):
            if block.expandable:
                self.unmap(block)

    def take_over(self, last: Block) -> None:
        """Count a segment made elsewhere, and give it address space to grow into after its last block."""
        pool = last.pool
        space = Block(last.address + last.size, self._space(pool), pool, True, mapped=False, expandable=True)
        insert_after(last, space)
        merge(space, last)
        pool.add(space)
        self.count += 1

    def map_at(self, pool: Pool, address: int, size: int) -> None:
        """Map the beginning of an unmapped block, as a recording tells; a new segment begins where there is none."""
        if not any(entry[0] == address for entry in pool.unmapped):
            pool.add(Block(address, self._space(pool), pool, True, mapped=False, expandable=True))
            self.count += 1
        self._map(next(entry[2] for entry in pool.unmapped if entry[0] == address), size)

    def _candidate(self, pool: Pool, size: int) -> Block:
        """The lowest unmapped space, or the free block before it, from which on `size` bytes are free."""
        for _, _, unmapped in pool.unmapped:
            before = unmapped.previous
            start = before if before is not None and before.free else unmapped
            if _room(start, size):
                return start
        return self._new_segment(pool)

    def _new_segment(self, pool: Pool) -> Block:
        size = self._space(pool)
        block = Block(self._new_addresses(size), size, pool, True, mapped=False, expandable=True)
        pool.add(block)
        self.count += 1
        return block

    def _space(self, pool: Pool) -> int:
        """Address space of one segment: 9/8 of the card, in whole pages."""
        wanted = self._card_bytes + self._card_bytes // 8
        return -(-wanted // pool.page) * pool.page

    def _map(self, block: Block, size: int) -> bool:
        """Back the beginning of an unmapped block with whole pages for `size` bytes; join free neighbours."""
        pool = block.pool
        mapped = -(-size // pool.page) * pool.page
        if not self._may_reserve(mapped):
            return False
        pool.remove(block)
        if mapped < block.size:
            rest = Block(block.address + mapped, block.size - mapped, pool, free=True, mapped=False, expandable=True)
            insert_after(block, rest)
            pool.add(rest)
            block.size = mapped
        block.mapped = True
        merge(block, block.previous)
        merge(block, block.next)
        pool.add(block)
        self._reserve(mapped)
        return True

    def unmap(self, block: Block) -> None:
        """Give the whole pages inside a free block back; what is left on either side stays, an empty segment goes."""
        pool = block.pool
        first = _first(block)
        start = first + -(-(block.address - first) // pool.page) * pool.page
        end = first + (block.address + block.size - first) // pool.page * pool.page
        if start >= end:
            return
        pool.remove(block)
        _keep_before(block, start)
        _keep_after(block, end)
        block.mapped = False
        merge(block, block.previous)
        merge(block, block.next)
        if block.alone:
            self.count -= 1
        else:
            pool.add(block)
        self._reserve(start - end)


def _room(block: Block | None, size: int) -> bool:
    room = 0
    while block is not None and block.free and room < size:
        room += block.size
        block = block.next
    return room >= size


def _first(block: Block) -> int:
    """The address at which the segment begins; pages count from there."""
    while block.previous is not None:
        block = block.previous
    return block.address


def _keep_before(block: Block, start: int) -> None:
    if start == block.address:
        return
    kept = Block(block.address, start - block.address, block.pool, free=True, expandable=True)
    kept.previous, kept.next = block.previous, block
    if block.previous is not None:
        block.previous.next = kept
    block.previous = kept
    block.address, block.size = start, block.size - kept.size
    block.pool.add(kept)


def _keep_after(block: Block, end: int) -> None:
    size = block.address + block.size - end
    if size == 0:
        return
    kept = Block(end, size, block.pool, free=True, expandable=True)
    insert_after(block, kept)
    block.size -= size
    block.pool.add(kept)


def least_growing(pool: Pool, index: int) -> int:
    """The place in `pool.free` to take: from the best fit on, the growing end of a segment is kept for later."""
    free = pool.free
    while index + 1 < len(free) and _can_reach(free[index + 1][2]) < _can_reach(free[index][2]):
        index += 1
    return index


def _can_reach(block: Block) -> int:
    after = block.next
    return block.size + (after.size if after is not None and not after.mapped else 0)
