"""The replay verb: its table, its document, and what it refuses."""

import json
import os
import pickle

import made_snapshot
import pytest


def test_it_says_that_the_replay_equals_the_recording(vramfit):
    done = vramfit("replay", str(made_snapshot.PATH))
    assert done.code == 0
    assert "recorded" in done.out
    assert "equals the recording" in done.out
    assert "Out of memory" not in done.out


def test_the_document(vramfit):
    done = vramfit("replay", str(made_snapshot.PATH), "--json")
    document = json.loads(done.out)
    assert document["recorded"]["peak_allocated_bytes"] == made_snapshot.PEAK_ALLOCATED
    assert document["replayed"]["peak_reserved_bytes"] == made_snapshot.PEAK_RESERVED
    assert document["segments_match"] is True
    assert document["events"] == len(made_snapshot.snapshot()["device_traces"][0])
    assert document["what_if"] is None


def test_another_setting_and_a_smaller_card(vramfit):
    words = ("replay", str(made_snapshot.PATH), "--alloc-conf", "expandable_segments:True", "--vram", "40MB")
    document = json.loads(vramfit(*words, "--json").out)
    assert document["what_if"]["limit_bytes"] == 40 << 20
    assert document["what_if"]["out_of_memory_at"] == 3
    assert "Out of memory at request 3" in vramfit(*words).out
    assert "It runs in 1.00 GiB." in vramfit(*words[:-1], "1GB").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--alloc-conf", "no_such:1"), 2, "cannot be replayed"),
        (("--vram", "much"), 2, "not a memory size"),
    ],
)
def test_options_that_make_no_sense(vramfit, words, code, said):
    done = vramfit("replay", str(made_snapshot.PATH), *words)
    assert done.code == code
    assert said in done.err
    assert done.out == ""


def test_a_hostile_file(vramfit, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "hostile.pickle"
    path.write_bytes(pickle.dumps(Hostile()))
    done = vramfit("replay", str(path))
    assert done.code == 7
    assert "is refused" in done.err
    assert not (tmp_path / "made").exists()


@pytest.mark.shared
def test_a_real_recording(vramfit, shared_data):
    path = shared_data / "snapshots" / "conv_train_tail.pickle"
    document = json.loads(vramfit("replay", str(path), "--json").out)
    assert document["segments_match"] is True
    for key in ("peak_allocated_bytes", "peak_reserved_bytes"):
        assert document["replayed"][key] == document["recorded"][key] > 0
