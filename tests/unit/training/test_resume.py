"""What is said of a checkpoint that a run goes on from."""

from pathlib import Path

from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.training.resume import Resumed


def resumed(**config):
    options = LandmarkOptions(dataset_path=Path("films"), **config)
    content = {"config": options.plain(), "effective_batch": 6, "position": {"epoch": 2, "done": 12}}
    return Resumed(Path("latest.pth"), content)


def test_the_note_says_what_changes_the_result_and_nothing_else():
    options = LandmarkOptions(dataset_path=Path("films"), keep=1, vram="8GB", batch_size=12, weights="none")
    assert resumed().note(options, 6) == "Resumed from latest.pth: epoch 3, 12 of its samples done."
    options = LandmarkOptions(dataset_path=Path("films"), learning_rate=1e-4)
    assert resumed().note(options, 12).endswith("; changed: learning_rate 0.001 -> 0.0001, effective batch 6 -> 12.")
