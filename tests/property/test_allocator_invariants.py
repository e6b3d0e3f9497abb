"""What holds of the allocator whatever is asked of it, under every setting that moves memory."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.prediction.allocator.allocator import AllocatorOom, CachingAllocator, Settings
from vramfit.units import MIB

CONFS = (
    "",
    "expandable_segments:True",
    "max_split_size_mb:32",
    "expandable_segments:True,max_split_size_mb:32",
    "roundup_power2_divisions:4",
    "large_segment_size_mb:32,max_non_split_rounding_mb:64,max_split_size_mb:48",
    "garbage_collection_threshold:0.6",
    "expandable_segments:True,garbage_collection_threshold:0.3,roundup_power2_divisions:[64:8,>:2]",
)
SIZES = st.one_of(
    st.integers(0, 4096),
    st.integers(1, 2 * MIB),
    st.sampled_from([MIB, MIB + 1, 10 * MIB - 1, 10 * MIB, 20 * MIB, 33 * MIB]),
    st.integers(1, 90 * MIB),
)
MALLOC = st.tuples(st.just("malloc"), SIZES, st.sampled_from([0, 0, 0, 7]))
FREE = st.tuples(st.just("free"), st.integers(0, 1 << 16), st.just(0))
ACTION = st.one_of(MALLOC, MALLOC, FREE, FREE, st.just(("empty", 0, 0)))
CASE = {
    "conf": st.sampled_from(CONFS),
    "limit": st.sampled_from([None, 64 * MIB, 301 * MIB]),
    "actions": st.lists(ACTION, min_size=1, max_size=60),
}


class Played:
    """An allocator and the sizes of what lives in it, after each action."""

    def __init__(self, conf, limit):
        self.allocator = CachingAllocator(Settings.parse(conf), limit)
        self.live = {}
        self.refused = 0
        self._count = 0

    def act(self, action, number, stream):
        if action == "malloc":
            self._count += 1
            try:
                self.allocator.malloc(self._count, number, stream)
            except AllocatorOom:
                self.refused += 1
            else:
                self.live[self._count] = number
        elif action == "free" and self.live:
            key = list(self.live)[number % len(self.live)]
            self.allocator.free(key)
            del self.live[key]
        elif action == "empty":
            self.allocator.empty_cache()


def segments(allocator):
    """Blocks of each segment in order of address, found from the first block of each."""
    first = [block for block in allocator.blocks() if block.previous is None]
    for block in first:
        chain = [block]
        while chain[-1].next is not None:
            chain.append(chain[-1].next)
        yield chain


def check(played):
    allocator = played.allocator
    blocks = allocator.blocks()
    chains = list(segments(allocator))
    assert sorted(map(id, blocks)) == sorted(id(block) for chain in chains for block in chain), "a block is lost"
    for chain in chains:
        for before, after in pairwise(chain):
            assert after.previous is before
            assert before.address + before.size == after.address, "blocks do not tile the segment"
            assert not (before.free and after.free and before.mapped == after.mapped), "free neighbours did not merge"
    spans = sorted((chain[0].address, chain[-1].address + chain[-1].size) for chain in chains)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "segments overlap"
    mapped = sum(block.size for block in blocks if block.mapped)
    used = sum(block.size for block in blocks if not block.free)
    assert all(block.mapped for block in blocks if not block.free)
    assert used == allocator.allocated_bytes <= allocator.peak_allocated_bytes
    assert mapped == allocator.reserved_bytes == sum(allocator.segment_sizes()) <= allocator.peak_reserved_bytes
    assert allocator.allocated_bytes <= allocator.reserved_bytes
    assert used >= sum(played.live.values())
    assert allocator.segments == len(chains)


def check_pools(allocator):
    """Every free block is in the list of its own pool, in order, and is no other's."""
    for block in allocator.blocks():
        if block.free:
            entries = block.pool.free if block.mapped else block.pool.unmapped
            assert sum(entry[2] is block for entry in entries) == 1
            assert entries == sorted(entries, key=lambda entry: entry[:2])


@settings(max_examples=250)
@given(**CASE)
def test_blocks_tile_segments_and_the_sums_agree(conf, limit, actions):
    played = Played(conf, limit)
    for action in actions:
        played.act(*action)
        check(played)
    check_pools(played.allocator)


@settings(max_examples=100)
@given(**CASE)
def test_a_limit_is_kept(conf, limit, actions):
    played = Played(conf, limit)
    for action in actions:
        played.act(*action)
    assert limit is None or played.allocator.peak_reserved_bytes <= limit
    assert limit is not None or (played.refused == 0 and played.allocator.retries == 0)


@settings(max_examples=100)
@given(**CASE)
def test_all_freed_nothing_is_left(conf, limit, actions):
    played = Played(conf, limit)
    for action in actions:
        played.act(*action)
    for key in played.live:
        played.allocator.free(key)
    assert played.allocator.allocated_bytes == 0
    played.live.clear()
    played.allocator.empty_cache()
    check(played)
    assert (played.allocator.reserved_bytes, played.allocator.blocks()) == (0, [])


@settings(max_examples=50)
@given(**CASE)
def test_the_same_requests_give_the_same_memory(conf, limit, actions):
    outcomes = []
    for _ in range(2):
        played = Played(conf, limit)
        for action in actions:
            played.act(*action)
        outcomes.append([(block.address, block.size, block.free) for block in played.allocator.blocks()])
    assert outcomes[0] == outcomes[1]


@settings(max_examples=100)
@given(size=st.integers(1, 1 << 37), conf=st.sampled_from(CONFS))
def test_rounding_never_loses_bytes_and_is_stable(size, conf):
    rounded = Settings.parse(conf).round_size(size)
    assert size <= rounded <= max(2 * size, 512)
    assert rounded % 512 == 0
    assert Settings.parse(conf).round_size(rounded) == rounded
