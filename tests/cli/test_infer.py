"""`vramfit infer`: points as JSON, CSV and pictures, on films that nobody has marked."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from made_checkpoint import films_of, make_checkpoint, make_films

from vramfit.errors import DataError
from vramfit.landmarks.data.formats.aariz import read_annotation
from vramfit.landmarks.evaluation import inference
from vramfit.landmarks.evaluation.evaluate import EvaluationOptions, evaluate_checkpoint
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.landmarks.report.overlay import overlay


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films") / "films")


@pytest.fixture(scope="module")
def checkpoint(films, tmp_path_factory):
    return make_checkpoint(films, tmp_path_factory.mktemp("run") / "checkpoint_best.pth")


@pytest.fixture
def folder(films, tmp_path):
    """Films alone, under a name that is not ASCII."""
    return shutil.copytree(films / "test" / "Cephalograms", tmp_path / "Röntgen فیلم")


@pytest.fixture
def infer(vramfit, checkpoint, tmp_path):
    def run(*words, output=tmp_path / "خروجی"):
        return vramfit(
            *("infer", "--checkpoint", str(checkpoint), "--output", str(output), "--device", "cpu"), *map(str, words)
        )

    return run


def test_a_folder_gives_points_and_pictures(infer, folder, films, tmp_path):
    outcome = infer(folder, "--format", "both")
    assert outcome.code == 0, outcome.err
    assert "Films: 2, 29 landmarks on each" in outcome.out
    output, names = tmp_path / "خروجی", sorted(path.stem for path in folder.iterdir())
    assert sorted(path.name for path in (output / "points").iterdir()) == [f"{name}.json" for name in names]
    assert sorted(path.name for path in (output / "overlays").iterdir()) == [f"{name}.png" for name in names]
    rows = list(csv.DictReader((output / "points.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["film"] for row in rows] == [name for name in names for _ in range(29)]
    assert [row["symbol"] for row in rows[:29]] == list(films_of(films).symbols)
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows)


def test_folders_in_folders_give_results_in_folders_of_the_same_names(infer, folder, tmp_path):
    first, second = sorted(folder.iterdir())
    deep = folder / "۱۴۰۳" / "اردیبهشت"
    deep.mkdir(parents=True)
    shutil.copy(first, deep)  # of the same name as the one above it
    second.rename(deep / "café.png")
    hidden = folder / ".trash" / "gone.png"
    hidden.parent.mkdir()
    shutil.copy(first, hidden)
    outcome = infer(folder, "--format", "both")
    assert outcome.code == 0, outcome.err
    output = tmp_path / "خروجی"
    names = [first.stem, f"۱۴۰۳/اردیبهشت/{first.stem}", "۱۴۰۳/اردیبهشت/café"]
    found = {path.relative_to(output / "points").with_suffix("").as_posix() for path in output.rglob("*.json")}
    assert found == set(names)
    assert all((output / "overlays" / f"{name}.png").is_file() for name in names)
    rows = list(csv.DictReader((output / "points.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["film"] for row in rows} == set(names)
    annotation = json.loads((output / "points" / f"{names[1]}.json").read_text(encoding="utf-8"))
    assert annotation["ceph_id"] == first.stem
    assert annotation["landmarks"] == json.loads((output / "points" / f"{names[0]}.json").read_text())["landmarks"]


def test_pictures_of_an_earlier_run_are_no_films(infer, folder):
    inside = folder / "found"
    assert "Films: 2," in infer(folder, output=inside).out
    again = infer(folder, "--force", output=inside)
    assert (again.code, "Films: 2," in again.out) == (0, True)


def test_on_a_cpu_the_batch_is_said_and_not_tried(infer, folder, monkeypatch):
    from vramfit.jobs.step import Step

    sizes, validate = [], Step.validate

    def watched(self, batch):
        sizes.append(len(batch[1]))
        return validate(self, batch)

    monkeypatch.setattr(Step, "validate", watched)
    assert "Films at once: batch 2: the usual on a CPU, not measured." in infer(folder, "--no-overlay").out
    assert sizes == [2]
    assert "Films at once" not in infer(folder, "--no-overlay", "--force", "--batch-size", "1").out
    assert sizes == [2, 1, 1]


def test_the_json_is_an_annotation(infer, folder, films, tmp_path):
    infer(folder)
    for film in films_of(films).films:
        file = tmp_path / "خروجی" / "points" / f"{film.id}.json"
        annotation = read_annotation(file)
        assert annotation.film_id == film.id
        assert annotation.landmarks == films_of(films).landmarks
        assert json.loads(file.read_text(encoding="utf-8"))["landmarks"][0]["confidence"] >= 0


def test_the_points_are_those_that_evaluation_judges(infer, films, checkpoint, tmp_path):
    infer(films / "test" / "Cephalograms", "--no-overlay", "--batch-size", "1")
    options = EvaluationOptions(dataset_path=films, device="cpu", cache_dir=tmp_path / "cache")
    expected = evaluate_checkpoint(checkpoint, options).film_mre_mm
    for film in films_of(films).films:
        found = read_annotation(tmp_path / "خروجی" / "points" / f"{film.id}.json").positions
        points = np.array([found[symbol] for symbol in films_of(films).symbols])
        errors = np.linalg.norm((points - film.points) * film.pixel_size_mm, axis=1)
        assert errors.mean() == pytest.approx(expected[film.id], abs=0.02)


def test_what_was_not_asked_is_not_written(infer, folder, tmp_path):
    infer(folder, "--format", "csv", "--no-overlay")
    assert [path.name for path in (tmp_path / "خروجی").iterdir()] == ["points.csv"]


def test_nothing_is_overwritten_unasked(infer, folder, tmp_path):
    film = next(folder.iterdir())
    assert infer(film).code == 0
    file = tmp_path / "خروجی" / "points" / f"{film.stem}.json"
    file.write_text("mine")
    refused = infer(film)
    assert refused.code == 8
    assert "--force" in refused.err
    assert file.read_text() == "mine"
    assert infer(film, "--force").code == 0
    assert read_annotation(file).film_id == film.stem


def test_films_themselves_are_never_overwritten(infer, folder, tmp_path):
    inside = tmp_path / "work" / "overlays"
    inside.parent.mkdir()
    shutil.copytree(folder, inside)
    before = {path: path.read_bytes() for path in inside.iterdir()}
    outcome = infer(inside, "--force", output=tmp_path / "work")
    assert outcome.code == 2
    assert "is one of the films" in outcome.err
    assert {path: path.read_bytes() for path in inside.iterdir()} == before


def test_two_films_of_one_name_are_refused(infer, folder, tmp_path):
    twin = tmp_path / "twins"
    shutil.copytree(folder, twin)
    outcome = infer(folder, twin)
    assert outcome.code == 2
    assert "one name" in outcome.err


@pytest.mark.parametrize("cut", [60, 5000])
def test_bad_films_are_refused_or_left_out_and_listed(infer, folder, tmp_path, cut):
    bad = next(folder.iterdir())
    content = bad.read_bytes()
    # A film cut short keeps its header; one whose middle is gone keeps its end too.
    bad.write_bytes(content[:cut] if cut < 100 else content[:cut] + bytes(200) + content[-40:])
    refused = infer(folder)
    assert refused.code == 7
    assert bad.name in refused.err
    outcome = infer(folder, "--skip-bad", "--force")
    assert outcome.code == 0
    assert f"Skipped {bad.stem}" in outcome.err
    assert "Films: 1," in outcome.out


@pytest.mark.parametrize("given", ["nowhere.png", "empty"])
def test_nothing_to_look_at_is_said(infer, tmp_path, given):
    (tmp_path / "empty").mkdir()
    outcome = infer(tmp_path / given)
    assert outcome.code == 7
    assert given in outcome.err


def test_groups_change_nothing(films, checkpoint, monkeypatch):
    trained = load_trained(checkpoint, "cpu")
    marked = inference.unmarked_films([films / "train" / "Cephalograms"], trained.landmarks)
    whole = list(inference.find_landmarks(trained, marked, batch_size=4))
    monkeypatch.setattr(inference, "_GROUP", 3)
    grouped = list(inference.find_landmarks(trained, marked, batch_size=3))
    assert [one.film.id for one in grouped] == [film.id for film in marked.films]
    for one, other in zip(grouped, whole, strict=True):
        np.testing.assert_allclose(one.points, other.points, atol=0.5)


def spoil(film):
    """Its header and its end stay sound."""
    content = film.read_bytes()
    film.write_bytes(content[:2000] + bytes(200) + content[-40:])


def test_the_bar_moves_with_every_batch_and_ends_full(films, checkpoint, tmp_path, monkeypatch):
    folder = shutil.copytree(films / "train" / "Cephalograms", tmp_path / "films")
    bad = sorted(folder.iterdir())[1]
    spoil(bad)
    trained = load_trained(checkpoint, "cpu")
    unmarked = inference.unmarked_films([folder], trained.landmarks)
    monkeypatch.setattr(inference, "_GROUP", 4)
    told: list[int] = []
    list(inference.find_landmarks(trained, unmarked, batch_size=2, skip_bad=True, on_batch=told.append))
    assert told == [3, 4, 6, 8]


def test_a_group_of_bad_films_alone_ends_nothing(films, checkpoint, tmp_path, monkeypatch):
    folder = shutil.copytree(films / "test" / "Cephalograms", tmp_path / "films")
    first, second = sorted(folder.iterdir())
    spoil(second)
    trained = load_trained(checkpoint, "cpu")
    monkeypatch.setattr(inference, "_GROUP", 1)

    def found():
        marked, told = inference.unmarked_films([folder], trained.landmarks), []
        return [
            one.film.id for one in inference.find_landmarks(trained, marked, **settings, on_batch=told.append)
        ], told

    settings = {"batch_size": 1, "skip_bad": True}
    assert found() == ([first.stem], [1, 2])
    spoil(first)
    with pytest.raises(DataError, match="none of the 2 films can be decoded"):
        found()


def test_running_out_of_memory_is_said_and_survived(infer, folder, monkeypatch):
    from vramfit.jobs.step import Step

    validate = Step.validate

    def small(self, batch):
        if len(batch[1]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return validate(self, batch)

    monkeypatch.setattr(Step, "validate", small)
    outcome = infer(folder, "--no-overlay")
    assert outcome.code == 0
    assert "going on with 1" in outcome.err


def test_the_picture_shows_points_where_they_are():
    film = np.zeros((2000, 1000), dtype=np.uint8)
    points = np.array([[500.0, 1000.0], [100.0, 1900.0], [np.nan, np.nan]])
    content = overlay(film, points, ["A", "Pog`", "ع"], np.array([1.0, 0.0, 0.5]))
    picture = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (1600, 800, 3)
    assert picture[800, 400].tolist() == [0, 255, 0]
    assert picture[1520, 80].tolist() == [0, 0, 255]


def test_small_films_keep_their_size():
    film = np.full((90, 120), 60, dtype=np.uint8)
    content = overlay(film, np.array([[30.0, 40.0]]), ["A"], np.array([0.9]))
    assert cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR).shape == (90, 120, 3)


def test_images_of_every_type_are_inferred_or_named(vramfit, checkpoint, films, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    pixels = cv2.imdecode(np.fromfile(next(films.glob("test/Cephalograms/*.png")), np.uint8), cv2.IMREAD_GRAYSCALE)
    for name in ("a.png", "b.webp", "c.jp2", "d.tif"):
        (folder / name).write_bytes(cv2.imencode(folder.joinpath(name).suffix, pixels)[1].tobytes())
    (folder / "e.gif").write_bytes(b"GIF89a")
    (folder / "notes.txt").write_text("no film")
    outcome = vramfit("infer", str(folder), "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    assert "Films: 4," in outcome.out
    assert "Skipped e.gif: " in outcome.err
    assert "notes.txt" not in outcome.err


def test_measures_are_those_of_the_points(infer, folder, tmp_path):
    outcome = infer(folder, "--format", "csv", "--measures", "--no-overlay")
    assert outcome.code == 0, outcome.err
    output = tmp_path / "خروجی"
    points = list(csv.DictReader((output / "points.csv").read_text(encoding="utf-8").splitlines()))
    rows = list(csv.DictReader((output / "measures.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["film"] for row in rows} == {row["film"] for row in points}
    first = points[0]["film"]
    at = {row["symbol"]: np.array([float(row["x"]), float(row["y"])]) for row in points if row["film"] == first}
    one, other = at["S"] - at["N"], at["A"] - at["N"]
    angle = np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
    found = {row["measure"]: row for row in rows if row["film"] == first}
    assert float(found["SNA"]["value"]) == pytest.approx(angle, abs=0.1)
    assert found["SNA"]["unit"] == "degrees"
    assert "Wits" not in found  # these films carry no pixel size


def test_an_ensemble_finds_the_mean(infer, folder, films, checkpoint, tmp_path):
    other = make_checkpoint(films, tmp_path / "other" / "checkpoint_best.pth", seed=1)
    plain = ("--format", "csv", "--no-overlay")
    points = []
    for number, words in enumerate([(), ("--checkpoint", other), ("--ensemble", other)]):
        outcome = infer(folder, *plain, *words, output=tmp_path / str(number))
        assert outcome.code == 0, outcome.err
        rows = csv.DictReader((tmp_path / str(number) / "points.csv").read_text(encoding="utf-8").splitlines())
        points.append([(float(row["x"]), float(row["y"])) for row in rows])
    np.testing.assert_allclose(np.mean(points[:2], axis=0), points[2], atol=0.02)
