"""`--config FILE`: options from YAML or TOML, what is typed counts more, and a run's own file repeats it."""

import json
from dataclasses import replace

import pytest

from vramfit.cli import tasks
from vramfit.cli.probe_request import Case
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.training.listeners import RunStart, RunSummary
from vramfit.training.run_folders import RUN_FILE


@pytest.fixture
def asked(monkeypatch):
    """The cases that reach the engine, which answers none."""
    cases = []

    def answer(self, on_trial, frontier=None):
        cases.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Case, "answer", answer)
    return cases


@pytest.fixture
def trained(monkeypatch):
    """The options of runs that begin and end at once."""
    seen = []

    def train(options, listeners):
        seen.append(options)
        places = {"save_dir": options.save_dir, "log_dir": None}
        counts = dict.fromkeys(("samples", "validation_samples", "epochs", "first_epoch", "steps_per_epoch"), 1)
        sizes = dict.fromkeys(("effective_batch", "micro_batch", "world_size"), 1)
        start = RunStart(model="m", device="CPU", **counts, **sizes, **places)
        for listener in listeners[:2]:
            listener.on_start(start)
        return RunSummary(
            epochs=1, best_epoch=None, best_metrics={}, best_loss=1.0, duration_s=1.0, save_dir=options.save_dir
        )

    monkeypatch.setattr(tasks.TaskKind, "load", lambda self: train)
    return seen


YAML = "gpu: [rtx3060, t4]\nimage_size: 512\nbatch-sizes: [6, 5]\namp: off\nchannels_last: true\nvram: 6GB\n"
TOML = """
gpu = ["rtx3060", "t4"]
imgsz = [512, 512]
batch-sizes = "6,5"
amp = "off"
channels-last = true
vram = "6GB"
"""


@pytest.mark.parametrize(("name", "text"), [("run.yaml", YAML), ("run.toml", TOML)], ids=["yaml", "toml"])
def test_a_file_gives_options_and_what_is_typed_counts_more(vramfit, asked, tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    vramfit("probe", "--vram", "4GB", "--config", str(tmp_path / name))
    case = asked[0]
    assert (case.label, case.image_size, case.amp, case.channels_last) == ("rtx3060", (512, 512), "off", True)
    assert case.request.batch_sizes == (6, 5)
    assert case.request.limits.vram_bytes == 4 * 2**30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_sise: 3\n", "no option 'batch_sise'; near: batch-size"),
        ("- a\n- b\n", "no names of options"),
        ("a: [\n", "no YAML"),
        ("vram: 8 bananas\n", "8 bananas"),
        ("epochs: 0\n", "--epochs"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(vramfit, asked, tmp_path, text, said):
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    outcome = vramfit("probe", "--config", str(file))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err
    assert vramfit("probe", "--config", str(tmp_path / "absent.yaml")).code == 2


def test_a_run_is_repeated_from_the_file_in_its_folder(vramfit, trained, tmp_path):
    words = ("--dataset-path", str(tmp_path), "--image-size", "512", "640", "--amp", "off", "--freeze", "stem,stage1")
    words += ("--batch", "3", "--grad-accum", "2", "--no-pin-memory", "--workers", "2", "-o", str(tmp_path / "run"))
    assert vramfit("train", *words, "--resume").code == 0
    assert trained[0].batch_size == 6
    file = tmp_path / "run" / RUN_FILE
    assert vramfit("train", "--config", str(file)).code == 0
    assert trained[1] == replace(trained[0], resume=None)
    assert isinstance(trained[1], LandmarkOptions)
    assert vramfit("train", "--config", str(file), "--lr", "0.5").code == 0
    assert trained[2] == replace(trained[1], learning_rate=0.5)


def test_a_file_names_the_task(vramfit, trained, tmp_path):
    words = ("--task", "classify", "--dataset-path", str(tmp_path), "--batch-size", "4", "-o", str(tmp_path / "run"))
    assert vramfit("train", *words).code == 0
    outcome = vramfit("train", "--config", str(tmp_path / "run" / RUN_FILE), "--json")
    assert json.loads(outcome.out)["save_dir"] == str(tmp_path / "run")
    assert trained[1] == trained[0]
