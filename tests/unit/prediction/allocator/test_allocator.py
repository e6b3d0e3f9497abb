"""The allocator's rules, one by one, with figures worked out by hand."""

import pytest

from vramfit.errors import UsageError
from vramfit.prediction.allocator.allocator import AllocatorOom, CachingAllocator, Settings
from vramfit.units import GIB, KIB, MIB


def made(conf="", limit=None):
    return CachingAllocator(Settings.parse(conf), limit)


@pytest.mark.parametrize(
    ("requested", "block", "segment"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # 1 MiB left over is not split off, and counts as allocated
        (30 * MIB + 1, 30 * MIB + 512, 32 * MIB),
    ],
)
def test_a_request_is_rounded_and_gets_a_segment(requested, block, segment):
    allocator = made()
    allocator.malloc("a", requested)
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (block, segment)
    allocator.free("a")
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (0, segment)
    assert (allocator.peak_allocated_bytes, allocator.peak_reserved_bytes) == (block, segment)


def test_nothing_is_asked_for_no_bytes():
    allocator = made()
    allocator.malloc("a", 0)
    allocator.free("a")
    assert allocator.reserved_bytes == 0


def test_the_best_fit_is_the_smallest_block_that_holds_it():
    allocator = made()
    for key, size in (("small", 12), ("gap", 14), ("large", 16)):
        allocator.malloc(key, size * MIB)
    allocator.free("large")
    allocator.free("small")
    allocator.malloc("new", 12 * MIB)
    allocator.malloc("other", 15 * MIB)
    assert allocator.reserved_bytes == (12 + 14 + 16) * MIB
    assert allocator.allocated_bytes == (12 + 14 + 16) * MIB


def test_free_neighbours_merge_and_serve_a_larger_request():
    allocator = made()
    for key in "abc":
        allocator.malloc(key, 6 * MIB)
    allocator.free("a")
    allocator.free("b")
    allocator.malloc("ab", 9 * MIB)
    assert allocator.reserved_bytes == 20 * MIB


def test_pools_and_streams_share_nothing():
    allocator = made()
    allocator.malloc("large", 5 * MIB)
    allocator.malloc("small", 100)
    allocator.malloc("elsewhere", 100, stream=7)
    assert allocator.reserved_bytes == (20 + 2 + 2) * MIB


def test_a_full_card_gives_its_cache_back_retries_and_then_refuses():
    allocator = made(limit=64 * MIB)
    allocator.malloc("a", 30 * MIB)
    allocator.malloc("b", 30 * MIB)
    allocator.free("a")
    allocator.malloc("c", 34 * MIB)
    assert (allocator.retries, allocator.reserved_bytes) == (1, 64 * MIB)
    with pytest.raises(AllocatorOom, match="smaller batch"):
        allocator.malloc("d", 2 * MIB)
    assert allocator.retries == 2
    allocator.free("c")
    allocator.malloc("d", 2 * MIB)
    assert allocator.allocated_bytes == 32 * MIB


def test_empty_cache_keeps_segments_in_use():
    allocator = made()
    allocator.malloc("a", 5 * MIB)
    allocator.malloc("b", 40 * MIB)
    allocator.free("b")
    allocator.empty_cache()
    assert allocator.reserved_bytes == 20 * MIB
    allocator.free("a")
    allocator.empty_cache()
    assert (allocator.reserved_bytes, allocator.segments) == (0, 0)


def test_memory_another_stream_still_uses_is_not_given_out():
    allocator = made()
    allocator.malloc("a", 10 * MIB)
    done = allocator.free_later("a")
    assert allocator.allocated_bytes == 0
    allocator.malloc("b", 10 * MIB)
    assert allocator.reserved_bytes == 20 * MIB
    done()
    allocator.malloc("c", 10 * MIB)
    assert allocator.reserved_bytes == 20 * MIB


def test_max_split_size_keeps_large_blocks_whole():
    allocator = made("max_split_size_mb:32")
    allocator.malloc("large", 60 * MIB)
    allocator.free("large")
    allocator.malloc("small", 12 * MIB)  # may not break the 60 MiB block
    assert allocator.reserved_bytes == 72 * MIB
    allocator.malloc("again", 45 * MIB)  # within 20 MiB of 60: takes it whole
    assert allocator.reserved_bytes == 72 * MIB
    assert allocator.allocated_bytes == 72 * MIB
    allocator.free("again")
    allocator.malloc("other", 33 * MIB)  # 27 MiB would be lost: a segment of its own
    assert allocator.reserved_bytes == (72 + 34) * MIB


def test_oversize_blocks_are_released_first_and_count_as_no_retry():
    allocator = made("max_split_size_mb:32", limit=130 * MIB)
    allocator.malloc("large", 60 * MIB)
    allocator.malloc("keep", 20 * MIB)
    allocator.malloc("cached", 24 * MIB)
    allocator.free("large")
    allocator.free("cached")
    allocator.malloc("new", 90 * MIB)
    assert allocator.retries == 1  # 60 MiB were not enough alone
    allocator.free("new")
    allocator.malloc("again", 40 * MIB)
    assert allocator.retries == 1  # releasing the 90 MiB block was enough


def test_roundup_divides_the_way_to_the_next_power_of_two():
    settings = Settings.parse("roundup_power2_divisions:4")
    assert settings.round_size(1200 * KIB) == 1280 * KIB
    assert settings.round_size(MIB) == MIB
    assert settings.round_size(1000) == 1024
    assert settings.round_size(1100) == 1536  # too small for four divisions of 512: the plain rule


def test_roundup_by_size():
    settings = Settings.parse("roundup_power2_divisions:[64:8,128:2,256:4,512:2,1024:4,>:1]")
    wanted = {32: 8, 64: 8, 128: 2, 256: 4, 512: 2, 1024: 4, 2048: 1, 65536: 1}
    assert {size: settings.roundup_power2_divisions[min(size.bit_length() - 1, 15)] for size in wanted} == wanted


def test_a_larger_large_segment():
    allocator = made("large_segment_size_mb:64,max_non_split_rounding_mb:64")
    allocator.malloc("a", 2 * MIB)
    assert allocator.reserved_bytes == 64 * MIB


def test_garbage_collection_gives_old_segments_back():
    allocator = made("garbage_collection_threshold:0.5", limit=100 * MIB)
    for key in ("old", "new"):
        allocator.malloc(key, 30 * MIB)
    allocator.free("old")
    for _ in range(5):
        allocator.malloc("x", 12 * MIB)
        allocator.free("x")
    assert allocator.reserved_bytes == 60 * MIB
    allocator.malloc("y", 34 * MIB)
    assert (allocator.reserved_bytes, allocator.retries) == (64 * MIB, 0)


def test_an_expandable_segment_grows_page_by_page():
    allocator = made("expandable_segments:True")
    allocator.malloc("a", 30 * MIB)
    assert allocator.reserved_bytes == 40 * MIB
    allocator.malloc("b", 25 * MIB)
    assert (allocator.reserved_bytes, allocator.segments) == (60 * MIB, 1)
    allocator.free("b")
    allocator.malloc("c", 60 * MIB)  # the 30 MiB at its end and 30 more
    assert (allocator.reserved_bytes, allocator.segment_sizes()) == (100 * MIB, [100 * MIB])
    allocator.free("a")
    allocator.empty_cache()  # of the first 30 MiB one page can go
    assert (allocator.reserved_bytes, sorted(allocator.segment_sizes())) == (80 * MIB, [80 * MIB])
    allocator.free("c")
    allocator.empty_cache()
    assert (allocator.reserved_bytes, allocator.segments) == (0, 0)


def test_expandable_pages_of_small_requests_are_2_mib():
    allocator = made("expandable_segments:True")
    for key in range(5):
        allocator.malloc(key, 600 * KIB)
    assert allocator.reserved_bytes == 4 * MIB


def test_a_fraction_of_the_limit():
    allocator = made("per_process_memory_fraction:0.5", limit=40 * MIB)
    allocator.malloc("a", 20 * MIB)
    with pytest.raises(AllocatorOom):
        allocator.malloc("b", 1)


def test_options_that_move_nothing_are_accepted():
    assert Settings.parse(" backend:native , pinned_num_register_threads:8 ") == Settings()
    assert Settings.parse("") == Settings()


@pytest.mark.parametrize(
    "text",
    [
        "max_split_size_mb:19",
        "max_split_size_mb",
        "max_split_size_mb:x",
        "large_segment_size_mb:10",
        "large_segment_size_mb:50,max_split_size_mb:40",
        "roundup_power2_divisions:3",
        "roundup_power2_divisions:[3:4]",
        "garbage_collection_threshold:1.0",
        "expandable_segments:true",
        "backend:cudaMallocAsync",
        "no_such_option:1",
    ],
)
def test_what_pytorch_refuses_is_refused(text):
    with pytest.raises(UsageError, match="allocator option"):
        Settings.parse(text)


def test_replay_runs_a_trace():
    allocator = made()
    allocator.replay([0, 1, ~0, 2, ~1, ~2], [10 * MIB, GIB, 10 * MIB])
    assert allocator.allocated_bytes == 0
    assert allocator.peak_allocated_bytes == GIB + 10 * MIB


def test_a_block_that_is_free_in_one_stream_serves_no_other():
    def reserved(streams):
        allocator = made()
        allocator.replay([0, ~0, 1], [20 * MIB, 20 * MIB], streams)
        return allocator.reserved_bytes

    assert reserved([0, 0]) == reserved(()) == 20 * MIB
    assert reserved([0, 1]) == 40 * MIB
