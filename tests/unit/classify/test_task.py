"""The second task: a folder of images, a timm model, and the engine's whole run."""

import numpy as np
import pytest
import torch
from PIL import Image

from vramfit.classify.data import read_classes
from vramfit.classify.options import ClassifyOptions
from vramfit.classify.task import open_images, train
from vramfit.errors import DataError
from vramfit.training import checkpoint
from vramfit.training.listeners import Listener


def draw(folder, name, shade, seed):
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 60, (40, 36, 3))
    Image.fromarray((shade + noise).astype(np.uint8)).save(folder / f"{name}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Dark and bright images, ten of each."""
    root = tmp_path_factory.mktemp("images")
    for number in range(10):
        draw(root / "dark", number, 20, number)
        draw(root / "bright", number, 180, 100 + number)
    return root


def options(images, folder, **changes):
    chosen = {
        "dataset_path": images,
        "model": "timm:resnet18",
        "image_size": (32, 32),
        "weights": "none",
        "amp": None,
        "epochs": 2,
        "warmup_epochs": 0,
        "batch_size": 4,
        "num_workers": 0,
        "device": "cpu",
        "save_dir": folder / "run",
        "log_dir": folder / "logs",
    }
    return ClassifyOptions(**{**chosen, **changes})


class Ear(Listener):
    def __init__(self):
        self.records = []

    def on_epoch(self, record):
        self.records.append(record)


def test_one_image_in_five_of_each_class_validates(images):
    classes, training, validation = read_classes(images, seed=0)
    assert classes == ("bright", "dark")
    assert sorted(number for _, number in training) == [0] * 8 + [1] * 8
    assert sorted(number for _, number in validation) == [0, 0, 1, 1]
    assert not {path for path, _ in training} & {path for path, _ in validation}
    assert read_classes(images, seed=1)[2] != validation


def test_split_folders_are_taken_as_they_are(tmp_path):
    for split, seed in (("train", 0), ("val", 10)):
        for shade, name in ((20, "dark"), (180, "bright")):
            draw(tmp_path / split / name, "a", shade, seed + shade)
    _, training, validation = read_classes(tmp_path, seed=0)
    assert {path.parts[-3] for path, _ in training} == {"train"}
    assert {path.parts[-3] for path, _ in validation} == {"val"}


def test_an_images_changes_follow_from_seed_epoch_and_index_alone(images, tmp_path):
    samples = open_images(options(images, tmp_path)).training
    before = torch.random.get_rng_state()
    first, _ = samples.fetch(0, [3, 5])
    torch.rand(7)
    torch.random.set_rng_state(before)
    assert torch.equal(samples.fetch(0, [5])[0][0], first[1])
    assert not torch.equal(samples.fetch(1, [5])[0][0], first[1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_learns_keeps_its_metrics_and_resumes(images, tmp_path):
    ear = Ear()
    summary = train(options(images, tmp_path, epochs=3), [ear])
    assert [set(record.metrics) for record in ear.records] == [{"top1", "top5"}] * 3
    assert ear.records[-1].metrics["top5"] == 1.0
    assert summary.best_metrics["top1"] == max(record.metrics["top1"] for record in ear.records)
    assert summary.best_words.startswith("top-1 ")
    content = checkpoint.load(tmp_path / "run" / checkpoint.LATEST)
    assert content["task"]["classes"] == ["bright", "dark"]

    more = train(options(images, tmp_path, epochs=4, resume="latest"))
    assert more.epochs == 4
    assert more.history[:3] == tuple(ear.records)
    assert train(options(images, tmp_path, epochs=4, resume="latest")).finished_before


def test_an_oom_splits_the_batch_as_for_any_task(images, tmp_path, monkeypatch):
    import vramfit.classify.task as module

    whole, most = module.backbone_job, []

    def job(*args, **kwargs):
        from dataclasses import replace

        made = whole(*args, **kwargs)

        def loss(outputs, targets):
            if len(targets) > 2:
                most.append(len(targets))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return made.loss(outputs, targets)

        return replace(made, loss=loss)

    monkeypatch.setattr(module, "backbone_job", job)
    summary = train(options(images, tmp_path, epochs=1))
    assert summary.oom_events[0].micro_batch_after == 2
    assert most


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_classes(tmp_path / "none", 0)
    with pytest.raises(DataError, match="a folder of images for each class is needed"):
        read_classes(tmp_path, 0)
    for number in range(5):
        draw(tmp_path / "a", number, 20, number)
        draw(tmp_path / "b", number, 90, number)
    (tmp_path / "a" / "0.png").write_bytes(b"no image")
    samples = open_images(options(tmp_path, tmp_path))
    broken = next(one for one in (samples.training, samples.validation) if (tmp_path / "a" / "0.png", 0) in one.entries)
    with pytest.raises(DataError, match=r"0\.png: cannot be read"):
        broken.fetch(0, range(len(broken)))
