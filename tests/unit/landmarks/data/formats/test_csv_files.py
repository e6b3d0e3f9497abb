"""CSV of points and DeepLabCut's CSV, and how films without splits are split."""

import numpy as np
import pytest
from made_formats import write_csv, write_deeplabcut, write_long_csv

from vramfit.errors import DataError
from vramfit.landmarks.data.formats import load_films, read_films
from vramfit.landmarks.data.formats.assemble import split_of_id, splits_of_ids


@pytest.fixture
def wide(sample_set, tmp_path):
    return write_csv(sample_set, tmp_path / "wide")


@pytest.fixture
def labels(sample_set, tmp_path):
    return write_deeplabcut(sample_set, tmp_path / "project")


def edit(path, change):
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    rows = change(rows) or rows
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")


def put(row, column, text):
    def change(rows):
        place = rows[0].index(column) if isinstance(column, str) else column
        rows[row][place] = text

    return change


def test_an_empty_cell_is_missing(wide):
    def forget(rows):
        for column in ("A_x", "A_y"):
            put(1, column, "")(rows)
        for column in ("ANS_x", "ANS_y"):
            put(1, column, "NaN")(rows)

    edit(wide / "points.csv", forget)
    points = load_films(wide, "train").films[0].points
    assert np.isnan(points[:2]).all()
    assert np.isfinite(points[2:]).all()


def test_semicolons_decimal_commas_and_byte_order_marks_are_welcome(wide):
    before = load_films(wide, "train").films[0]
    path = wide / "points.csv"
    text = path.read_text(encoding="utf-8").replace(",", ";").replace(".", ",").replace(",png", ".png")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    film = load_films(wide, "train").films[0]
    np.testing.assert_array_equal(film.points, before.points)
    assert film.pixel_size_mm == before.pixel_size_mm


def test_pixels_need_not_be_square(wide):
    edit(wide / "points.csv", put(1, "pixel_size_y", "0.5"))
    film = load_films(wide, "train").films[0]
    assert film.pixel_size_mm[1] == 0.5 != film.pixel_size_mm[0]


def test_raters_have_lines_of_their_own(wide):
    def double(rows):
        rows[0].append("rater")
        return [rows[0]] + [[*row, rater] for row in rows[1:] for rater in ("Senior", "Junior")]

    edit(wide / "points.csv", double)
    assert set(load_films(wide, "train", "junior").films[0].raters) == {"senior", "junior"}


def test_a_landmark_without_a_line_is_missing(sample_set, tmp_path):
    long = write_long_csv(sample_set, tmp_path / "long")
    edit(long / "points.csv", lambda rows: [row for row in rows if row[:2] != ["001", "N"]])
    films = load_films(long, "train")
    missing = [film.id for film in films.films if np.isnan(film.points[films.symbols.index("N")]).all()]
    assert missing == ["001"]


def test_a_row_of_all_films_gives_the_pixel_size(sample_set, tmp_path):
    long = write_long_csv(sample_set, tmp_path / "long")
    (long / "films.csv").write_text("film,pixel_size,split\n*,0.125,\n001,0.25,train\n")
    films = [film for film in read_films(long).films if film.split]
    assert [(film.id, film.pixel_size_mm) for film in films] == [("001", (0.25, 0.25))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(1, "A_x", "left"), r"points\.csv, line 2: landmark 'A' at 'left'.*correct the cell, or use --skip-bad"),
        (put(1, "A_x", ""), "line 2: landmark 'A' has only one of x and y"),
        (put(1, "A_x", "99999"), r"line 2: landmark 'A' at \(99999, .*outside"),
        (put(1, "pixel_size_x", "-1"), "line 2: its pixel size '-1'"),
        (lambda rows: [rows[0], rows[1], *rows[1:]], "line 3: film '001' is marked twice"),
        (put(1, "film", "none.png"), r"none\.png: the film cannot be read"),
    ],
)
def test_a_bad_line_is_one_sentence_or_skipped(wide, change, said):
    edit(wide / "points.csv", change)
    with pytest.raises(DataError, match=said):
        load_films(wide, "train")
    assert len(load_films(wide, "train", skip_bad=True).skipped) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: [[cell for cell in row if cell != "A_y"] for row in rows],
            "landmark 'A' has no column for its y",
        ),
        (lambda rows: [["no", *row[1:]] if number == 0 else row for number, row in enumerate(rows)], "no columns of"),
        (lambda rows: rows[:1], "no film is named"),
    ],
)
def test_a_bad_file_is_one_sentence(wide, change, said):
    edit(wide / "points.csv", change)
    with pytest.raises(DataError, match=said):
        read_films(wide / "points.csv", "csv")


@pytest.mark.parametrize("path_columns", [1, 3])
def test_deeplabcut_paths_take_one_column_or_three(sample_set, tmp_path, path_columns):
    project = write_deeplabcut(sample_set, tmp_path / "project", path_columns=path_columns)
    whole = load_films(project, "train")
    assert whole.films[0].id == "skull/001"
    assert all(film.path.is_file() for film in whole.films)
    one = read_films(project / "labeled-data" / "skull" / "CollectedData_Anna.csv")
    assert len(one.films) == 8
    assert all(film.path.is_file() for film in one.films)


def test_deeplabcut_empty_labels_are_missing_and_scorers_are_raters(labels):
    file = labels / "labeled-data" / "skull" / "CollectedData_Anna.csv"
    other = file.with_name("CollectedData_Ben.csv")
    other.write_text(file.read_text(encoding="utf-8").replace("Anna", "Ben"), encoding="utf-8")
    edit(other, lambda rows: [*rows[:3], [*rows[3][:3], "", "", *rows[3][5:]], *rows[4:]])
    film = load_films(labels, "train").films[0]
    assert set(film.raters) == {"anna", "ben"}
    assert np.isnan(film.raters["ben"][0]).all()
    np.testing.assert_array_equal(film.points, film.raters["anna"])


def test_deeplabcut_of_several_animals_has_landmarks_of_each(labels):
    before = load_films(labels, "train").films[0]
    file = labels / "labeled-data" / "skull" / "CollectedData_Anna.csv"
    animals = ["individuals", "", "", *["a"] * 4, *["b"] * 4]
    edit(file, lambda rows: [rows[0], [*animals, *["single"] * (len(rows[0]) - 11)], *rows[1:]])
    films = load_films(labels, "train")
    assert films.symbols[:5] == ("a A", "a ANS", "b B", "b Me", "N")
    np.testing.assert_array_equal(films.films[0].points, before.points)


def test_without_pixel_sizes_nothing_is_assumed(labels):
    (labels / "films.csv").unlink()
    marked = read_films(labels)
    split = marked.films[0].split
    films = marked.of_split(split)
    assert films.unit == "px"
    assert np.isnan([film.pixel_size_mm for film in films.films]).all()
    assert any("No film has a pixel size" in note for note in films.notes)


def test_films_without_splits_are_split_by_their_ids_and_keep_them(wide):
    edit(wide / "points.csv", lambda rows: [[*row[:1], *row[2:]] for row in rows])
    marked = read_films(wide)
    assert {film.id: film.split for film in marked.films} == splits_of_ids(film.id for film in marked.films)
    assert "drawn from its id" in marked.notes[0]


def test_a_film_keeps_its_split_when_others_go_and_no_split_is_empty():
    ids = [f"{number:03d}" for number in range(40)]
    assert splits_of_ids(ids) == {film_id: split_of_id(film_id) for film_id in ids}
    drawn_to_train = [film_id for film_id in ids if split_of_id(film_id) == "train"][:10]
    splits = splits_of_ids(drawn_to_train)
    assert splits == splits_of_ids(reversed(drawn_to_train))
    assert sorted(splits.values()) == ["test", *["train"] * 8, "valid"]
    assert splits_of_ids(drawn_to_train[:2]) == dict.fromkeys(drawn_to_train[:2], "train")


def test_a_set_without_a_split_says_what_to_do(wide):
    edit(wide / "points.csv", lambda rows: [rows[0], *([row[0], "train", *row[2:]] for row in rows[1:])])
    with pytest.raises(DataError, match="add a column `split` or use train --folds"):
        read_films(wide).of_split("valid")


def test_the_split_by_id_has_the_shares_it_says():
    splits = [split_of_id(f"{number:04d}") for number in range(4000)]
    assert splits.count("test") / 4000 == pytest.approx(0.15, abs=0.02)
    assert splits.count("valid") / 4000 == pytest.approx(0.15, abs=0.02)
    assert split_of_id("001") == "train"


def test_a_film_of_no_known_split_is_said(wide):
    edit(wide / "points.csv", put(1, "split", "holdout"))
    marked = read_films(wide)
    assert [found.kind for found in marked.findings] == ["unknown_split"]
    assert len(marked.of_split("train")) == 5
