"""A network that was calibrated says how sure it is: in its evaluation, and of every point that it finds."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from made_checkpoint import make_checkpoint, make_films

from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.export.export import export_network
from vramfit.landmarks.model import calibration
from vramfit.landmarks.model.trained_network import load_trained


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films") / "films")


@pytest.fixture(scope="module")
def plain(films, tmp_path_factory):
    return make_checkpoint(films, tmp_path_factory.mktemp("run") / "checkpoint_best.pth")


@pytest.fixture
def checkpoint(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "FEWEST_FILMS", 2)
    return shutil.copy(plain, tmp_path / "checkpoint_best.pth")


@pytest.fixture
def calibrate(vramfit, checkpoint, films):
    def run(*words):
        words = ("--dataset-path", str(films), "--device", "cpu", *words)
        return vramfit("evaluate", "--checkpoint", str(checkpoint), *words)

    return run


def test_calibration_stays_in_the_checkpoint_and_is_judged_on_other_films(calibrate, checkpoint):
    before = torch.load(checkpoint, weights_only=True)
    assert calibrate("--split", "valid", "--calibrate").code == 0
    after = torch.load(checkpoint, weights_only=True)
    assert all(torch.equal(value, after["model"][name]) for name, value in before["model"].items())
    report = json.loads(calibrate("--json").out)
    held = report["certainty"]
    assert held["calibrated_on"] == 2
    assert [each["level"] for each in held["promises"]] == [0.5, 0.8, 0.9, 0.95]
    assert all(each["points"] == 2 * 29 for each in held["promises"])
    assert -1 <= held["spearman"] <= 1
    shown = calibrate().out
    assert "promised" in shown
    assert "rank correlation" in shown


def test_infer_says_how_sure_each_point_and_measure_is(vramfit, calibrate, checkpoint, films, tmp_path):
    calibrate("--split", "valid", "--calibrate")
    words = ("--format", "both", "--measures", "--device", "cpu")
    found = tmp_path / "found"
    outcome = vramfit(
        "infer", str(films / "test" / "Cephalograms"), "--checkpoint", str(checkpoint), "--output", str(found), *words
    )
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader((found / "points.csv").read_text(encoding="utf-8").splitlines()))
    for row in rows:
        radii = [float(row[f"radius_{level}_px"]) for level in ("50", "80", "90", "95")]
        assert radii == sorted(radii)
        assert float(row["expected_error_px"]) > 0
        assert row["evidence"] in {"True", "False"}
    document = json.loads(next((found / "points").iterdir()).read_text(encoding="utf-8"))
    assert document["landmarks"][0]["radius_90_px"] == pytest.approx(float(rows[0]["radius_90_px"]))
    assert "unlike_training" in document
    measures = list(csv.DictReader((found / "measures.csv").read_text(encoding="utf-8").splitlines()))
    assert all(float(row["sd_network"]) > 0 and float(row["sd_raters"]) > 0 for row in measures)


@pytest.mark.parametrize("otherwise", [("--decode", "argmax"), ("--tta", "2")])
def test_other_decoding_or_views_have_no_certainty_and_say_why(
    vramfit, calibrate, checkpoint, films, tmp_path, otherwise
):
    calibrate("--split", "valid", "--calibrate")
    report = json.loads(calibrate("--json", *otherwise).out)
    assert report["certainty"] is None
    assert "calibrated with --decode dark --tta 1" in report["certainty_note"]
    assert "calibrated with" in " ".join(calibrate(*otherwise).out.split())
    folder, found = str(films / "test" / "Cephalograms"), tmp_path / "found"
    words = ("--output", str(found), "--device", "cpu", "--no-overlay", *otherwise)
    outcome = vramfit("infer", folder, "--checkpoint", str(checkpoint), *words)
    assert outcome.code == 0
    assert "calibrated with --decode dark --tta 1" in outcome.err
    document = json.loads(next((found / "points").iterdir()).read_text(encoding="utf-8"))
    assert "unlike_training" not in document
    assert "radius_90_px" not in document["landmarks"][0]


def test_pictures_show_regions(vramfit, calibrate, checkpoint, plain, films, tmp_path):
    calibrate("--split", "valid", "--calibrate")
    pictures = []
    for name, file in (("plain", plain), ("sure", checkpoint)):
        folder = str(films / "test" / "Cephalograms")
        vramfit("infer", folder, "--checkpoint", str(file), "--output", str(tmp_path / name), "--device", "cpu")
        pictures.append(read_film(next((tmp_path / name / "overlays").iterdir())))
    assert not np.array_equal(*pictures)


def test_an_exported_file_keeps_the_calibration(calibrate, checkpoint, tmp_path, vramfit, films):
    calibrate("--split", "valid", "--calibrate")
    trained = load_trained(checkpoint, "cpu")
    export_network(trained, tmp_path / "out.safetensors", "safetensors")
    assert load_trained(tmp_path / "out.safetensors", "cpu").calibration == trained.calibration
    words = ("--dataset-path", str(films), "--split", "valid", "--calibrate", "--device", "cpu")
    refused = vramfit("evaluate", "--checkpoint", str(tmp_path / "out.safetensors"), *words)
    assert refused.code == 2
    assert "export it again" in refused.err


def test_films_of_training_and_too_few_films_are_refused(calibrate, monkeypatch):
    assert "did not learn from" in calibrate("--split", "train", "--calibrate").err
    monkeypatch.setattr(calibration, "FEWEST_FILMS", 8)
    outcome = calibrate("--split", "valid", "--calibrate")
    assert outcome.code == 7
    assert "2 films are too few" in outcome.err
