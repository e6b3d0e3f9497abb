"""The guide's own line: what it promised, what is known now, the plan and why."""

from types import SimpleNamespace

import pytest

from vramfit.cli.main import main
from vramfit.cli.tasks import LANDMARKS
from vramfit.errors import VramfitError
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.report.guide import guide_note
from vramfit.landmarks.training.task import FilmTask
from vramfit.records import Plan
from vramfit.shipped import load_profile


def test_the_guide_s_line_is_told_in_one_place():
    profile = load_profile("rtx3070ti-768")
    note = guide_note(LandmarkJobOptions(image_size=(768, 768)), None, 6)
    trial = profile.trial(profile.plan.micro_batch)
    for said in ("7.5-8 GB, 12-16 h", f"{trial.device_used_bytes / 2**30:.2f}", "for 200 epochs", "the plan is"):
        assert said in note
    assert "loader" in note


def test_the_plan_says_how_its_batch_is_made():
    profile = load_profile("rtx3070ti-768")
    split = profile.model_copy(update={"plan": Plan(micro_batch=3, accumulation_steps=2, objective="largest")})
    assert "2 micro-batches of 3 a step" in guide_note(LandmarkJobOptions(), split, 6)


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        (LandmarkJobOptions(), 12),
        (LandmarkJobOptions(image_size=(768, 512)), 6),
        (LandmarkJobOptions(model="hrnet_w18"), 6),
        (LandmarkJobOptions(image_size=(640, 640)), 6),
    ],
)
def test_other_runs_are_not_the_guide_s(options, batch):
    assert guide_note(options, load_profile("rtx3070ti-768"), batch) is None


@pytest.mark.parametrize("follows", [True, False])
def test_only_who_comes_from_the_guide_is_told_of_it(follows):
    run = SimpleNamespace(follows_guide=follows, options=LandmarkJobOptions())
    assert bool(FilmTask.plan_notes(run, None, 6)) == follows


@pytest.mark.parametrize(
    ("words", "follows"),
    [
        ("--image_size 768 768 --batch_size 6 --mixed_precision --save_dir checkpoints_768x768", True),
        ("--profile rtx3070ti-768 --batch_size 6 --mixed_precision", True),
        ("--image-size 768", False),
        ("--batch-size 6 --amp fp16", False),
        ("--mixed-precision", False),
    ],
)
def test_the_guide_s_lines_are_known_by_how_they_are_written(monkeypatch, words, follows):
    asked = []

    def load():
        def run(options, _listeners):
            asked.append(options)
            raise VramfitError("it is not trained")

        return run

    monkeypatch.setattr(type(LANDMARKS), "load", lambda _: load())
    with pytest.raises(SystemExit):
        main(["train", "--dataset_path", "Aariz", *words.split()])
    assert asked[0].follows_guide == follows
