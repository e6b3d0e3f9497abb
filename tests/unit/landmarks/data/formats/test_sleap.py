"""SLEAP's files, written here as SLEAP lays them out: image lists, packed frames, several animals."""

import json
import sys

import cv2
import numpy as np
import pytest

from vramfit.errors import DataError
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.data.image import read_film

h5py = pytest.importorskip("h5py")

FRAME = [("frame_id", "<u8"), ("video", "<u4"), ("frame_idx", "<u8")]
FRAME += [("instance_id_start", "<u8"), ("instance_id_end", "<u8")]
INSTANCE = [("instance_id", "<i8"), ("instance_type", "u1"), ("frame_id", "<u8"), ("skeleton", "<u4"), ("track", "<i4")]
INSTANCE += [("from_predicted", "<i8"), ("score", "<f4"), ("point_id_start", "<u8"), ("point_id_end", "<u8")]
POINT = [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?")]
# Two animals on the first frame, one on the second, whose ear is not visible and whose second instance is a prediction.
ANIMALS = [[[(10.0, 12.0), (22.0, 20.0)], [(70.0, 52.0), (82.0, 60.0)]], [[(30.0, 31.0), (np.nan, np.nan)]]]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path / "cache"))


def write(folder, *, packed, format_id=1.2):
    folder.mkdir()
    films = [np.random.default_rng(seed).integers(0, 255, (80, 100)).astype(np.uint8) for seed in range(2)]
    for number, film in enumerate(films):
        (folder / f"img{number}.png").write_bytes(cv2.imencode(".png", film)[1].tobytes())
    names = [f"D:/mice/img{number}.png" for number in range(2)]
    backend = {"type": "HDF5Video", "filename": "."} if packed else {"type": "ImageVideo", "filenames": names}
    metadata = {"skeletons": [{"nodes": [{"id": 1}, {"id": 0}]}], "nodes": [{"name": "ear"}, {"name": "nose"}]}
    points, instances, frames = [], [], []
    for number, animals in enumerate(ANIMALS):
        start = len(instances)
        for kind, animal in [*((0, animal) for animal in animals), (1, [(1.0, 1.0), (2.0, 2.0)])]:
            first = len(points)
            points += [(x, y, bool(np.isfinite(x)), True) for x, y in animal] if kind == 0 else []
            instances.append((len(instances), kind, number, 0, -1, -1, 0, first, len(points)))
        frames.append((number, 0, number, start, len(instances)))
    with h5py.File(folder / "labels.slp", "w") as file:
        file.create_group("metadata").attrs.update({"format_id": format_id, "json": json.dumps(metadata)})
        file["videos_json"] = [json.dumps({"filename": ".", "backend": backend})]
        file["frames"], file["instances"] = np.array(frames, FRAME), np.array(instances, INSTANCE)
        file["points"] = np.array(points, POINT)
        if packed:
            encoded = file.create_dataset("video0/video", (2,), h5py.vlen_dtype(np.int8))
            for number, film in enumerate(films):
                encoded[number] = np.frombuffer(cv2.imencode(".png", film)[1].tobytes(), np.int8)
            file["video0/frame_numbers"] = [0, 1]
    return films


@pytest.mark.parametrize("packed", [False, True])
def test_labels_and_frames_are_read(tmp_path, packed):
    pictures = write(tmp_path / "set", packed=packed)
    marked = read_films(tmp_path / "set")
    assert [landmark.symbol for landmark in marked.landmarks] == ["nose", "ear"]
    films = sorted(marked.films, key=lambda film: film.id)
    assert len(films) == 3
    assert len({film.split for film in films[:2]}) == 1
    assert not [fault for film in films for fault in film.faults]
    expected = [*((pictures[0], animal) for animal in ANIMALS[0]), (pictures[1], ANIMALS[1][0])]
    for film, (picture, places) in zip(films, expected, strict=True):
        points = next(iter(film.annotations.values())).points(["nose", "ear"])
        crop, (x, y) = read_film(film.path), np.array(places[0]) - points[0]
        np.testing.assert_array_equal(crop, picture[int(y) : int(y) + crop.shape[0], int(x) : int(x) + crop.shape[1]])
        np.testing.assert_allclose(points + np.array([x, y]), places)


def test_old_files_count_from_the_corner_of_a_pixel(tmp_path):
    write(tmp_path / "set", packed=False, format_id=1.0)
    film = next(film for film in read_films(tmp_path / "set").films if film.id == "img1")
    assert film.annotations["rater"].positions["nose"] == (29.5, 30.5)


def test_what_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "bad.slp").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"bad\.slp: no labels of SLEAP"):
        read_films(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs h5py; pip install 'vramfit-trainer\[h5\]'"):
        read_films(tmp_path)
