"""Points in another unit, order or from another corner than the films' pixels are told by the films themselves."""

import json

import numpy as np
import pytest
from made_formats import write_coco

from vramfit.errors import DataError
from vramfit.landmarks.check.check import check_films
from vramfit.landmarks.check.coordinates import require_coordinates
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.sample.make import make_sample


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("films") / "set", films=24, height=240)


@pytest.fixture
def changed(films, tmp_path):
    """The set in COCO with every point changed by a function of x, y, width, height and pixel size."""

    def change(how, fewest=0):
        root = write_coco(films, tmp_path / "coco")
        for path in (root / "annotations").glob("*.json"):
            content = json.loads(path.read_text())
            for image, annotation in zip(content["images"], content["annotations"], strict=True):
                rows = np.reshape(annotation["keypoints"], (-1, 3))
                size = image["width"], image["height"], image["pixel_size_mm"][0]
                rows[:, 0], rows[:, 1] = how(rows[:, 0].copy(), rows[:, 1].copy(), *size)
                annotation["keypoints"] = rows.ravel().tolist()
            path.write_text(json.dumps(content))
        return root

    return change


WRONG = {
    "fractions": (lambda x, y, w, h, mm: (x / w, y / h), "wrong_unit", "as fractions of the film's width"),
    "per cent": (lambda x, y, w, h, mm: (100 * x / w, 100 * y / h), "wrong_unit", "as per cent"),
    "half resolution": (lambda x, y, w, h, mm: (x / 2, y / 2), "wrong_unit", "pixels of the films at about 0.5 times"),
    "quarter resolution": (
        lambda x, y, w, h, mm: (x / 4, y / 4),
        "wrong_unit",
        "pixels of the films at about 0.25 times",
    ),
    "tenths of fractions": (lambda x, y, w, h, mm: (x / w / 10, y / h / 10), "wrong_unit", "is their unit pixels"),
    "swapped": (lambda x, y, w, h, mm: (y, x), "swapped_axes", "x and y swapped"),
    "bottom": (lambda x, y, w, h, mm: (x, h - 1 - y), "wrong_origin", "origin at the bottom left"),
    "right": (lambda x, y, w, h, mm: (w - 1 - x, y), "wrong_origin", "origin at the top right"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_coordinates_are_named(changed, wrong):
    how, kind, said = WRONG[wrong]
    root = changed(how)
    found = [each for each in check_films(root).findings if each.kind in ("wrong_unit", "swapped_axes", "wrong_origin")]
    assert [each.kind for each in found] == [kind]
    assert said in found[0].message
    marked = read_films(root)
    symbols = [landmark.symbol for landmark in marked.landmarks]
    with pytest.raises(DataError, match=said):
        require_coordinates(marked.films, symbols, root)


def test_millimetres_are_named(changed):
    def millimetres(x, y, width, height, mm):
        # As on films of 0.4 mm: those of the sample have larger pixels, whose millimetres lie outside.
        return x * 0.4, y * 0.4

    found = [each for each in check_films(changed(millimetres)).findings if each.kind == "wrong_unit"]
    assert len(found) == 1


def test_millimetres_of_the_sets_own_pixel_sizes_are_named(films, tmp_path):
    root = write_coco(films, tmp_path / "coco")
    for path in (root / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        for image, annotation in zip(content["images"], content["annotations"], strict=True):
            image["pixel_size_mm"] = 0.3
            rows = np.reshape(annotation["keypoints"], (-1, 3)) * [0.3, 0.3, 1]
            annotation["keypoints"] = rows.ravel().tolist()
        path.write_text(json.dumps(content))
    (found,) = [each for each in check_films(root).findings if each.kind == "wrong_unit"]
    assert "as millimetres" in found.message


def test_right_coordinates_are_let_be(changed):
    root = changed(lambda x, y, w, h, mm: (x + 2, y - 2))
    assert check_films(root).findings == ()
