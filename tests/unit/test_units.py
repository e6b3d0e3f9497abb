import pytest

from vramfit.errors import UsageError
from vramfit.units import GIB, MIB, format_duration, format_duration_range, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * GIB),
        ("8GiB", 8 * GIB),
        ("8G", 8 * GIB),
        ("8 gb", 8 * GIB),
        ("600MB", 600 * MIB),
        ("7.5G", 15 * GIB // 2),
        ("8 Gi", 8 * GIB),
        ("8gi", 8 * GIB),
        ("8,5GB", 17 * GIB // 2),
        (".5GB", GIB // 2),
        (",5 GB", GIB // 2),
        ("8 Go", 8 * GIB),
        ("512 Mio", 512 * MIB),
        ("0.5T", 512 * GIB),
        ("8589934592 B", 8 * GIB),
        ("1000000KB", 1000000 * 1024),
        ("\t12 GB\n", 12 * GIB),
    ],
)
def test_a_size_is_binary_however_it_is_written(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *(
            "8 bananas",
            "8",
            "",
            "GB",
            "-8GB",
            "0GB",
            "8GBB",
            "1e3",
            "nan",
            "8.GB",
            "8..5GB",
            "1,5,0GB",
            ".GB",
            "8 i",
            "8Gio8",
        ),
        *("300B", "10000000TB", "0,0001GB", "1023KB", "17T", "9" * 400 + "GB", "8,500MB", "1,000,000KB"),
    ],
)
def test_what_is_no_size_is_named(text):
    with pytest.raises(UsageError, match="not a memory size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "-"), (0, "0 MiB"), (600 * MIB, "600 MiB"), (15 * GIB // 2, "7.50 GiB"), (-2 * GIB, "-2.00 GiB")],
)
def test_sizes_read_well(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (float("inf"), "-"),
        (0.22, "220 ms"),
        (0.0098, "9.8 ms"),
        (0.00034, "0.34 ms"),
        (0.000021, "0.021 ms"),
        (8.14, "8.1 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (5520, "1 h 32 min"),
    ],
)
def test_durations_read_well(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.2071, 0.3792, "207-379 ms"),
        (0.8, 1.44, "0.8-1.4 s"),
        (36.2, 66.2, "36-66 s"),
        (720, 1090, "12-18 min"),
        (7210, 13200, "2 h 00-3 h 40"),
        (92, 151, "1.5-2.5 min"),
    ],
)
def test_ranges_of_durations_are_short(low, high, text):
    assert format_duration_range(low, high) == text
