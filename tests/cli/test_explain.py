"""The explain verb."""

import json

import pytest

pytest.importorskip("timm")
WORDS = ("explain", "--model", "timm:resnet18", "--image-size", "64", "64", "--gpu", "rtx3090", "--batch-size", "2")


def test_parts_sum_and_the_page_is_written_once(vramfit, tmp_path):
    page = tmp_path / "step.html"
    done = vramfit(*WORDS, "--json", "--html", str(page))
    assert done.code == 0
    document = json.loads(done.out)
    parts = [*document["kinds"], *document["hidden"], *document["allocator"]]
    assert sum(part["size_bytes"] for part in parts) == document["peak_bytes"]
    assert "RTX 3090" in document["title"]
    before = page.read_text(encoding="utf-8")
    again = vramfit(*WORDS, "--html", str(page))
    assert (again.code, page.read_text(encoding="utf-8")) == (8, before)
    assert "--force" in again.err


def test_an_unknown_card(vramfit):
    done = vramfit(*WORDS[:6], "--gpu", "rtx3070tl", "--batch-size", "2")
    assert done.code == 2
    assert "RTX 3070 Ti" in done.err


def test_a_batch_beyond_the_card_is_said_not_to_fit(vramfit):
    said = [vramfit(*WORDS[:-1], size).out for size in ("2", "100000")]
    assert ["It does not fit: the card has" in out for out in said] == [False, True]
