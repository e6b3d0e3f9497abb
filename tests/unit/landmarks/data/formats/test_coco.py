import json
import re

import numpy as np
import pytest
from made_formats import write_coco

from vramfit.errors import DataError
from vramfit.landmarks.data.formats import load_films, read_films
from vramfit.landmarks.data.image import read_film


@pytest.fixture
def coco(sample_set, tmp_path):
    return write_coco(sample_set, tmp_path / "coco")


@pytest.fixture
def edit(coco):
    def change(how, split="train"):
        path = coco / "annotations" / f"{split}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        how(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return change


def test_visibility_0_is_missing_whatever_stands_there(coco, edit):
    def hide(content):
        content["annotations"][0]["keypoints"][3:6] = [11, 12, 0]
        content["annotations"][0]["keypoints"][8] = 1

    before = load_films(coco, "train").films[0].points
    edit(hide)
    points = load_films(coco, "train").films[0].points
    assert np.isnan(points[1]).all()
    np.testing.assert_array_equal(np.delete(points, 1, axis=0), np.delete(before, 1, axis=0))


def test_pixel_sizes_of_all_stand_in_info_and_an_images_own_comes_first(coco, edit):
    def move(content):
        content["info"]["pixel_size_mm"] = 0.25
        for image in content["images"][1:]:
            del image["pixel_size_mm"]
        content["images"][0]["pixel_size_mm"] = [0.1, 0.2]

    edit(move)
    sizes = [film.pixel_size_mm for film in load_films(coco, "train").films]
    assert sizes == [(0.1, 0.2)] + [(0.25, 0.25)] * 5


def test_one_file_with_a_split_in_each_image(coco, edit):
    def name(content):
        for number, image in enumerate(content["images"]):
            image["split"] = ("val", "test", "train")[number % 3]
            image["file_name"] = f"train/{image['file_name']}"

    edit(name)
    file = coco / "annotations" / "train.json"
    file.rename(coco / "annotations" / "all.json")
    marked = read_films(coco / "annotations" / "all.json")
    assert [film.split for film in marked.films] == ["valid", "test", "train"] * 2
    assert not marked.notes
    assert len(marked.of_split("valid")) == 2


def test_landmarks_are_joined_by_name_across_files(coco, edit):
    def turn(content):
        content["categories"][0]["keypoints"].reverse()
        for annotation in content["annotations"]:
            rows = np.reshape(annotation["keypoints"], (-1, 3))[::-1]
            annotation["keypoints"] = rows.ravel().tolist()

    before = load_films(coco, "valid").films[0].points
    edit(turn, "valid")
    np.testing.assert_array_equal(load_films(coco, "valid").films[0].points, before)


def test_two_raters_of_an_image_are_two_raters(coco, edit):
    def add(content):
        first = content["annotations"][0]
        moved = [value + 2 * (place % 3 == 0) for place, value in enumerate(first["keypoints"])]
        content["annotations"].append({**first, "id": 99, "rater": "Junior", "keypoints": moved})
        first["rater"] = "Senior"

    edit(add)
    film = load_films(coco, "train").films[0]
    assert set(film.raters) == {"junior", "senior"}
    np.testing.assert_allclose(film.points, film.raters["senior"] + np.array([1, 0]))


def spoil(what):
    def change(content):
        image, annotation = content["images"][0], content["annotations"][0]
        if what == "short":
            annotation["keypoints"].pop()
        elif what == "twice":
            content["annotations"].append({**annotation, "id": 99})
        elif what == "words":
            annotation["keypoints"][0] = "left"
        elif what == "unmarked":
            content["annotations"].pop(0)
        elif what == "no size":
            del image["pixel_size_mm"]
        elif what == "bad size":
            image["pixel_size_mm"] = [0.1, 0]
        elif what == "resized":
            image["width"] *= 2

    return change


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("short", r"annotation 1: its keypoints are 86 numbers where 29 of"),
        ("twice", r"annotation 99: film '001' is marked twice"),
        ("words", r"annotation 1: could not convert"),
        ("unmarked", r"001\.png: no rater has marked"),
        ("no size", r"001\.png: the size of its pixels in mm is unknown; add it in a column `pixel_size`"),
        ("bad size", r"image 1: its pixel_size_mm is neither"),
        ("resized", r"001\.png: it has \d+x128 pixels where its set says"),
    ],
)
def test_a_bad_film_is_one_sentence_or_skipped(coco, edit, what, said):
    edit(spoil(what))
    with pytest.raises(DataError, match=said) as caught:
        load_films(coco, "train")
    assert re.search("--skip-bad", str(caught.value))
    rest = load_films(coco, "train", skip_bad=True)
    assert [skipped.id for skipped in rest.skipped] == ["001"]
    assert len(load_films(coco, "valid")) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["categories"].clear(), "0 categories with names"),
        (lambda content: content["categories"][0]["keypoints"].__setitem__(1, "A"), "two of its keypoints"),
        (lambda content: content["images"].clear(), "no film of the split 'train'"),
    ],
)
def test_a_bad_file_is_one_sentence(coco, edit, change, said):
    edit(change)
    with pytest.raises(DataError, match=said):
        load_films(coco, "train")


def test_annotations_of_no_image_and_of_other_categories_stop_nothing(coco, edit):
    def add(content):
        content["annotations"].append({**content["annotations"][0], "id": 98, "image_id": 1234})
        content["annotations"].append({"id": 99, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5]})

    edit(add)
    assert [found.kind for found in read_films(coco).findings] == ["orphan_annotation"]
    assert len(load_films(coco, "train")) == 6


def test_nested_keypoints_are_read(coco, edit):
    def nest(content):
        for annotation in content["annotations"]:
            annotation["keypoints"] = np.reshape(annotation["keypoints"], (-1, 3)).tolist()

    before = load_films(coco, "train").films[0].points
    edit(nest)
    np.testing.assert_array_equal(load_films(coco, "train").films[0].points, before)


def test_categories_of_the_same_keypoints_are_one_set(coco, edit):
    def divide(content):
        content["categories"].append({**content["categories"][0], "id": 8, "name": "child"})
        content["categories"].append({"id": 0, "name": "skulls", "supercategory": "none"})
        content["annotations"][2]["category_id"] = 8

    edit(divide)
    assert len(load_films(coco, "train")) == 6


def test_categories_of_other_keypoints_are_refused(coco, edit):
    edit(lambda content: content["categories"].append({"id": 8, "name": "hand", "keypoints": ["wrist"]}))
    with pytest.raises(DataError, match="2 categories with names of keypoints"):
        load_films(coco, "train")


def test_keypoints_without_names_are_numbered_and_said(coco, edit):
    for split in ("train", "valid", "test"):
        edit(lambda content: content["categories"][0].update(keypoints=[]), split)
    marked = read_films(coco)
    assert [landmark.symbol for landmark in marked.landmarks] == [str(number) for number in range(1, 30)]
    assert "train.json names no landmarks: they are called 1 to 29, in their order." in marked.notes


def test_annotations_without_keypoints_mark_nothing(coco, edit):
    edit(lambda content: content["annotations"][0].update(keypoints=[]))
    with pytest.raises(DataError, match=r"001\.png: no rater has marked this film"):
        load_films(coco, "train")


def test_roboflows_folders_are_splits(coco, tmp_path):
    root = tmp_path / "roboflow"
    for split in ("train", "valid", "test"):
        (root / split).mkdir(parents=True)
        for film in (coco / "images" / split).iterdir():
            film.rename(root / split / film.name)
        (coco / "annotations" / f"{split}.json").rename(root / split / "_annotations.coco.json")
    marked = read_films(root)
    assert [len(marked.of_split(split)) for split in ("train", "valid", "test")] == [6, 1, 1]
    assert len(read_films(root / "valid" / "_annotations.coco.json").films) == 1


@pytest.mark.parametrize("sentinel", [(-1, -1), (0, 0), (-999, -999)])
@pytest.mark.parametrize("share", [0.05, 1.0])
def test_sentinels_are_missing_and_said(coco, edit, sentinel, share):
    def hide(content):
        for annotation in content["annotations"][: max(1, round(share * len(content["annotations"])))]:
            annotation["keypoints"][:3] = [*sentinel, 2]

    edit(hide)
    marked = read_films(coco)
    films = marked.of_split("train").films
    assert np.isnan(films[0].points[0]).all()
    assert np.isfinite(films[0].points[1:]).all()
    count = 1 if share < 1 else 6
    point = "1 point is" if count == 1 else "6 points are"
    assert f"{point} at ({sentinel[0]}, {sentinel[1]}), which is read as missing: 'A' {count}." in marked.notes


def test_subjects_of_one_image_are_films_of_their_own(coco, edit, monkeypatch, tmp_path):
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path / "cache"))

    def divide(content):
        first = content["annotations"][0]
        rows = np.reshape(first["keypoints"], (-1, 3))
        low, high = rows[:, 1] < 64, rows[:, 1] >= 64
        content["annotations"][0] = {**first, "keypoints": (rows * low[:, None]).ravel().tolist()}
        second = (rows * high[:, None]).ravel().tolist()
        content["annotations"].append({**first, "id": 98, "keypoints": second})

    whole = load_films(coco, "train").films[0]
    picture = read_film(whole.path)
    before = {path: path.read_bytes() for path in coco.rglob("*") if path.is_file() and path.name != "train.json"}
    edit(divide)
    marked = read_films(coco)
    assert any("7 films of 6 images" in note for note in marked.notes)
    films = {film.id: film for film in marked.of_split("train").films}
    assert {"001_1", "001_2"} <= set(films)
    assert len(films) == 7
    for name in ("001_1", "001_2"):
        film = films[name]
        crop = read_film(film.path)
        shape = crop.shape
        assert crop.shape[::-1] == film.size
        k = int(np.flatnonzero(np.isfinite(film.points).all(axis=1))[0])
        offset = np.round(whole.points[k] - film.points[k]).astype(int)
        np.testing.assert_array_equal(crop, picture[offset[1] : offset[1] + shape[0], offset[0] : offset[0] + shape[1]])
    assert before == {path: path.read_bytes() for path in before}
