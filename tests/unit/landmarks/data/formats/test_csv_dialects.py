"""Numbers, encodings, delimiters and names of columns as people's programs write them."""

import math

import cv2
import numpy as np
import pytest

from vramfit.errors import DataError
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.data.formats.csv_columns import film_column, landmark_columns
from vramfit.landmarks.data.formats.csv_files import Numerals, is_foreign, read_rows, without_suffix


@pytest.mark.parametrize(
    ("cells", "text", "value"),
    [
        (["193,5", "45"], "193,5", 193.5),
        (["1,115", "964"], "1,115", 1115),
        (["1,115.5", "964"], "1,115.5", 1115.5),
        (["1.115,5", "964,25"], "1.115,5", 1115.5),
        (["12,115", "964", "1,200"], "12,115", 12115),
        (["193,125", "45,250"], "193,125", 193.125),  # three decimals each: 193 thousand pixels are none
        (["0,300"], "0,300", 0.3),
        (["1.115", "964"], "1.115", 1.115),  # one number with three decimals proves nothing
        (["1.115", "1.203", "1.310", "1.422", "2.001", "964"], "1.115", 1115),
        (["193.125", "200", "45.5"], "193.125", 193.125),
        (["1'115", "964"], "1'115", 1115),
        (["1 115", "964"], "1 115", 1115),
        (["1\u202f115,5", "964"], "1\u202f115,5", 1115.5),
        (["-1,115", "964"], "-1,115", -1115),
    ],
)
def test_thousands_and_decimals(cells, text, value):
    assert Numerals.of(cells).number(text) == value


@pytest.mark.parametrize("word", ["", "NaN", "nan", "NA", "null", "missing", "--", "?", "<NA>"])
def test_words_for_missing(word):
    assert math.isnan(Numerals.of([word]).number(word))


@pytest.mark.parametrize("word", ["left", "inf", "1,2,3", "1..5"])
def test_no_numbers(word):
    with pytest.raises(ValueError, match=r".*"):
        Numerals.of([word]).number(word)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encodings_and_delimiters(tmp_path, encoding, delimiter):
    rows = [["film", "Kiefer ä_x", "Kiefer ä_y"], ["a.png", "1", "2"]]
    path = tmp_path / "points.csv"
    path.write_bytes("\r\n".join(delimiter.join(row) for row in rows).encode(encoding))
    assert read_rows(path) == rows
    assert read_rows(path, most=1) == rows[:1]


def test_a_named_delimiter(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\nfilm;a, b;c\n")
    assert read_rows(tmp_path / "a.csv") == [["film", "a, b", "c"]]


def test_bytes_of_no_encoding_are_a_sentence(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"film,\x81\x8d\n\xff")
    with pytest.raises(DataError, match=r"cannot be read as UTF-8.*save it as UTF-8"):
        read_rows(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "columns",
    [
        ("S_x", "S_y", "N_x", "N_y"),
        ("x_S", "y_S", "x_N", "y_N"),
        ("S.X", "S.Y", "N.X", "N.Y"),
        ("S x", "S y", "N x", "N y"),
        ("S (x)", "S (y)", "N (x)", "N (y)"),
        ("S_x [px]", "S_y [px]", "N_x [px]", "N_y [px]"),
        ("S-x", "S-y", "N-x", "N-y"),
    ],
)
def test_ways_to_write_a_landmark_and_its_axis(columns):
    pairs = [{"x": columns[0], "y": columns[1]}, {"x": columns[2], "y": columns[3]}]
    assert landmark_columns(["film", "pixel_size_x", "pixel_size_y", "max", *columns]) == dict(
        zip("SN", pairs, strict=True)
    )


def test_numbered_landmarks():
    assert list(landmark_columns(["image", "x1", "y1", "x2", "y2"])) == ["1", "2"]
    assert list(landmark_columns(["file", "p1x", "p1y", "p2x", "p2y"])) == ["p1", "p2"]


@pytest.mark.parametrize(
    "name", ["image_path", "Image_Name", "file", "filename", "File Name", "ImageId", "img", "Path"]
)
def test_names_of_the_films_column(name):
    assert film_column(["split", name, "S_x"]) == name


def test_columns_that_were_looked_for_are_named(tmp_path):
    (tmp_path / "points.csv").write_text("subject,S_x,S_y\n1,2,3\n")
    with pytest.raises(DataError, match=r"film \(or image, file, .*it has subject, S_x, S_y"):
        read_films(tmp_path)


def test_paths_of_another_machine(tmp_path):
    film = np.full((8, 8), 90, dtype=np.uint8)
    (tmp_path / "a.PNG").write_bytes(cv2.imencode(".png", film)[1].tobytes())
    for path in ("C:\\Users\\Anna\\a.PNG", "/home/anna/films/a.png", "../films/a", "old/folder/a.PNG"):
        (tmp_path / "points.csv").write_text(f"film,S_x,S_y\n{path},2,3\n")
        assert read_films(tmp_path).films[0].path.samefile(tmp_path / "a.PNG"), path
    assert without_suffix("D:\\x\\b.png") == "b"
    assert without_suffix("x\\b.png") == "x/b"
    assert not is_foreign("x/b.png")
