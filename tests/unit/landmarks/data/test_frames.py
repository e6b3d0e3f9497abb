"""Frames of a clip are told from copies of one picture, however sure the one who marked them was."""

import cv2
import numpy as np
import pytest

from vramfit.landmarks.data.frames import moved_between

RANDOM = np.random.default_rng(0)
SCENE = cv2.normalize(cv2.GaussianBlur(RANDOM.random((240, 320)), (0, 0), 2.5), None, 60, 180, cv2.NORM_MINMAX)
THING = cv2.normalize(cv2.GaussianBlur(RANDOM.random((60, 50)), (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def frame(path, x, y):
    """A thing before a scene that stays, and its landmarks."""
    picture = SCENE.copy()
    picture[y : y + 60, x : x + 50] = THING
    path.write_bytes(cv2.imencode(".png", picture.astype(np.uint8))[1].tobytes())
    return path, {"a": (x + 12.0, y + 15.0), "b": (x + 35.0, y + 40.0), "c": (x + 25.0, y + 25.0)}


@pytest.mark.parametrize("step", [3, 4, 8, 50])
def test_what_moved_is_no_copy(tmp_path, step):
    one, other = frame(tmp_path / "1.png", 100, 90), frame(tmp_path / "2.png", 100 + step, 90)
    assert moved_between(*one, *other)


def test_a_copy_stays_one_though_it_was_marked_anew(tmp_path):
    (path, positions), other = frame(tmp_path / "1.png", 100, 90), tmp_path / "2.jpg"
    picture = cv2.resize(cv2.imdecode(np.fromfile(path, np.uint8), 0), None, fx=2, fy=2)
    other.write_bytes(cv2.imencode(".jpg", 0.8 * picture)[1].tobytes())
    again = {name: (2 * x + 4.5, 2 * y - 3) for name, (x, y) in positions.items()}
    assert not moved_between(path, positions, other, again)
    assert not moved_between(path, positions, path, positions)


def test_without_shared_landmarks_only_likeness_is_known(tmp_path):
    (path, positions), nowhere = frame(tmp_path / "1.png", 100, 90), (np.nan, np.nan)
    assert not moved_between(path, positions, path, {"other": (1.0, 1.0)})
    assert not moved_between(path, positions, path, dict.fromkeys(positions, nowhere))
    assert not moved_between(path, positions, tmp_path / "gone.png", positions)
