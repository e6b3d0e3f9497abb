"""Every fault planted in a copy of a clean set is found, and a clean set is called clean."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from made_formats import write_coco

from vramfit.errors import DataError
from vramfit.landmarks.check import check_films
from vramfit.landmarks.finding import KINDS
from vramfit.landmarks.formats.aariz import MACHINES_FILE
from vramfit.landmarks.image import read_film
from vramfit.landmarks.sample import make_sample

RATERS = "Annotations/Cephalometric Landmarks"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("clean") / "set", films=30, height=240)


@pytest.fixture
def damaged(clean, tmp_path):
    return Damage(shutil.copytree(clean, tmp_path / "set"))


class Damage:
    """A copy of a film set, and ways to spoil it."""

    def __init__(self, root):
        self.root = root

    def film(self, number, split="train"):
        return self.root / split / "Cephalograms" / f"{number:03d}.png"

    def mark(self, number, rater="Senior", split="train"):
        return self.root / split / RATERS / f"{rater} Orthodontists" / f"{number:03d}.json"

    def write(self, path, pixels):
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())

    def marks(self):
        """Number, rater and split of every annotation."""
        files = self.root.glob(f"*/{RATERS}/*/*.json")
        return [(int(file.stem), file.parent.name.split()[0], file.relative_to(self.root).parts[0]) for file in files]

    def edit(self, number, change, rater="Senior", split="train"):
        content = json.loads(self.mark(number, rater, split).read_text())
        places = {entry["symbol"]: entry["value"] for entry in content["landmarks"]}
        content = change(content, places) or content
        self.mark(number, rater, split).write_text(json.dumps(content))

    def table(self, pattern, replacement):
        path = self.root / MACHINES_FILE
        path.write_text(re.sub(pattern, replacement, path.read_text(), flags=re.MULTILINE))


def swap(content, places):
    first, second = dict(places["Go"]), dict(places["Me"])
    places["Go"].update(second)
    places["Me"].update(first)


def mirror(damage):
    width = read_film(damage.film(9)).shape[1]

    def turn(content, places):
        for value in places.values():
            value["x"] = width - 1 - value["x"]

    for rater in ("Junior", "Senior"):
        damage.edit(9, turn, rater)


def move(symbol, x, y):
    def change(content, places):
        places[symbol]["x"] += x
        places[symbol]["y"] += y

    return change


def forget(symbol):
    return lambda content, places: places[symbol].update(x=None)


def copy_film(damage, number, path):
    damage.write(path, read_film(damage.film(number)))


def new_film(damage, split, number):
    """A copy of film 4 under another id, marked like it and with a row of its own."""
    damage.write(damage.film(number, split).with_suffix(".jpg"), read_film(damage.film(4)))
    for rater in ("Junior", "Senior"):
        content = json.loads(damage.mark(4, rater).read_text())
        damage.mark(number, rater, split).write_text(json.dumps({**content, "ceph_id": f"{number:03d}"}))
    damage.table(r"\Z", f"{number:03d},M,1.0,jpg,{split}\n")


FAULTS = {
    "missing_folder": lambda d: shutil.rmtree(d.root / "test"),
    "unreadable_film": lambda d: d.film(2).write_bytes(d.film(2).read_bytes()[:3000]),
    "blank_film": lambda d: d.write(d.film(2), np.full_like(read_film(d.film(2)), 90)),
    "unknown_file": lambda d: (d.root / "train/Cephalograms/scan.dcm").write_bytes(b"DICM"),
    "doubled_film": lambda d: copy_film(d, 3, d.film(3).with_suffix(".bmp")),
    "repeated_film": lambda d: new_film(d, "train", 77),
    "leaked_film": lambda d: new_film(d, "test", 78),
    "mirrored_film": mirror,
    "missing_annotation": lambda d: [d.mark(5, rater).unlink() for rater in ("Junior", "Senior")],
    "missing_rater": lambda d: d.mark(5, "Junior").unlink(),
    "orphan_annotation": lambda d: shutil.copy(d.mark(5), d.mark(99)),
    "unreadable_annotation": lambda d: d.mark(5).write_text("{"),
    "wrong_id": lambda d: d.edit(6, lambda content, places: {**content, "ceph_id": "007"}),
    "wrong_landmarks": lambda d: d.edit(6, lambda content, places: content["landmarks"][1].update(symbol="Nn")),
    "missing_point": lambda d: d.edit(6, lambda content, places: places["N"].update(x=None)),
    "unmarked_landmark": lambda d: [d.edit(n, forget("N"), rater, split) for n, rater, split in d.marks()],
    "point_outside": lambda d: d.edit(6, move("N", 1500, 0)),
    "coincident_points": lambda d: d.edit(6, lambda content, places: places["N"].update(places["Ar"])),
    "swapped_points": lambda d: d.edit(7, swap),
    "outlying_point": lambda d: d.edit(7, move("PNS", -22, 14)),
    "raters_apart": lambda d: d.edit(8, move("B", -9, -9), "Junior"),
    "missing_pixel_size": lambda d: d.table(r"^(011,[^,]*),[^,]*", r"\1,"),
    "odd_pixel_size": lambda d: d.table(r"^(011,[^,]*),[^,]*", r"\1,0.3"),
    "conflicting_rows": lambda d: d.table(r"\Z", "012,Another,0.5,png,train\n"),
    "wrong_mode": lambda d: d.table(r"^(013,.*),train", r"\1,test"),
    "orphan_row": lambda d: d.table(r"\Z", "500,Another,0.5,png,train\n"),
}


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
    assert set(KINDS) == {*FAULTS, *COCO_FAULTS, "huge_film"}


@pytest.mark.parametrize("kind", COCO_FAULTS)
def test_planted_fault_is_found_in_another_format(clean, tmp_path, kind):
    root = write_coco(clean, tmp_path / "coco")
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    COCO_FAULTS[kind](content)
    path.write_text(json.dumps(content))
    assert [found.kind for found in check_films(root).findings] == [kind]


def test_huge_films_are_said(clean, monkeypatch):
    monkeypatch.setattr("vramfit.landmarks.check_films._HUGE_PIXELS", 1000)
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
