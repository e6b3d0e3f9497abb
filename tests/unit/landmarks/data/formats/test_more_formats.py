"""Formats of challenges and of programs to annotate with: read as the set that they were written from."""

import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from made_formats import ISBI, MORE_WRITERS, WRITERS

from vramfit.errors import CannotWrite, DataError
from vramfit.landmarks.data.convert import convert
from vramfit.landmarks.data.formats import formats, load_films, read_films
from vramfit.landmarks.data.image import read_film

SPLITS = ("train", "valid", "test")


@pytest.mark.parametrize("kind", MORE_WRITERS)
def test_the_films_are_the_same(sample_set, tmp_path, kind):
    written = MORE_WRITERS[kind](sample_set, tmp_path / "Röntgen فیلم")
    assert [name for name, one in formats().items() if one.detect(written)] == [kind]
    marked = read_films(written)
    assert not [fault for film in marked.films for fault in film.faults]
    for split in SPLITS:
        ours, theirs = marked.of_split(split), load_films(sample_set, split, "senior")
        for mine, other in zip(ours.films, theirs.films, strict=True):
            assert int(mine.id) == int(other.id)
            assert mine.path.read_bytes() == other.path.read_bytes()
            assert (mine.machine, mine.pixel_size_mm) == (other.machine, other.pixel_size_mm)
            order = [theirs.symbols.index(symbol) for symbol in ISBI] if kind == "isbi" else slice(None)
            np.testing.assert_allclose(mine.points, other.points[order], atol=1e-9)
        names = {"isbi": tuple(ISBI), "cldetection": tuple(str(place) for place in range(1, 30))}
        assert ours.symbols == names.get(kind, theirs.symbols)


@pytest.mark.parametrize("target", ["aariz", "coco"])
@pytest.mark.parametrize("kind", [*WRITERS, *MORE_WRITERS])
def test_every_format_is_converted(sample_set, tmp_path, kind, target):
    source = read_films(({**WRITERS, **MORE_WRITERS})[kind](sample_set, tmp_path / "source"))
    done = convert(source, tmp_path / "new", target)
    assert (done.films, done.skipped) == (8, ())
    again = read_films(tmp_path / "new", target)
    assert again.findings == ()
    for split in SPLITS:
        ours, theirs = again.of_split(split), source.of_split(split)
        assert ours.symbols == theirs.symbols
        for mine, other in zip(ours.films, theirs.films, strict=True):
            assert mine.id == other.id.replace("/", "_")
            assert mine.path.read_bytes() == other.path.read_bytes()
            assert (mine.machine, mine.pixel_size_mm, mine.size) == (other.machine, other.pixel_size_mm, other.size)
            np.testing.assert_allclose(mine.points, other.points, atol=1e-9)


def test_raters_and_missing_points_are_kept(sample_set, tmp_path):
    source = read_films(sample_set)
    first = source.films[0]
    senior = first.annotations["senior"]
    hidden = replace(senior, positions={**senior.positions, "N": (np.nan, np.nan)})
    first = replace(first, annotations={**first.annotations, "senior": hidden})
    source = replace(source, films=(first, *source.films[1:]))
    symbols = [landmark.symbol for landmark in source.landmarks]
    for target in ("aariz", "coco"):
        convert(source, tmp_path / target, target)
        (film,) = [film for film in read_films(tmp_path / target).films if film.id == first.id]
        assert set(film.annotations) == {"senior", "junior"}
        for rater, annotation in film.annotations.items():
            np.testing.assert_allclose(annotation.points(symbols), first.annotations[rater].points(symbols))


def test_what_cannot_be_converted_is_said(sample_set, tmp_path):
    source = read_films(sample_set)
    bad = replace(source.films[0], annotations={})
    spoiled = replace(source, films=(bad, *source.films[1:]))
    with pytest.raises(DataError, match="no rater has marked this film; mark it or use --skip-bad"):
        convert(spoiled, tmp_path / "a", "coco")
    assert [skipped.id for skipped in convert(spoiled, tmp_path / "b", "coco", skip_bad=True).skipped] == [bad.id]
    with pytest.raises(CannotWrite, match="is there already"):
        convert(source, tmp_path / "b", "coco")


def changed(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_isbi_pixels_are_as_stated_for_films_of_its_size_alone(tmp_path):
    for name, shape in (("001", (2400, 1935)), ("002", (1200, 968))):
        (tmp_path / "RawImage" / "TrainingData").mkdir(parents=True, exist_ok=True)
        film = cv2.imencode(".bmp", np.full(shape, 90, dtype=np.uint8))[1].tobytes()
        (tmp_path / "RawImage" / "TrainingData" / f"{name}.bmp").write_bytes(film)
        (tmp_path / "400_junior").mkdir(exist_ok=True)
        (tmp_path / "400_junior" / f"{name}.txt").write_text(
            "".join(f"{k},{k + 1}\n" for k in range(5, 24)) + "1\n" * 8
        )
    marked = read_films(tmp_path)
    assert [film.pixel_size_mm for film in marked.films] == [(0.1, 0.1), None]
    assert [film.split for film in marked.films] == ["train", "train"]
    assert marked.films[0].annotations["junior"].positions["S"] == (5, 6)
    (tmp_path / "400_junior" / "002.txt").write_text("5,6\n")
    assert "1 lines of x,y where the challenge has 19" in read_films(tmp_path).films[1].faults[0].message


def test_cvat_points_without_a_skeleton_and_hidden_ones(sample_set, tmp_path):
    root = MORE_WRITERS["cvat"](sample_set, tmp_path / "cvat")
    path = root / "annotations.xml"
    text = path.read_text().replace('<skeleton label="skull">', "").replace("</skeleton>", "")
    path.write_text(text.replace('outside="0"', 'outside="1"', 1))
    film = load_films(root, "train").films[0]
    assert np.isnan(film.points).all(axis=1).sum() == 1
    several = re.sub(r"(<image [^>]*>).*?(</image>)", r'\1<points label="S" points="1,2;3,4"/>\2', path.read_text())
    path.write_text(several)
    assert load_films(root, "train").symbols == ("S 1", "S 2")


def test_label_studios_small_export_and_raters(sample_set, tmp_path):
    root = MORE_WRITERS["labelstudio"](sample_set, tmp_path / "studio")
    before = load_films(root, "train").films[0].points

    def shrink(tasks):
        for task in tasks:
            results = task.pop("annotations")[0]["result"]
            task["kp-1"] = [{**{k: v for k, v in one.items() if k != "value"}, **one["value"]} for one in results]
            task["img"] = task.pop("data")["img"]

    def second(tasks):
        tasks[0]["annotations"].append({**tasks[0]["annotations"][0], "completed_by": 2})

    changed(root / "project-1.json", second)
    assert set(read_films(root).films[0].annotations) == {"1", "2"}
    changed(root / "project-1.json", lambda tasks: tasks[0]["annotations"].pop())
    changed(root / "project-1.json", shrink)
    np.testing.assert_allclose(load_films(root, "train").films[0].points, before)


BAD = {
    "labelme": (
        "train/001.json",
        lambda content: content["shapes"][0].update(points=[["left", 2]]),
        "no numbers x and y",
    ),
    "labelstudio": (
        "project-1.json",
        lambda tasks: tasks[0]["annotations"][0]["result"][0].pop("original_width"),
        "lacks",
    ),
    "cldetection": ("gt.json", lambda content: content["points"].append(content["points"][0]), "is listed twice"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_film_is_one_sentence_or_skipped(sample_set, tmp_path, kind):
    file, change, said = BAD[kind]
    root = MORE_WRITERS[kind](sample_set, tmp_path / "set")
    changed(root / file, change)
    with pytest.raises(DataError, match=said):
        load_films(root, "train")
    assert len(load_films(root, "train", skip_bad=True).skipped) == 1


@pytest.mark.parametrize(("kind", "file"), [("cvat", "annotations.xml"), ("labelstudio", "project-1.json")])
def test_a_broken_file_names_its_reason(sample_set, tmp_path, kind, file):
    path = MORE_WRITERS[kind](sample_set, tmp_path / "set") / file
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DataError, match=f"{file}: not valid"):
        read_films(tmp_path / "set")


def test_cl_detections_stack_is_unpacked(sample_set, tmp_path, monkeypatch):
    sitk = pytest.importorskip("SimpleITK")
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path / "cache"))
    root = MORE_WRITERS["cldetection"](sample_set, tmp_path / "set")
    films = [read_film(root / "images" / f"{number:03d}.png") for number in range(1, 9)]
    shape = max(film.shape[0] for film in films), max(film.shape[1] for film in films)
    padded = [
        np.pad(film, [(0, whole - side) for whole, side in zip(shape, film.shape, strict=True)]) for film in films
    ]
    sitk.WriteImage(sitk.GetImageFromArray(np.stack(padded)), str(root / "stack.mha"))
    for path in (root / "images").iterdir():
        path.unlink()
    read = sorted(read_films(root).films, key=lambda film: int(film.id))
    for film, expected in zip(read, padded, strict=True):
        np.testing.assert_array_equal(read_film(film.path), expected)
