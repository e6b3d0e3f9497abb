"""Bad input ends with one clear sentence that names the thing, and the right exit code."""

import errno
import json
import shutil
from pathlib import Path

import pytest
from made_records import make_profile

from vramfit import files
from vramfit.cli.probe_request import Case
from vramfit.landmarks.sample.make import make_sample

SENIOR = Path("Annotations/Cephalometric Landmarks/Senior Orthodontists")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("films") / "clean", films=6, height=96)


@pytest.fixture
def films(clean, tmp_path):
    return shutil.copytree(clean, tmp_path / "films")


@pytest.fixture
def train(vramfit, tmp_path):
    """Run `vramfit train` on a folder, small and on the CPU."""

    def run(folder, *words):
        small = (
            "--image_size",
            "64",
            "64",
            "--device",
            "cpu",
            "--epochs",
            "1",
            "--batch_size",
            "2",
            "--weights",
            "none",
        )
        places = ("--save_dir", str(tmp_path / "checkpoints"), "--log_dir", str(tmp_path / "logs"))
        model = () if "--model" in words else ("--model", "hrnet_w18_small_v2")
        return vramfit("train", "--dataset_path", str(folder), *model, *small, "--num_workers", "0", *places, *words)

    return run


def first(folder: Path) -> Path:
    return min(path for path in folder.iterdir() if not path.name.startswith("."))


def change_landmarks(films: Path, change) -> Path:
    file = first(films / "train" / SENIOR)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return file


def assert_one_sentence(outcome, code, *words):
    assert outcome.code == code, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("vramfit: ")]
    assert len(lines) == 1
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in lines[0]


def test_a_missing_folder(train, tmp_path):
    assert_one_sentence(train(tmp_path / "nowhere"), 7, "nowhere")


def test_json_without_landmarks(train, films):
    file = change_landmarks(films, lambda document: document.pop("landmarks"))
    assert_one_sentence(train(films), 7, file.name, "landmarks")


def test_a_truncated_film(train, films):
    film = first(films / "train" / "Cephalograms")
    film.write_bytes(film.read_bytes()[:200])
    assert_one_sentence(train(films), 7, film.name)


def test_a_landmark_outside_the_film(train, films):
    def move(document):
        document["landmarks"][3]["value"]["x"] = 99999

    file = change_landmarks(films, move)
    assert_one_sentence(train(films), 7, file.stem)


def test_a_list_of_the_wrong_length(train, films):
    file = change_landmarks(films, lambda document: document["landmarks"].pop())
    assert_one_sentence(train(films), 7, file.stem)


def test_an_unknown_model(train, films):
    assert_one_sentence(train(films, "--model", "hrnet_w33"), 2, "hrnet_w33", "hrnet_w32")


def test_a_profile_with_an_unknown_key(train, films, tmp_path):
    file = tmp_path / "odd.json"
    file.write_text(json.dumps({**json.loads(make_profile().to_json()), "batch_size": 6}))
    assert_one_sentence(train(films, "--profile", str(file)), 5, "batch_size", "odd.json")


def test_a_profile_of_another_model(train, films, tmp_path):
    file = tmp_path / "other.json"
    file.write_text(make_profile().to_json())
    assert_one_sentence(train(films, "--profile", str(file)), 5, "job.model")


def test_a_checkpoint_of_another_model(train, films, tmp_path):
    assert train(films).code == 0
    checkpoint = tmp_path / "checkpoints" / "checkpoint_best.pth"
    other = train(films, "--model", "hrnet_w18_small", "--epochs", "2", "--resume", str(checkpoint))
    assert_one_sentence(other, 7, "checkpoint_best.pth", "hrnet_w18_small")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04torn"])
def test_a_checkpoint_that_is_none(train, films, tmp_path, content):
    torn = tmp_path / "torn.pth"
    torn.write_bytes(content)
    assert_one_sentence(train(films, "--resume", str(torn)), 7, "torn.pth")


def test_a_file_that_is_no_checkpoint_is_told_without_torchs_text(vramfit, films, tmp_path):
    other = tmp_path / "readme.py"
    other.write_text("print('hello')")
    outcome = vramfit("evaluate", "--checkpoint", str(other), "--dataset-path", str(films))
    assert_one_sentence(outcome, 7, "readme.py: no checkpoint of `vramfit train`")


def test_a_number_too_small_is_told_in_plain_words(train, films):
    outcome = train(films, "--epochs", "0")
    assert_one_sentence(outcome, 2, "--epochs", "1")
    assert "Input should be" not in outcome.err


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_save_folder_that_is_a_file(train, films, tmp_path, below):
    (tmp_path / "afile").touch()
    outcome = train(films, "--save-dir", str(tmp_path / "afile" / below))
    assert_one_sentence(outcome, 8, "afile is a file")


def test_a_split_in_place_of_its_film_set(train, films):
    assert_one_sentence(train(films / "train"), 7, f"one split of the film set in {films}; give that folder")


def test_a_film_set_with_other_landmarks_says_what_to_do(vramfit, train, films, tmp_path):
    assert train(films).code == 0
    for file in films.glob("test/Annotations/Cephalometric Landmarks/*/*.json"):
        document = json.loads(file.read_text())
        document["landmarks"].pop()
        file.write_text(json.dumps(document))
    shutil.rmtree(films / "train")
    shutil.rmtree(films / "valid")
    best = tmp_path / "checkpoints" / "checkpoint_best.pth"
    outcome = vramfit("evaluate", "--checkpoint", str(best), "--dataset-path", str(films), "--device", "cpu")
    assert_one_sentence(outcome, 7, "28 landmarks where 29 are wanted", "train a network on this one")


@pytest.mark.parametrize("verb", ["probe", "train"])
def test_a_size_that_is_none(vramfit, train, films, verb):
    outcome = vramfit("probe", "--vram", "8 bananas") if verb == "probe" else train(films, "--vram", "8 bananas")
    assert_one_sentence(outcome, 2, "8 bananas")


@pytest.fixture
def full(monkeypatch):
    """A disk without space for any file that vramfit writes."""

    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)


def test_no_space_for_a_profile(vramfit, full, monkeypatch, tmp_path):
    monkeypatch.setattr(Case, "answer", lambda *_: make_profile())
    outcome = vramfit("probe", "--export", str(tmp_path / "profile.json"))
    assert_one_sentence(outcome, 8, "profile.json", "No space left")
    assert list(tmp_path.iterdir()) == []


def test_no_space_for_a_checkpoint(train, films, full, tmp_path):
    assert_one_sentence(train(films), 8, "No space left")
