"""Reading snapshots: what is rebuilt, what is refused, and that the replay equals the recording."""

import os
import pickle
from collections import OrderedDict

import made_snapshot
import pytest

from vramfit.errors import DataError
from vramfit.prediction.allocator.settings import Settings
from vramfit.prediction.snapshots.compare import compare, recorded, replayed, what_if
from vramfit.prediction.snapshots.snapshot import check_bounds, load_plain, load_snapshot, parse_snapshot
from vramfit.units import MIB

RECORDED = (
    "conv_train_tail",
    "linear_grad",
    "lm_2p7b_ctx128_forward_bf16",
    "lm_2p7b_ctx128_step",
    "wedsonlin_medium_512_training",
)


@pytest.fixture
def dumped(tmp_path):
    def dump(value):
        path = tmp_path / "snapshot.pickle"
        path.write_bytes(pickle.dumps(value))
        return path

    return dump


def test_the_golden_file_is_what_the_script_makes():
    assert pickle.loads(made_snapshot.PATH.read_bytes()) == made_snapshot.snapshot()


def test_segments_older_than_the_trace_are_rebuilt():
    before = {segment.address: segment for segment in load_snapshot(made_snapshot.PATH).before}
    assert set(before) == {made_snapshot.LARGE, made_snapshot.SMALL}
    assert before[made_snapshot.LARGE].live == ((0, 5 * MIB, None),)
    assert before[made_snapshot.SMALL].live == ((0, 512, 512),)


@pytest.mark.parametrize("run", [recorded, replayed])
def test_peaks_and_segments_of_the_golden_file(run):
    outcome = run(load_snapshot(made_snapshot.PATH))
    assert outcome.peak_allocated_bytes == made_snapshot.PEAK_ALLOCATED
    assert outcome.peak_reserved_bytes == made_snapshot.PEAK_RESERVED
    assert outcome.segment_sizes == made_snapshot.END_SEGMENTS


def test_a_recording_that_broke_the_rules_shows():
    """The recording's figures come from its addresses, not from the replay: they can disagree."""
    low, high, later = made_snapshot.LARGE, made_snapshot.LARGE + 5 * MIB, made_snapshot.LATER
    data = made_snapshot.snapshot()
    data["device_traces"] = [
        [
            made_snapshot.entry("alloc", high, 3 * MIB),
            *made_snapshot.freed(low, 5 * MIB),
            made_snapshot.entry("alloc", high + 3 * MIB, 2 * MIB),  # the 5 MiB below would be the best fit
            made_snapshot.entry("segment_alloc", later, 12 * MIB),
            made_snapshot.entry("alloc", later, 11 * MIB),  # so no 12 MiB are left in one piece
        ]
    ]
    blocks = [(low, 5 * MIB), (high, 3 * MIB, 3 * MIB), (high + 3 * MIB, 2 * MIB, 2 * MIB), (high + 5 * MIB, 10 * MIB)]
    data["segments"][0]["blocks"] = [made_snapshot.block(*block) for block in blocks]
    whole = made_snapshot.block(later, 12 * MIB, 11 * MIB)
    data["segments"].append(made_snapshot.segment(later, 12 * MIB, "large", [whole]))
    comparison = compare(parse_snapshot(data))
    assert comparison.recorded.peak_reserved_bytes == (20 + 2 + 12) * MIB
    assert comparison.replayed.peak_reserved_bytes == (20 + 2) * MIB
    assert not comparison.segments_match


@pytest.mark.parametrize(("room", "block"), [(5.5, 5.5), (6, 6), (6.5, 5), (9, 5)])
def test_the_block_of_an_older_request_takes_a_rest_that_is_never_split_off(room, block):
    """5 MiB older than the trace and freed in it; up to 1 MiB before its neighbour can only be its own."""
    low, size = made_snapshot.LARGE, round(room * MIB)
    data = made_snapshot.snapshot()
    data["device_traces"] = [made_snapshot.freed(low, 5 * MIB)]
    blocks = [(low, size), (low + size, 2 * MIB, 2 * MIB), (low + size + 2 * MIB, 18 * MIB - size)]
    data["segments"][0]["blocks"] = [made_snapshot.block(*entry) for entry in blocks]
    small = 512 + 1024
    assert recorded(parse_snapshot(data)).peak_allocated_bytes == round(block * MIB) + 2 * MIB + small


def test_a_rest_kept_by_an_older_block_shows_where_its_neighbour_is_put():
    """5 MiB and a rest of 0.75, then free memory; what is put after them while they are live begins at their end."""
    low, end = made_snapshot.LARGE, made_snapshot.LARGE + 23 * MIB // 4
    data = made_snapshot.snapshot()
    data["device_traces"] = [
        [
            made_snapshot.entry("alloc", end, 2 * MIB),
            *made_snapshot.freed(end, 2 * MIB),
            *made_snapshot.freed(low, 5 * MIB),
        ]
    ]
    data["segments"][0]["blocks"] = [made_snapshot.block(low, 20 * MIB)]
    comparison = compare(parse_snapshot(data))
    assert comparison.recorded.peak_allocated_bytes == (23 * MIB) // 4 + 2 * MIB + 512 + 1024
    assert comparison.replayed == comparison.recorded


def test_a_gap_in_the_recording_is_an_error():
    data = made_snapshot.snapshot()
    del data["device_traces"][0][2:4]  # the free of the 5 MiB at the same address
    with pytest.raises(DataError, match="without a gap"):
        recorded(parse_snapshot(data))


def test_other_settings_change_what_is_reserved():
    snapshot = load_snapshot(made_snapshot.PATH)
    assert what_if(snapshot, Settings()) == replayed(snapshot)
    expandable = what_if(snapshot, Settings.parse("expandable_segments:True"))
    assert expandable.peak_reserved_bytes == (20 + 20 + 2) * MIB  # pages of 20 MiB in one segment
    assert expandable.peak_allocated_bytes == (4 + 3 + 13) * MIB + 512  # every rest is split off


@pytest.mark.parametrize(("limit", "request_number"), [(36, None), (34, 3), (20, 0)])
def test_a_limit_says_which_request_fails(limit, request_number):
    assert what_if(load_snapshot(made_snapshot.PATH), None, limit * MIB).out_of_memory_at == request_number


def test_a_limit_applies_to_older_requests_made_anew():
    snapshot = load_snapshot(made_snapshot.PATH)
    outcome = what_if(snapshot, Settings.parse("roundup_power2_divisions:2"), 10 * MIB)
    assert outcome.out_of_memory_at == 0


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"echo hacked > {self.path}",)


@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {**made_snapshot.snapshot(), "extra": [bad]}])
def test_a_hostile_pickle_is_refused_and_nothing_runs(dumped, tmp_path, wrap):
    path = dumped(wrap(Hostile(tmp_path / "hacked")))
    with pytest.raises(DataError, match=r"is refused: .*system"):
        load_snapshot(path)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(made_snapshot.snapshot()),
        {"segments": [], "device_traces": []},
        {"segments": [], "device_traces": [[]]},
        {"segments": []},
        [1, 2],
        None,
        {**made_snapshot.snapshot(), "segments": [{}]},
        {**made_snapshot.snapshot(), "device_traces": [[{"action": "alloc"}]]},
    ],
)
def test_what_is_no_snapshot_is_refused(dumped, value):
    with pytest.raises(DataError, match=r"snapshot\.pickle"):
        load_snapshot(dumped(value))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", "numbers a value 2147483647"),
        (b"\x80\x02X\x01\x00\x00\x00r]r\xff\xff\xff\x7f.", "numbers a value 2147483647"),
        (b"]p9999999999\n.", "numbers a value 9999999999"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "only 1 remain"),
    ],
)
def test_a_small_file_that_asks_for_much_memory_is_refused(tmp_path, monkeypatch, content, said):
    path = tmp_path / "hostile.pickle"
    path.write_bytes(content)
    # What is refused must not come to be loaded: it would take 32 GiB.
    monkeypatch.setattr("vramfit.prediction.snapshots.snapshot._PlainUnpickler", None)
    with pytest.raises(DataError, match=said):
        load_plain(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_a_real_pickle_is_within_bounds(protocol):
    value = [
        made_snapshot.snapshot(),
        *({"rr\xff": index, "big": 1 << 300, "f": 0.5} for index in range(400)),
    ]
    pickled = pickle.dumps(value, protocol)
    check_bounds(pickled)
    with pytest.raises(ValueError, match="exhausted"):
        check_bounds(pickled[:-1])


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04]", made_snapshot.PATH.read_bytes()[:-40]])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "damaged.pickle"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.pickle"):
        load_snapshot(path)


def test_a_missing_file_is_an_error_in_words(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        load_snapshot(tmp_path / "none.pickle")


@pytest.mark.shared
@pytest.mark.parametrize("name", RECORDED)
def test_the_replay_equals_recordings_of_real_cards(shared_data, name):
    comparison = compare(load_snapshot(shared_data / "snapshots" / f"{name}.pickle"))
    assert comparison.segments_match
    assert comparison.replayed.peak_allocated_bytes == comparison.recorded.peak_allocated_bytes
    assert comparison.replayed.peak_reserved_bytes == comparison.recorded.peak_reserved_bytes
