"""Every fault planted in a copy of a clean set is found, and a clean set is called clean."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from damaged_films import FAULTS, MORE_FAULTS, Damage
from made_clips import CLIPS, write_clip
from made_formats import write_coco

from vramfit.errors import DataError
from vramfit.landmarks.check.check import check_films
from vramfit.landmarks.check.screen import screened
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.data.issues import KINDS
from vramfit.landmarks.sample.make import make_sample


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("clean") / "set", films=30, height=240)


@pytest.fixture
def damaged(clean, tmp_path):
    return Damage(shutil.copytree(clean, tmp_path / "set"))


def points_of(content, number):
    """The keypoints of an annotation as a list of its landmarks' [x, y, visibility]."""
    return np.reshape(content["annotations"][number]["keypoints"], (-1, 3)).tolist()


def put_points(content, number, rows):
    content["annotations"][number]["keypoints"] = np.ravel(rows).tolist()


def swap_points(content):
    rows = points_of(content, 3)
    rows[3], rows[14] = rows[14], rows[3]
    put_points(content, 3, rows)


COCO_FAULTS = {
    "wrong_size": lambda content: content["images"][2].update(width=5),
    "unknown_split": lambda content: content["images"][2].update(split="holdout"),
    "missing_point": lambda content: put_points(content, 2, [[0, 0, 0], *points_of(content, 2)[1:]]),
    "missing_annotation": lambda content: content["annotations"].pop(2),
    "missing_pixel_size": lambda content: content["images"][2].pop("pixel_size_mm"),
    "unreadable_annotation": lambda content: content["annotations"][2]["keypoints"].pop(),
    "orphan_annotation": lambda content: content["annotations"].append({**content["annotations"][2], "image_id": 999}),
    "unreadable_film": lambda content: content["images"][2].update(file_name="gone.png"),
    "swapped_points": swap_points,
}


def kinds(report):
    return {found.kind for found in report.findings}


def test_clean_set_has_no_finding(clean):
    report = check_films(clean)
    assert report.findings == ()
    assert report.errors == 0
    assert report.films == {"train": 22, "valid": 4, "test": 4}
    assert len(report.landmarks) == 29


@pytest.mark.parametrize("kind", FAULTS)
def test_planted_fault_is_found(damaged, kind):
    FAULTS[kind](damaged)
    found = [each for each in check_films(damaged.root).findings if each.kind == kind]
    assert found
    assert all("\n" not in each.message and not each.place.startswith("/") for each in found)


def test_every_kind_has_a_planted_fault():
    # A film of more than 100 million pixels is made by changing the limit instead.
    assert set(KINDS) == {*FAULTS, *COCO_FAULTS, "huge_film", "empty_split"}


def test_every_kind_is_on_the_page_as_it_is_meant():
    page = (Path(__file__).resolve().parents[4] / "docs" / "cli" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert {kind: (severity, meaning) for kind, severity, meaning in rows} == KINDS


@pytest.mark.parametrize("kind", COCO_FAULTS)
def test_planted_fault_is_found_in_another_format(clean, tmp_path, kind):
    root = write_coco(clean, tmp_path / "coco")
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    COCO_FAULTS[kind](content)
    path.write_text(json.dumps(content))
    assert [found.kind for found in check_films(root).findings] == [kind]


def test_huge_films_are_said(clean, monkeypatch):
    monkeypatch.setattr("vramfit.landmarks.check.films._HUGE_PIXELS", 1000)
    assert kinds(check_films(clean)) == {"huge_film"}


def test_all_faults_at_once_are_all_found(damaged):
    at_once = [
        "swapped_points",
        "raters_apart",
        "point_outside",
        "missing_pixel_size",
        "conflicting_rows",
        "wrong_mode",
    ]
    at_once += ["leaked_film", "unreadable_film", "missing_annotation", "mirrored_film", "orphan_row", "unknown_file"]
    for kind in at_once:
        FAULTS[kind](damaged)
    assert set(at_once) <= kinds(check_films(damaged.root))


def test_nothing_is_changed(damaged):
    before = {path: path.stat().st_mtime_ns for path in damaged.root.rglob("*")}
    check_films(damaged.root)
    assert {path: path.stat().st_mtime_ns for path in damaged.root.rglob("*")} == before


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        check_films(tmp_path / "nowhere")


@pytest.mark.shared
def test_real_films_have_no_error(shared_data):
    report = check_films(shared_data / "ceph100")
    assert report.errors == 0
    assert kinds(report) == {"raters_apart"}


@pytest.mark.parametrize(
    "kind", ["swapped_points", "coincident_points", "mirrored_film", "turned_film", "point_outside"]
)
def test_training_refuses_what_is_found_and_skips_it_where_asked(damaged, kind):
    FAULTS[kind](damaged)
    marked = screened(read_films(damaged.root))
    with pytest.raises(DataError, match="or use --skip-bad"):
        marked.of_split("train")
    assert len(marked.of_split("train", skip_bad=True).skipped) == 1


def test_training_refuses_points_in_another_unit(damaged):
    FAULTS["wrong_unit"](damaged)
    with pytest.raises(DataError, match="as fractions of the film's width and height"):
        screened(read_films(damaged.root))


def test_training_takes_a_clean_set_as_it_is(clean):
    marked = read_films(clean)
    assert screened(marked) is marked


@pytest.mark.parametrize("fault", MORE_FAULTS)
def test_faults_as_people_have_them_are_found(damaged, fault):
    kind, plant = MORE_FAULTS[fault]
    plant(damaged)
    assert kind in kinds(check_films(damaged.root))


@pytest.mark.parametrize("clip", CLIPS)
def test_frames_of_a_clip_are_no_fault(tmp_path, clip):
    report = check_films(write_clip(tmp_path / "clip", **CLIPS[clip]))
    assert report.findings == ()
    assert report.films["train"] > 30


def test_a_copy_of_a_frame_is_one(tmp_path):
    root = write_clip(tmp_path / "clip", **CLIPS["slow"])
    folder = root / "labeled-data" / "clip"
    shutil.copy(folder / "img003.png", folder / "img900.png")
    labels = folder / "CollectedData_Anna.csv"
    line = next(line for line in labels.read_text().splitlines() if "img003" in line)
    labels.write_text(labels.read_text() + line.replace("img003", "img900") + "\n")
    assert kinds(check_films(root)) <= {"repeated_film", "leaked_film"}
    assert len(check_films(root).findings) == 1


def test_one_file_of_several_is_checked_for_itself(clean, tmp_path):
    root = write_coco(clean, tmp_path / "coco")
    report = check_films(root / "annotations" / "train.json")
    assert report.findings == ()
    assert any("the split 'train' alone" in note for note in report.notes)


def test_a_split_that_training_needs_and_that_is_empty_is_said(clean, tmp_path):
    root = write_coco(clean, tmp_path / "coco")
    (root / "annotations" / "valid.json").unlink()
    assert kinds(check_films(root)) == {"empty_split"}
    with pytest.raises(DataError, match="no film of the split 'valid'"):
        read_films(root).of_split("valid")
