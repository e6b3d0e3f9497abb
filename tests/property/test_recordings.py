"""A recording cut anywhere is rebuilt: made by an allocator that notes what it does, read as a snapshot, replayed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.prediction.allocator.allocator import CachingAllocator, Settings
from vramfit.prediction.snapshots.compare import compare
from vramfit.prediction.snapshots.snapshot import parse_snapshot
from vramfit.units import MIB

# The allocator's addresses begin at 2**48, where no card's do: a recording's lie below.
SHIFT = 1 << 47


class Recorder(CachingAllocator):
    """Notes every event as PyTorch does, and after each action what is allocated and reserved."""

    def __init__(self, conf):
        super().__init__(Settings.parse(conf))
        self.conf = conf
        self.events = []
        self.states = [(0, 0, 0)]
        self.blocks_live = [{}]
        self.keys = {}
        if self._expandable is not None:
            self._map, self._unmap = self._expandable._map, self._expandable.unmap
            self._expandable._map, self._expandable.unmap = self._noted_map, self._noted_unmap

    def note(self, action, address, size, stream=0):
        self.events.append({"action": action, "addr": address - SHIFT, "size": size, "stream": stream})

    def take(self, key, size, stream):
        self.malloc(key, size, stream)
        self.note("alloc", self._live[key].address, size, stream)
        self.keys[key] = (self._live[key].address, size, stream)
        self.settle()

    def drop(self, key):
        address, size, stream = self.keys.pop(key)
        self.note("free_requested", address, size, stream)
        self.note("free_completed", address, size, stream)
        self.free(key)
        self.settle()

    def clear(self):
        self.empty_cache()
        self.settle()

    def settle(self):
        self.states.append((len(self.events), self.allocated_bytes, self.reserved_bytes))
        self.blocks_live.append({key: self._ending(key) for key in self.keys})

    def _ending(self, key):
        """Bytes of a live block beyond its request rounded up, and whether anything but free memory follows it."""
        block, size = self._live[key], self.keys[key][1]
        return block.size - self.settings.round_size(size), block.next is None or not block.next.free

    def hidden_bytes(self, cut):
        """Bytes that blocks older than the cut kept and that no neighbour shows before they are freed after it."""
        hidden = 0
        for key, (rest, _) in self.blocks_live[cut].items():
            later = [state[key] for state in self.blocks_live[cut:] if key in state]
            freed = len(later) < len(self.blocks_live) - cut
            hidden += rest if freed and not any(shown for _, shown in later) else 0
        return hidden

    def _allocate(self, pool, size, segment):
        block = super()._allocate(pool, size, segment)
        if self._expandable is None:
            self.note("segment_alloc", block.address, segment, pool.stream)
        return block

    def _release_segment(self, block):
        self.note("segment_free", block.address, block.size, block.pool.stream)
        super()._release_segment(block)

    def _noted_map(self, block, size):
        page = block.pool.page
        self.note("segment_map", block.address, -(-size // page) * page, block.pool.stream)
        return self._map(block, size)

    def _noted_unmap(self, block):
        before, first, page = self.reserved_bytes, block, block.pool.page
        while first.previous is not None:
            first = first.previous
        start = first.address + -(-(block.address - first.address) // page) * page
        stream = block.pool.stream
        self._unmap(block)
        if self.reserved_bytes < before:
            self.note("segment_unmap", start, before - self.reserved_bytes, stream)

    def snapshot(self, cut):
        segments = [self._segment(block) for block in self.blocks() if block.begins]
        traces = [self.events[self.states[cut][0] :]]
        conf = {"PYTORCH_CUDA_ALLOC_CONF": self.conf}
        return {"segments": segments, "device_traces": traces, "allocator_settings": conf}

    def _segment(self, block):
        requested = {address: size for address, size, _ in self.keys.values()}
        address, pool, blocks = block.address, block.pool, []
        while block is not None and block.mapped:
            state = "inactive" if block.free else "active_allocated"
            size = requested.get(block.address, 0)
            blocks.append(
                {"address": block.address - SHIFT, "size": block.size, "requested_size": size, "state": state}
            )
            block = block.next
        return {
            "address": address - SHIFT,
            "total_size": sum(entry["size"] for entry in blocks),
            "stream": pool.stream,
            "segment_type": "small" if pool.small else "large",
            "is_expandable": self._expandable is not None,
            "blocks": blocks,
        }


SIZES = st.one_of(st.integers(1, 3000), st.integers(1, 3 * MIB), st.integers(1, 60 * MIB))
ACTION = st.one_of(
    st.tuples(st.just("take"), SIZES, st.sampled_from([0, 0, 0, 7])),
    st.tuples(st.just("take"), SIZES, st.just(0)),
    st.tuples(st.just("drop"), st.integers(0, 1 << 16), st.just(0)),
    st.tuples(st.just("clear"), st.just(0), st.just(0)),
)


def recorded_run(conf, actions):
    recorder = Recorder(conf)
    for number, (action, value, stream) in enumerate(actions):
        if action == "take":
            recorder.take(number, value, stream)
        elif action == "drop" and recorder.keys:
            recorder.drop(sorted(recorder.keys)[value % len(recorder.keys)])
        elif action == "clear":
            recorder.clear()
    return recorder


@settings(max_examples=250)
@given(
    conf=st.sampled_from(["", "expandable_segments:True"]),
    actions=st.lists(ACTION, min_size=2, max_size=50),
    share=st.floats(0, 0.99),
)
def test_a_cut_recording_is_rebuilt(conf, actions, share):
    recorder = recorded_run(conf, actions)
    cut = int(share * len(recorder.states))
    snapshot = recorder.snapshot(cut)
    if not snapshot["device_traces"][0]:
        return
    comparison = compare(parse_snapshot(snapshot))
    tail = recorder.states[cut:]
    assert comparison.recorded.peak_reserved_bytes == max(reserved for _, _, reserved in tail)
    assert comparison.recorded.segment_sizes == tuple(sorted(recorder.segment_sizes()))
    off = max(allocated for _, allocated, _ in tail) - comparison.recorded.peak_allocated_bytes
    hidden = recorder.hidden_bytes(cut)
    assert 0 <= off <= hidden
    if hidden == 0:
        assert comparison.segments_match
        assert comparison.replayed.peak_allocated_bytes == comparison.recorded.peak_allocated_bytes
        assert comparison.replayed.peak_reserved_bytes == comparison.recorded.peak_reserved_bytes
