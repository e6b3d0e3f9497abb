"""What the options of a run make of its films."""

from dataclasses import replace

from vramfit.landmarks.loading.augment import preset
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.landmarks.training.train import FilmSource


def test_training_films_are_changed_as_the_options_say_and_those_to_judge_are_not(film_folder, tmp_path):
    options = LandmarkOptions(
        dataset_path=film_folder, image_size=(64, 64), cache_dir=tmp_path, augmentation="light", artefacts=0.3
    )
    task = FilmSource(options).open(None, lambda *_: None)
    assert task.training.dataset.augmentation == replace(preset("light"), artefacts=0.3)
    assert task.validation.dataset.augmentation is None
