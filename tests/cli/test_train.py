"""`vramfit train` from end to end, on six small films and a CPU."""

import errno
import json
import math
import os
import signal
from io import StringIO

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vramfit import files
from vramfit.errors import UsageError
from vramfit.landmarks.model import job as landmark
from vramfit.landmarks.sample.make import make_sample
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.landmarks.training.task import FilmTask
from vramfit.landmarks.training.train import train
from vramfit.records import Profile
from vramfit.report.console import ConsoleListener
from vramfit.report.tracking import TensorBoardListener
from vramfit.training import checkpoint
from vramfit.training.task import Judgement

MODEL = "hrnet_w18_small"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Four films to train on, one to validate, one to test."""
    return make_sample(tmp_path_factory.mktemp("films") / "films", films=6, height=96)


@pytest.fixture
def run(vramfit, films, tmp_path):
    """Two epochs of two steps, unless told otherwise."""

    def run(*words):
        places = ["--save_dir", str(tmp_path / "run"), "--log_dir", str(tmp_path / "logs")]
        small = ["--image_size", "64", "64", "--weights", "none", "--device", "cpu", "--num_workers", "0"]
        size = ["--batch_size", "2", "--epochs", "2"]
        model = [] if "--model" in words else ["--model", MODEL]
        cache = ["--cache_dir", str(films.parent / "cache")]
        return vramfit("train", "--dataset_path", str(films), *small, *size, *model, *places, *cache, *words)

    return run


@pytest.fixture
def latest(tmp_path):
    return lambda: checkpoint.load(tmp_path / "run" / checkpoint.LATEST)


def losses(content):
    return [record["loss"] for record in content["position"]["history"]]


def interrupt_after(steps, monkeypatch):
    """Ctrl-C as soon as so many steps are done."""

    def on_progress(_self, _progress):
        done.append(1)
        if len(done) == steps:
            signal.raise_signal(signal.SIGINT)

    done = []
    monkeypatch.setattr(ConsoleListener, "on_progress", on_progress)


def test_ctrl_c_leaves_a_checkpoint_and_the_resumed_run_is_the_whole_one(run, latest, films, monkeypatch, tmp_path):
    assert run().code == 0
    whole = latest()
    assert _pictures(tmp_path) == {"films/005": [1, 2]}
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        outcome = run()
    assert outcome.code == 130
    assert outcome.err.strip() == "vramfit: interrupted"
    assert "held an earlier run" in outcome.out
    assert (latest()["position"]["epoch"], latest()["position"]["done"]) == (1, 2)
    _reverse_lists(films)  # landmarks are joined by name, in a resumed run too
    resumed = run("--resume", "--keep", "2")
    _reverse_lists(films)
    assert resumed.code == 0
    assert "checkpoint_latest.pth: epoch 2, 2 of its samples done." in resumed.out
    assert losses(latest()) == losses(whole)
    assert all(torch.equal(value, whole["model"][name]) for name, value in latest()["model"].items())
    _a_finished_run_has_nothing_to_do(run)


def _reverse_lists(films):
    for path in films.glob("*/Annotations/*/*/*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "landmarks": content["landmarks"][::-1]}))


def _pictures(folder):
    """The steps of each picture in the newest log."""
    log = EventAccumulator(str(max((folder / "logs").iterdir())))
    log.Reload()
    return {tag: [image.step for image in log.Images(tag)] for tag in log.Tags()["images"]}


def _a_finished_run_has_nothing_to_do(run):
    again = run("--resume")
    assert again.code == 0
    assert again.out.startswith("Nothing to do: the run finished its 2 epochs before. Best epoch:")
    other = run("--resume", "--model", "hrnet_w18")
    assert other.code == 7
    assert other.out == ""
    assert f"a checkpoint of another model ({MODEL};" in other.err


def test_a_full_disk_ends_the_run_and_spares_what_is_there(run, latest, monkeypatch, tmp_path):
    """There is room for the run's options and the first checkpoint alone."""
    sync, calls = os.fsync, []

    def refuse(number):
        calls.append(number)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(files.os, "fsync", refuse)
    outcome = run()
    assert outcome.code == 8
    assert "could not be written (No space left on device)" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert latest()["position"]["epoch"] == 0
    monkeypatch.undo()
    assert run("--resume", "--epochs", "1", "--log-images", "0").code == 0
    assert _pictures(tmp_path) == {}


def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoint(run, latest, monkeypatch):
    whole, calls = landmark.heatmap_loss, []

    def loss(outputs, targets):
        calls.append(1)
        # Two steps and a validation make the first epoch.
        return whole(outputs, targets) * (math.nan if len(calls) > 3 else 1)

    monkeypatch.setattr(landmark, "heatmap_loss", loss)
    outcome = run()
    assert outcome.code == 1
    assert "the loss became nan in epoch 2, step 1" in outcome.err
    assert latest()["position"]["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in latest()["model"].values())


def test_auto_batch_trains_as_the_same_batch_by_hand_does(films, tmp_path):
    """Planned for a card that is not here: the curve is the CPU's own, and no card's figures are compared with it."""
    found, said = _trained(films, tmp_path / "found", auto_batch=True, gpu="rtx3070ti", levers="none")
    effective = found.profile.plan.effective_batch
    by_hand, _ = _trained(films, tmp_path / "by_hand", batch_size=effective)
    assert [r.loss for r in found.history] == [r.loss for r in by_hand.history]
    assert [r.metrics["mre_mm"] for r in found.history] == [r.metrics["mre_mm"] for r in by_hand.history]
    assert (tmp_path / "found" / "profile.json").is_file()
    assert found.profile.plan.reason in said
    assert "Step time" not in said
    assert "VRAM" not in said


def test_an_oom_and_growing_back_are_told_on_the_console_in_tensorboard_and_in_the_profile(
    films, tmp_path, monkeypatch
):
    """Forward of the second step; the profile says so at once, for a run may be killed before its end."""

    def loss(outputs, targets):
        if profile.is_file():  # the step is traced before the run begins
            written.append(Profile.from_json(profile.read_text(encoding="utf-8")))
            if len(written) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(outputs, targets)

    whole, profile, written = landmark.heatmap_loss, tmp_path / "profile.json", []
    monkeypatch.setattr(landmark, "heatmap_loss", loss)
    summary, said = _trained(films, tmp_path, TensorBoardListener(), gpu="rtx3070ti", epochs=3, grow_back=True)
    assert "Out of memory in the forward of epoch 1, step 2: the same samples again in micro-batches of 1" in said
    assert "Epoch 2 had no OOM: from epoch 3 on micro-batches of 2 again, in place of 1." in said
    (event,), (growth,) = summary.oom_events, summary.grow_backs
    assert [len(kept.oom_events) for kept in written[:3]] == [0, 0, 1]
    assert (written[-1].oom_events, written[-1].grow_backs) == ((event,), (growth,))
    log = EventAccumulator(str(next((tmp_path / "logs").iterdir())))
    log.Reload()
    assert b"the same samples again" in log.Tensors("oom/text_summary")[0].tensor_proto.string_val[0]
    assert log.Tensors("grow_back/text_summary")[0].step == 3
    assert [one.value for one in log.Scalars("train/oom_events")] == [1, 0, 0]
    assert [one.value for one in log.Scalars("train/micro_batch")] == [1, 1, 2]


def _trained(films, folder, *listeners, **changes):
    out = StringIO()
    settings = {"epochs": 2, "batch_size": None if changes.get("auto_batch") else 2}
    options = LandmarkOptions(
        dataset_path=films,
        model=MODEL,
        image_size=(64, 64),
        weights="none",
        device="cpu",
        num_workers=0,
        save_dir=folder,
        log_dir=folder / "logs",
        cache_dir=films.parent / "cache",
        **{**settings, **changes},
    )
    console = ConsoleListener(Console(file=out, soft_wrap=True))
    return train(options, [console, *listeners]), out.getvalue()


def test_a_fold_is_fine_tuned_and_goes_on_only_as_it_began(run, latest, monkeypatch):
    monkeypatch.setattr(FilmTask, "judge", lambda _self, _rows: Judgement({"mre_mm": 5.0}, "mre_mm"))
    tuned = ("--freeze", "stem,stage1", "--backbone-lr-scale", "0.1", "--difficulty", "0.5", "--patience", "1")
    outcome = run(*tuned, "--epochs", "9", "--folds", "2", "--fold", "1")
    assert outcome.code == 0
    assert "Fold 1 of 2, dealt by seed 0:" in outcome.out
    assert "Done: 2 epochs" in outcome.out
    position, groups = latest()["position"], latest()["optimizer"]["param_groups"]
    assert len(position["running_errors"]) == 29
    assert len(groups) == 4, "weights that decay and that do not, of the head and of the backbone"
    for name, value in (("freeze", "stem"), ("seed", "1"), ("fold", "2"), ("backbone-lr-scale", "1")):
        refused = run(*tuned, "--folds", "2", "--fold", "1", f"--{name}", value, "--resume", "--epochs", "9")
        assert refused.code == 2
        assert f"--{name} is {value}" in refused.err
        assert "in the checkpoint; resume with its own" in refused.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--num-workers", "many"), "--num-workers many"),
        (("--lr", "0"), "--lr 0.0 makes no sense"),
        (("--fold", "1"), "--fold 1"),
        (("--folds", "2", "--fold", "3"), "--fold 3"),
        (("--artefacts", "10"), "--artefacts 10.0 is not a chance; use 0 to 1"),
        (("--auto-batch", "--profile", "rtx3070ti-768"), "--auto-batch and --profile"),
        (("--gpu", "rtx3090", "--profile", "rtx3070ti-768"), "--gpu and --profile"),
        (("--effective-batch", "6"), "--batch-size 2 and --effective-batch 6"),
        (("--mixed-precision", "--amp", "off"), "--amp off and --mixed-precision"),
        (("--no-mixed-precision", "--amp", "bf16"), "--amp bf16 and --no-mixed-precision"),
    ],
)
def test_options_that_contradict_each_other(run, words, named):
    outcome = run(*words)
    assert outcome.code == UsageError.exit_code == 2
    assert named in outcome.err
