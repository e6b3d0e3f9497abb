"""DeepLabCut's HDF5, written here as pandas lays out a frame in PyTables' fixed format."""

import csv
import sys

import numpy as np
import pytest
from made_formats import write_deeplabcut

from vramfit.errors import DataError
from vramfit.landmarks.data.formats import load_films, read_films

h5py = pytest.importorskip("h5py")


def write_axis(group, axis, entries):
    """Levels and the places of the entries in them; of a single level its texts alone."""
    if len(entries[0]) == 1:
        group[axis] = [entry[0].encode() for entry in entries]
        return
    group.attrs[f"{axis}_nlevels"] = len(entries[0])
    for level, names in enumerate(zip(*entries, strict=True)):
        known = sorted(set(names))
        group[f"{axis}_level{level}"] = [name.encode() for name in known]
        group[f"{axis}_label{level}"] = np.array([known.index(name) for name in names], np.int8)


def to_h5(table, path_columns):
    """The CSV as HDF5, its columns in another order in the block than on the axis, and the CSV removed."""
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    heads = [row for row in rows[:4] if row[0] in {"scorer", "individuals", "bodyparts", "coords"}]
    data = rows[len(heads) :]
    columns = list(zip(*(head[path_columns:] for head in heads), strict=True))
    values = np.array([[float(cell or "nan") for cell in row[path_columns:]] for row in data])
    with h5py.File(table.with_suffix(".h5"), "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["nblocks"] = 1
        order = np.arange(len(columns))[::-1]
        write_axis(group, "axis0", columns)
        write_axis(group, "block0_items", [columns[place] for place in order])
        write_axis(group, "axis1", [tuple(row[:path_columns]) for row in data])
        group["block0_values"] = values[:, order]
    table.unlink()


@pytest.fixture
def table(sample_set, tmp_path):
    return write_deeplabcut(sample_set, tmp_path / "project") / "labeled-data" / "skull" / "CollectedData_Anna.csv"


def same(first, second):
    assert [film.id for film in first.films] == [film.id for film in second.films]
    assert first.symbols == second.symbols
    for one, other in zip(first.films, second.films, strict=True):
        np.testing.assert_array_equal(one.points, other.points)


@pytest.mark.parametrize("path_columns", [1, 3])
def test_it_says_what_the_csv_says(sample_set, tmp_path, path_columns):
    project = write_deeplabcut(sample_set, tmp_path / "project", path_columns=path_columns)
    before = load_films(project, "train")
    to_h5(project / "labeled-data" / "skull" / "CollectedData_Anna.csv", path_columns)
    same(load_films(project, "train"), before)
    one = read_films(project / "labeled-data" / "skull" / "CollectedData_Anna.h5")
    assert len(one.films) == 8


def test_several_animals_and_missing_points(table, tmp_path):
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    animals = ["individuals", "", "", *["a"] * 4, *["b"] * 4, *["single"] * (len(rows[0]) - 11)]
    rows[3][3:5] = ["", ""]
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], animals, *rows[1:]])
    project = table.parents[2]
    before = load_films(project, "train")
    to_h5(table, 3)
    after = load_films(project, "train")
    same(after, before)
    assert after.symbols[:3] == ("a A", "a ANS", "b B")
    assert np.isnan(after.films[0].points[0]).all()


def test_the_csv_beside_it_is_the_same_labels_and_read_once(table):
    text = table.read_text(encoding="utf-8")
    to_h5(table, 3)
    table.write_text(text, encoding="utf-8")
    assert all(len(film.annotations) == 1 for film in read_films(table.parents[2]).films)


def test_another_h5_and_a_missing_library_are_said(table, monkeypatch):
    to_h5(table, 3)
    file = table.with_suffix(".h5")
    with h5py.File(file, "a") as content:
        del content["df_with_missing/block0_values"]
    with pytest.raises(DataError, match="no labels of DeepLabCut can be read from it"):
        read_films(file)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs h5py; pip install 'vramfit-trainer\[h5\]'"):
        read_films(file)
