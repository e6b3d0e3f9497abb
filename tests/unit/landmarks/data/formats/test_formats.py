"""One film set in every format is one film set; other packages' formats are found and their faults said."""

import re
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from made_formats import WRITERS, write_coco, write_csv

from vramfit.errors import DataError, UsageError
from vramfit.landmarks.data.formats import formats, load_films, read_films
from vramfit.landmarks.data.formats.aariz import read_annotation

FORMAT_OF = {"coco": "coco", "csv": "csv", "long csv": "csv", "deeplabcut": "deeplabcut"}

PLUGIN = """
from pathlib import Path
from vramfit.landmarks.data.formats import Annotation, Landmark, MarkedFilm, MarkedSet

class Tiny:
    name, title = "tiny", "Tiny"

    def detect(self, path):
        return path.suffix == ".tiny"

    def read(self, path):
        annotation = Annotation(str(path), (Landmark("S", "Sella"),), {"S": (3.0, 4.0)})
        film = MarkedFilm("one", "train", path.parent / "one.png", {"rater": annotation}, (0.1, 0.2))
        return MarkedSet(path, annotation.landmarks, (film,))
"""


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_reads_the_same_films(sample_set, tmp_path, kind):
    written = WRITERS[kind](sample_set, tmp_path / "Röntgen فیلم")
    marked = read_films(written)
    for split in ("train", "valid", "test"):
        ours, theirs = marked.of_split(split), load_films(sample_set, split, "senior")
        assert ours.symbols == theirs.symbols
        for mine, other in zip(ours.films, theirs.films, strict=True):
            assert mine.id.endswith(other.id)
            assert mine.path.read_bytes() == other.path.read_bytes()
            assert (mine.machine, mine.size, mine.pixel_size_mm) == (other.machine, other.size, other.pixel_size_mm)
            np.testing.assert_allclose(mine.points, other.points)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_format_is_detected_and_may_be_named(sample_set, tmp_path, kind):
    written = WRITERS[kind](sample_set, tmp_path / "films")
    assert [name for name, one in formats().items() if one.detect(written)] == [FORMAT_OF[kind]]
    assert len(read_films(written, FORMAT_OF[kind]).films) == 8
    with pytest.raises(UsageError, match=r"'cvs'.*aariz, coco, csv, deeplabcut"):
        read_films(written, "cvs")


def test_aariz_is_detected_alone(sample_set):
    assert [name for name, one in formats().items() if one.detect(sample_set)] == ["aariz"]


def test_a_folder_of_something_else_is_said(tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(DataError, match=r"no film set in a known format .*COCO.*DeepLabCut"):
        read_films(tmp_path)


def test_a_folder_in_two_formats_wants_a_choice(sample_set, tmp_path):
    write_coco(sample_set, tmp_path)
    write_csv(sample_set, tmp_path)
    with pytest.raises(DataError, match="--format coco, --format csv"):
        read_films(tmp_path)
    assert len(read_films(tmp_path, "csv").films) == 8


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package that offers a format, as pip leaves it on disk."""

    def install(module, source):
        site = tmp_path / "site"
        information = site / f"{module}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[vramfit.formats]\ntiny = {module}:Tiny\n")
        (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(site)

    yield install
    sys.modules.pop("tiny_films", None)


def test_another_packages_format_is_found(installed, tmp_path, sample_set):
    installed("tiny_films", PLUGIN)
    (tmp_path / "set.tiny").write_text("")
    (tmp_path / "one.png").write_bytes((sample_set / "train/Cephalograms/001.png").read_bytes())
    for film_format in (None, "tiny"):
        film = load_films(tmp_path / "set.tiny", "train", film_format=film_format).films[0]
        assert (film.id, film.pixel_size_mm, film.points.tolist()) == ("one", (0.1, 0.2), [[3.0, 4.0]])


def test_a_broken_package_is_named_and_does_not_stop_a_named_format(installed, sample_set):
    installed("broken_films", "raise RuntimeError('no such codec')")
    with pytest.raises(UsageError, match=r"broken_films:Tiny.*no such codec"):
        read_films(sample_set)
    assert read_films(sample_set, "aariz").films


def block(first):
    """The example of docs/formats.md whose first line begins so."""
    page = (Path(__file__).resolve().parents[5] / "docs" / "formats.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^    {re.escape(first)}.*\n(?:^    .*\n|^\n(?=    ))*", page, re.MULTILINE)
    return dedent(found).strip() + "\n"


@pytest.mark.parametrize(
    ("first", "file", "film", "film_format"),
    [
        ('{"images"', "train.json", "001", "coco"),
        ("film,split,pixel_size,S_x", "points.csv", "001", "csv"),
        ("film,symbol,x,y", "points.csv", "001", "csv"),
        ("scorer,", "CollectedData_Anna.csv", "skull/img001", "deeplabcut"),
    ],
)
def test_the_examples_of_the_page_are_read(tmp_path, first, file, film, film_format):
    (tmp_path / file).write_text(block(first), encoding="utf-8")
    (read,) = [one for one in read_films(tmp_path, film_format).films if one.id == film]
    assert read.faults == ()
    (annotation,) = read.annotations.values()
    assert annotation.positions["S"] == (310, 402)
    assert set(annotation.positions) == {"S", "N"}


def test_the_aariz_example_of_the_page_is_read(tmp_path):
    (tmp_path / "001.json").write_text(block('{"ceph_id"'), encoding="utf-8")
    annotation = read_annotation(tmp_path / "001.json")
    assert annotation.positions["S"] == (310, 402)
    assert annotation.missing(["S", "N"]) == ["N"]


def test_the_format_of_ones_own_of_the_page_works(installed, tmp_path):
    installed("tiny_films", block("# tiny_films.py"))
    (tmp_path / "set.tiny").write_text("")
    marked = read_films(tmp_path / "set.tiny")
    assert [landmark.symbol for landmark in marked.landmarks] == ["S", "N"]
    assert marked.films[0].annotations["rater"].missing(["S", "N"]) == ["N"]
