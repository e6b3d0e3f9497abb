"""SLEAP's projects and packages, .slp: labels that a user made, of frames of videos, of images, or packed beside them.

HDF5, read by h5py of the extra `h5`. `points` holds x, y and whether a point is visible, `instances` which points are
one animal's, `frames` which instances are on a frame of which video, and the attribute `json` of `metadata` the names
of the nodes. Frames of videos and packed ones are unpacked into the folder of caches. Predicted instances are passed
over; several on one frame are a film each. Files before format 1.1 count from the corner of a pixel, later ones from
its centre.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.formats.assemble import RATER, Draft, complete, find_film
from vramfit.landmarks.data.formats.subjects import Marked, films_of, note
from vramfit.landmarks.data.marked import MarkedSet
from vramfit.landmarks.data.unpacked import unpacked

_USER = 0
# From this format on, whole numbers are the centres of pixels.
_CENTRED = 1.1


class Sleap:
    """Film sets as SLEAP's files."""

    name = "sleap"
    title = "SLEAP"

    def detect(self, path: Path) -> bool:
        """Whether it is such a file, or a folder with one."""
        return bool(_files(path))

    def read(self, path: Path) -> MarkedSet:
        """The labelled frames of all such files."""
        files = _files(path)
        if not files:
            raise DataError(f"{path}: no .slp file in it.")
        landmarks: list[Landmark] = []
        frames: list[tuple[Draft, list[Marked]]] = []
        for file in files:
            names, found = _read(file)
            landmarks += names
            frames += found
        drafts = [film for draft, marks in frames for film in films_of(draft, marks)]
        return complete(path, landmarks, drafts, notes=note(drafts, len(frames)))


def _read(file: Path) -> tuple[list[Landmark], list[tuple[Draft, list[Marked]]]]:
    try:
        library = import_module("h5py")
    except ImportError:
        raise DataError(f"{file}: reading it needs h5py; pip install 'vramfit-trainer[h5]'.") from None
    try:
        with library.File(file, "r") as content:
            landmarks = _landmarks(content)
            return landmarks, list(_frames(file, content, landmarks))
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DataError(f"{file}: no labels of SLEAP can be read from it ({error}); save it again.") from None


def _landmarks(content: Any) -> list[Landmark]:
    """The nodes of the first skeleton, in its order."""
    metadata = json.loads(content["metadata"].attrs["json"])
    places = [node["id"] for node in metadata["skeletons"][0]["nodes"]]
    return [named(metadata["nodes"][place]["name"]) for place in places]


def _frames(file: Path, content: Any, landmarks: Sequence[Landmark]) -> Iterator[tuple[Draft, list[Marked]]]:
    shift = 0.0 if float(content["metadata"].attrs.get("format_id", 1.0)) >= _CENTRED else -0.5
    instances, points = content["instances"][()], content["points"][()]
    videos = [json.loads(one) for one in content["videos_json"][()]]
    for frame in content["frames"][()]:
        mine = instances[int(frame["instance_id_start"]) : int(frame["instance_id_end"])]
        marks = []
        for instance in mine[mine["instance_type"] == _USER]:
            rows = points[int(instance["point_id_start"]) : int(instance["point_id_end"])]
            place = f"{file}, instance {int(instance['instance_id'])}"
            positions = {
                landmark.symbol: (float(row["x"]) + shift, float(row["y"]) + shift)
                if row["visible"]
                else (np.nan, np.nan)
                for landmark, row in zip(landmarks, rows, strict=True)
            }
            marks.append(Marked.of(RATER, Annotation(place, tuple(landmarks), positions), {}))
        if marks:
            number = int(frame["video"])
            yield Draft(*_film(file, content, videos[number], number, int(frame["frame_idx"]))), marks


def _film(file: Path, content: Any, video: Mapping[str, Any], number: int, frame: int) -> tuple[str, Path]:
    """A frame's id and file: an image of a list, a packed frame, or a frame of a video."""
    backend = video.get("backend", video)
    packed = f"video{number}/video"
    names = backend.get("filenames") or (video["filename"] if isinstance(video.get("filename"), list) else None)
    if packed in content:
        place = list(content[f"video{number}/frame_numbers"][()]).index(frame)
        encoded = content[packed][place]
        return f"{file.stem.split('.')[0]}_{number}_{frame}", unpacked(
            file, f"{packed},{frame}", lambda: _decoded(encoded)
        )
    if names:
        name = str(names[frame]).replace("\\", "/")
        return PurePosixPath(name).stem, find_film(name, _folders(file))
    name = str(backend.get("filename") or video["filename"]).replace("\\", "/")
    movie = next(
        (one for one in (Path(name), *(folder / Path(name).name for folder in _folders(file))) if one.is_file()), None
    )
    film_id = f"{PurePosixPath(name).stem}_{frame}"
    if movie is None:
        return film_id, file.parent / PurePosixPath(name).name
    return film_id, unpacked(movie, str(frame), _frame_of(movie, frame))


def _frame_of(movie: Path, frame: int) -> Callable[[], NDArray[np.uint8]]:
    def read() -> NDArray[np.uint8]:
        import cv2

        video = cv2.VideoCapture(str(movie))
        video.set(cv2.CAP_PROP_POS_FRAMES, frame)
        there, picture = video.read()
        video.release()
        if not there:
            raise DataError(f"{movie}: frame {frame} cannot be read; is it the video that was labelled?")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), dtype=np.uint8)

    return read


def _decoded(encoded: NDArray[np.int8]) -> NDArray[np.uint8]:
    import cv2

    picture = cv2.imdecode(np.asarray(encoded).view(np.uint8), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError("a packed frame is no image")
    return np.asarray(picture, dtype=np.uint8)


def _folders(file: Path) -> list[Path]:
    return [file.parent, file.parent / "images", file.parent / "videos"]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.slp"))
    return [path] if path.suffix.lower() == ".slp" else []
