"""Training says which validation films it will learn, even if they were saved anew and resized."""

import cv2
from made_checkpoint import make_films, make_task

from vramfit.landmarks.data.image import read_film


def test_a_validation_film_among_the_training_films_is_said(tmp_path):
    films = make_films(tmp_path / "films")
    assert not any("Seen in training" in note for note in make_task(films, tmp_path / "cache").notes)
    source = min((films / "valid" / "Cephalograms").iterdir())
    target = films / "train" / "Cephalograms" / "001.png"
    height, width = read_film(target).shape
    target.write_bytes(cv2.imencode(".png", cv2.resize(read_film(source), (width, height)))[1].tobytes())
    notes = make_task(films, tmp_path / "cache").notes
    assert any(
        f"Seen in training, so that their errors tell little: validation films {source.stem} (001)." in note
        for note in notes
    )
