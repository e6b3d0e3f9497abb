"""Every verb that reads a film set takes every format."""

import json

import pytest
from made_formats import write_coco, write_csv, write_deeplabcut

from vramfit.landmarks.sample.make import make_sample

SMALL = ("--model", "hrnet_w18_small", "--weights", "none", "--image-size", "64", "64", "--batch-size", "4")
PLAIN = ("--epochs", "1", "--device", "cpu", "--num-workers", "0")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("films") / "aariz", films=8, height=96)


def test_train_and_evaluate_on_coco(vramfit, films, tmp_path):
    coco = write_coco(films, tmp_path / "coco")
    places = ("--save-dir", str(tmp_path / "c"), "--log-dir", str(tmp_path / "l"))
    trained = vramfit("train", "--dataset-path", str(coco), *SMALL, *PLAIN, *places)
    assert trained.code == 0, trained.err
    checkpoint = ("--checkpoint", str(tmp_path / "c" / "checkpoint_best.pth"), "--device", "cpu", "--json")
    judged = [
        vramfit("evaluate", "--dataset-path", str(path), *checkpoint, *words)
        for path, words in ((coco, ("--format", "coco")), (films, ("--annotator", "senior")))
    ]
    reports = [json.loads(one.out) for one in judged]
    assert reports[0]["evaluation"] == reports[1]["evaluation"]
    assert reports[0]["evaluation"]["overall"]["points"] == 29


@pytest.mark.parametrize("write", [write_csv, write_deeplabcut])
def test_check_and_preview(vramfit, films, tmp_path, write):
    written = str(write(films, tmp_path / "set"))
    checked = vramfit("data", "check", written)
    assert (checked.code, "Nothing is wrong." in checked.out) == (0, True), checked.out
    picture = tmp_path / "preview.png"
    seen = vramfit("data", "preview", written, "-o", str(picture), "--image-size", "64", "64")
    assert seen.code == 0, seen.err
    assert picture.is_file()


def test_another_format_than_the_paths_is_one_sentence(vramfit, films):
    outcome = vramfit("data", "check", str(films), "--format", "coco")
    assert (outcome.code, outcome.out) == (7, "")
    assert "no COCO JSON in it" in outcome.err
    assert vramfit("data", "check", str(films), "--format", "jpeg").code == 2


def test_a_split_drawn_from_ids_is_said(vramfit, films, tmp_path):
    written = write_csv(films, tmp_path / "set")
    table = written / "points.csv"
    rows = [line.split(",") for line in table.read_text(encoding="utf-8").splitlines()]
    table.write_text("\n".join(",".join([*row[:1], *row[2:]]) for row in rows), encoding="utf-8")
    checked = vramfit("data", "check", str(written))
    assert "each film's was drawn from its id" in checked.out


@pytest.mark.parametrize("to", ["aariz", "coco"])
def test_convert_writes_a_set_that_checks_clean(vramfit, films, tmp_path, to):
    source = str(write_deeplabcut(films, tmp_path / "labels"))
    outcome = vramfit("data", "convert", source, str(tmp_path / "new"), "--to", to)
    assert outcome.code == 0, outcome.err
    assert f"8 films, 29 landmarks, as {to}." in outcome.out
    checked = vramfit("data", "check", str(tmp_path / "new"), "--format", to)
    assert "Nothing is wrong." in checked.out, checked.out
    again = vramfit("data", "convert", source, str(tmp_path / "new"), "--to", to)
    assert (again.code, "is there already" in again.err) == (8, True)


def test_files_of_no_format_are_named_with_what_they_hold(vramfit, tmp_path):
    (tmp_path / "a.json").write_text('{"skulls": []}')
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.csv").write_text("when,where\n")
    outcome = vramfit("data", "check", str(tmp_path))
    assert outcome.code == 7
    for said in ("a.json is an object with skulls.", "b.json: not valid JSON", "c.csv has the columns when, where."):
        assert said in outcome.err
