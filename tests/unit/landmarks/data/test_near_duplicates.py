"""A copy is known again whatever was done to its file; another skull is not taken for it."""

import cv2
import numpy as np
import pytest

from vramfit.landmarks.data.near_duplicates import SAME_PICTURE, SIDE, directions, thumbnail, twins


@pytest.fixture
def film():
    random = np.random.default_rng(0)
    clouds = cv2.GaussianBlur(random.normal(size=(300, 260)), (0, 0), 12)
    return np.round(255 * (clouds - clouds.min()) / np.ptp(clouds)).astype(np.uint8)


def cosine(first, second):
    one, other = directions(np.stack([thumbnail(first), thumbnail(second)]))
    return abs(float(one @ other))


def test_copies_show_the_same(film):
    jpeg = cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_GRAYSCALE)
    paler = (film * 0.8 + 20).astype(np.uint8)
    darker = (255 * (film / 255) ** 1.5).astype(np.uint8)
    for copy in (jpeg, paler, darker, 255 - film, cv2.resize(film, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)):
        assert cosine(film, copy) > SAME_PICTURE


def test_another_picture_does_not(film):
    assert cosine(film, film[:, ::-1]) < SAME_PICTURE
    assert cosine(film, np.roll(film, 12, axis=1)) < SAME_PICTURE


def test_twins_are_places_in_both():
    random = np.random.default_rng(1)
    films = directions(random.integers(0, 256, (5, SIDE, SIDE)).astype(np.uint8))
    assert list(twins(films[3:], films)) == [(0, 3), (1, 4)]


def test_a_blank_film_is_like_nothing(film):
    assert cosine(film, np.zeros_like(film)) == 0
