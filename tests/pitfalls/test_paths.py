"""Paths of films, as people have them."""

import cv2
import numpy as np

from vramfit.landmarks.data.image import read_film


def test_a_film_is_read_by_a_path_that_is_not_ascii_and_never_by_imread(tmp_path, monkeypatch):
    """On Windows `cv2.imread` returns None for such a path, without an error."""
    folder = tmp_path / "Röntgen \u0639\u06a9\u0633"
    folder.mkdir()
    film = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
    path = folder / "cephalogram \u00e9.png"
    path.write_bytes(cv2.imencode(".png", film)[1].tobytes())
    monkeypatch.setattr(cv2, "imread", lambda *_: None)
    assert np.array_equal(read_film(path), film)
