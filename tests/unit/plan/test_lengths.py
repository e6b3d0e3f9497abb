"""Lengths: read, counted, and the few that batches are proven at."""

from itertools import combinations
from random import Random

import numpy as np
import pytest

from vramfit.errors import DataError, UsageError
from vramfit.plan.lengths import Lengths, choose_lengths, covers, read_lengths


def padded(lengths, chosen):
    """All tokens once every sample is padded to the first chosen length that covers it."""
    return sum(
        count * next(one[0] for one in chosen if covers(one, length)) for length, count in lengths.counts.items()
    )


def test_a_range_has_every_length_alike():
    lengths = read_lengths("16:20")
    assert set(lengths.counts.values()) == {1}
    assert list(lengths.counts) == [(16,), (17,), (18,), (19,), (20,)]
    assert list(read_lengths("16:50:16").counts) == [(16,), (32,), (48,), (50,)]
    assert not lengths.counted


@pytest.mark.parametrize("text", ["0:5", "9:3", "nowhere.txt", "3:4:0"])
def test_what_is_neither_range_nor_file_is_refused(text):
    with pytest.raises(UsageError, match="--lengths"):
        read_lengths(text)


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("lengths.txt", "12\n7\n12\n", {(12,): 2, (7,): 1}),
        ("lengths.csv", "tokens,id\n12,a\n7,b\n\n", {(12,): 1, (7,): 1}),
        ("sizes.txt", "480x640\n640X480 cat.png\n", {(480, 640): 1, (640, 480): 1}),
        ("lengths.txt", "384,a\n12, b\n7\tc\n5 d,e\n", {(384,): 1, (12,): 1, (7,): 1, (5,): 1}),
        ("lengths.csv", '"tokens","id"\n"12","a, b"\n7 c\n', {(12,): 1, (7,): 1}),
        ("lengths.tsv", "\ufeff12\ta b\n", {(12,): 1}),
    ],
)
def test_a_file_of_lengths(tmp_path, name, text, counts):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_lengths(str(tmp_path / name)).counts == counts


def test_a_line_that_is_no_length_is_named(tmp_path):
    (tmp_path / "lengths.txt").write_text("12\nlong\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"lengths.txt:2: 'long'"):
        read_lengths(str(tmp_path / "lengths.txt"))


def test_a_line_is_named_by_its_number_in_the_file(tmp_path):
    (tmp_path / "lengths.txt").write_text("12\n\n\nlong,3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"lengths.txt:4: 'long'"):
        read_lengths(str(tmp_path / "lengths.txt"))


def test_numbers_of_an_array_are_lengths():
    assert Lengths.of(np.array([5, 6, 5])) == Lengths.of([5, 6, 5])
    assert Lengths.of(np.array([[5, 6]])) == Lengths.of([(5, 6)])


@pytest.mark.parametrize(
    ("given", "said"), [([], "no length"), ([3, 0], "holds 0"), ([3, (4, 5)], "beside"), ([3.5], "holds 3.5, which")]
)
def test_lengths_that_make_no_sense_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        Lengths.of(given)


@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_lengths_pad_least(seed):
    order = Random(seed)
    lengths = Lengths.of([min(40, 1 + int(order.expovariate(0.1))) for _ in range(60)])
    values = sorted(lengths.counts)
    chosen = choose_lengths(lengths, 4)
    best = min(padded(lengths, [*ends, values[-1]]) for ends in combinations(values[:-1], 3))
    assert len(chosen) <= 4
    assert chosen[-1] == lengths.longest
    assert padded(lengths, chosen) == best


def test_thousands_of_lengths_are_chosen_from_quickly_and_almost_as_well():
    lengths = Lengths.of(range(1, 20_001))
    chosen = choose_lengths(lengths, 10)
    even = [(2000 * place,) for place in range(1, 11)]
    assert padded(lengths, chosen) <= 1.01 * padded(lengths, even)


def test_lengths_are_rounded_up_to_a_multiple():
    chosen = choose_lengths(Lengths.of([13, 50, 77]), 3, multiple=8)
    assert chosen == ((16,), (56,), (80,))


def test_sizes_of_images_are_cells_of_a_grid_that_cover_every_image():
    order = Random(1)
    sizes = [(order.randint(300, 800), order.randint(300, 1333)) for _ in range(500)]
    chosen = choose_lengths(Lengths.of(sizes), 9, multiple=32)
    assert 4 <= len(chosen) <= 9
    assert all(any(covers(one, size) for one in chosen) for size in sizes)
    assert all(one == chosen[-1] or not covers(one, chosen[-1]) for one in chosen)
    assert all(number % 32 == 0 for one in chosen for number in one)
    assert all(covers(chosen[-1], one) for one in chosen)
