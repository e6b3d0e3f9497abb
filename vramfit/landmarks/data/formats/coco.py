"""COCO keypoints: one JSON a split, or one for all.

    {"images": [{"id": 1, "file_name": "001.png", "width": 640, "height": 800, "pixel_size_mm": [0.30, 0.31]}],
     "annotations": [{"image_id": 1, "category_id": 1, "keypoints": [x, y, visibility, ...]}],
     "categories": [{"id": 1, "name": "skull", "keypoints": ["S", "N", ...]}]}

COCO knows no millimetres: `pixel_size_mm`, a number or [x, y], may stand in an image or, for all, in `info`; so may
`machine` and `split` in an image and `rater` in an annotation. Visibility 0 is a missing landmark. Several categories
of the same keypoints are one set; keypoints may be nested, [[x, y, visibility], ...]; without names they are called 1,
2 and so on. Roboflow's layout, `{train,valid,test}/_annotations.coco.json` beside the images, is read too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.formats.assemble import RATER, Draft, complete, find_film
from vramfit.landmarks.data.formats.csv_files import without_suffix
from vramfit.landmarks.data.formats.json_files import load
from vramfit.landmarks.data.formats.subjects import Marked, films_of, note
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import MarkedSet, split_called, split_of_file

_HEAD_BYTES = 64 * 1024
_KEYS = (b'"images"', b'"annotations"', b'"categories"')


class Coco:
    """Film sets as COCO keypoints."""

    name = "coco"
    title = "COCO keypoints"

    def detect(self, path: Path) -> bool:
        """Whether the file, or one in the folder or its `annotations`, begins as COCO's JSON does."""
        return any(_looks_right(file) for file in _files(path))

    def read(self, path: Path) -> MarkedSet:
        """The films of the file, or of all such files in the folder."""
        files = [file for file in _files(path) if path.is_file() or _looks_right(file)]
        if not files:
            raise DataError(f"{path}: no COCO JSON in it.")
        readings = [_Reading(file) for file in files]
        return complete(
            path,
            [landmark for reading in readings for landmark in reading.landmarks],
            [draft for reading in readings for draft in reading.films],
            [found for reading in readings for found in reading.findings],
            dict.fromkeys(note for reading in readings for note in reading.notes),
        )


class _Reading:
    """One file's images and their keypoints."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _load(path)
        self.categories, names, self.notes = _categories(path, content)
        self.landmarks = tuple(named(name) for name in names)
        self.findings: list[Finding] = []
        self.drafts: dict[Any, Draft] = {}
        usual = _entry(content.get("info")).get("pixel_size_mm")
        for number, image in enumerate(_entries(content, "images"), 1):
            self._add_image(number, image, usual)
        self._marks: dict[Any, list[Marked]] = {}
        for number, annotation in enumerate(_entries(content, "annotations"), 1):
            self._add_annotation(number, annotation)
        self.films = [
            film for image, draft in self.drafts.items() for film in films_of(draft, self._marks.get(image, []))
        ]
        self.notes = [*self.notes, *note(self.films, len(self.drafts))]

    def _add_image(self, number: int, image: Mapping[str, Any], usual: Any) -> None:
        place, name = f"{self.path}, image {image.get('id', number)}", image.get("file_name")
        if not isinstance(name, str) or not name or image.get("id") is None:
            self.findings.append(finding("unreadable_annotation", place, "it has no id or no file_name."))
            return
        split = str(image.get("split") or split_of_file(self.path))
        draft = Draft(without_suffix(name), find_film(name, _folders(self.path, split)), split)
        draft.machine, draft.size = str(image.get("machine") or ""), _size(image)
        try:
            draft.pixel_size_mm = _pixel_size(image.get("pixel_size_mm", usual))
        except (TypeError, ValueError):
            message = "its pixel_size_mm is neither a number nor two in mm, such as 0.1."
            draft.faults.append(finding("missing_pixel_size", place, message))
        # A second image of one id gets a place of its own: it is a film too, though no annotation can mean it.
        self.drafts[image["id"] if image["id"] not in self.drafts else (image["id"], number)] = draft

    def _add_annotation(self, number: int, annotation: Mapping[str, Any]) -> None:
        if annotation.get("category_id", self.categories[0]) not in self.categories or not annotation.get("keypoints"):
            return
        place = f"{self.path}, annotation {annotation.get('id', number)}"
        draft = self.drafts.get(annotation.get("image_id"))
        if draft is None:
            self.findings.append(finding("orphan_annotation", place, "there is no image of its image_id."))
            return
        try:
            positions = _positions(annotation["keypoints"], self.landmarks)
        except (TypeError, ValueError) as error:
            draft.faults.append(finding("unreadable_annotation", place, f"{error}."))
            return
        rater = str(annotation.get("rater") or RATER).lower()
        marked = Marked.of(rater, Annotation(place, self.landmarks, positions), annotation)
        self._marks.setdefault(annotation.get("image_id"), []).append(marked)


def _load(path: Path) -> Mapping[str, Any]:
    content = load(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: no COCO JSON; it is not an object with images, annotations and categories.")
    return content


def _entries(content: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    entries = content.get(name)
    yield from (_entry(one) for one in entries) if isinstance(entries, list) else ()


def _entry(one: Any) -> Mapping[str, Any]:
    return one if isinstance(one, dict) else {}


def _categories(path: Path, content: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[str], Sequence[str]]:
    """The ids of the categories that have keypoints, the names of these, and what was decided about them."""
    entries = list(_entries(content, "categories"))
    found = {one.get("id"): [str(name) for name in one["keypoints"]] for one in entries if one.get("keypoints")}
    if not found and entries and (count := _most_keypoints(content)):
        note = f"{path.name} names no landmarks: they are called 1 to {count}, in their order."
        return [one.get("id") for one in entries], [str(place) for place in range(1, count + 1)], [note]
    if len({tuple(sorted(names)) for names in found.values()}) != 1:
        raise DataError(f"{path}: {len(found)} categories with names of keypoints where one is needed.")
    names = next(iter(found.values()))
    if any(other != names for other in found.values()):
        raise DataError(f"{path}: its categories list the same keypoints in different orders; write them in one order.")
    if len({named(name).symbol for name in names}) < len(names):
        raise DataError(f"{path}: two of its keypoints have one name; landmarks are joined by name.")
    return list(found), names, []


def _most_keypoints(content: Mapping[str, Any]) -> int:
    """How many keypoints the annotations have at most."""
    every = (one.get("keypoints") for one in _entries(content, "annotations"))
    counts = [
        len(some) if isinstance(some[0], list) else len(some) // 3 for some in every if isinstance(some, list) and some
    ]
    return max(counts, default=0)


def _positions(keypoints: Any, landmarks: Sequence[Landmark]) -> dict[str, tuple[float, float]]:
    values = np.asarray(keypoints, dtype=np.float64)
    if values.size != 3 * len(landmarks) or (values.ndim == 2 and values.shape[1] != 3):
        raise ValueError(f"its keypoints are {values.size} numbers where {len(landmarks)} of x, y, visibility are due")
    rows = values.reshape(-1, 3)
    places = np.where(rows[:, 2:] > 0, rows[:, :2], np.nan).tolist()
    return {landmark.symbol: (x, y) for landmark, (x, y) in zip(landmarks, places, strict=True)}


def _pixel_size(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    across, down = value if isinstance(value, list) else (value, value)
    size = float(across), float(down)
    if not (0 < size[0] < np.inf and 0 < size[1] < np.inf):
        raise ValueError
    return size


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _folders(path: Path, split: str) -> list[Path]:
    """Where a file's films may be: beside it, in `images`, and in folders named as splits are."""
    bases = [path.parent, path.parent.parent] if path.parent.name.lower() == "annotations" else [path.parent]
    below = [folder for base in bases for folder in (base, base / "images")]
    stem = next(iter(re.findall(r"[a-z]+\d*$", path.stem.lower())), split)
    return [*below, *(folder / name for folder in below for name in dict.fromkeys((stem, split)) if name)]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        splits = (folder for folder in path.iterdir() if split_called(folder.name) and folder.is_dir())
        below = (file for folder in splits for file in folder.glob("*.json"))
        return sorted((*path.glob("*.json"), *path.glob("annotations/*.json"), *below))
    return [path] if path.suffix.lower() == ".json" else []


def _looks_right(file: Path) -> bool:
    """Whether COCO's keys are in a file's head or tail: the lists between may be of any length."""
    try:
        with file.open("rb") as content:
            head = content.read(_HEAD_BYTES)
            content.seek(-min(_HEAD_BYTES, file.stat().st_size), 2)
            ends = head + content.read()
    except OSError:
        return False
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and sum(key in ends for key in _KEYS) >= 2
