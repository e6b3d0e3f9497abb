"""The explain verb on a file that PyTorch wrote."""

import json

import made_snapshot
import pytest

WORDS = ("explain", str(made_snapshot.PATH))


def test_the_parts_sum_to_what_was_reserved(vramfit):
    done = vramfit(*WORDS, "--json")
    assert done.code == 0
    (device,) = json.loads(done.out)
    parts = sum(part["size_bytes"] for part in (*device["kinds"], *device["allocator"]))
    assert parts == device["reserved_bytes"]
    assert device["allocated_bytes"] == made_snapshot.PEAK_ALLOCATED
    assert "picture" not in device


def test_the_page_is_written_once_and_told(vramfit, tmp_path):
    page = tmp_path / "why.html"
    done = vramfit(*WORDS, "--html", str(page), "--gpu", "rtx3090")
    assert (done.code, page.exists()) == (0, True)
    assert "Blocks without a recorded stack" in done.out.splitlines()[0]
    assert "reserved" in done.out
    assert vramfit(*WORDS, "--html", str(page)).code == 8


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((*WORDS, "--batch-size", "4"), 2, "--batch-size is of a job"),
        (("explain", "--no-names"), 2, "--no-names is of a snapshot"),
        (("explain", "nothing.pickle"), 7, "nothing.pickle"),
    ],
)
def test_what_makes_no_sense(vramfit, words, code, said):
    done = vramfit(*words)
    assert done.code == code
    assert said in done.err
