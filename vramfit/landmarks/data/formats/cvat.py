"""CVAT's XML, "CVAT for images 1.1": skeletons, or points with a label each.

    <annotations>
      <image id="0" name="001.png" width="640" height="800" subset="train">
        <skeleton label="skull"><points label="S" points="310.0,402.0" outside="0"/></skeleton>
        <points label="N" points="455.5,371.0"/>
      </image>
    </annotations>

A point that is `outside` is missing. Where one <points> holds several, they are called by its label and their number.
"""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.formats.assemble import RATER, Draft, complete, find_film, image_size
from vramfit.landmarks.data.formats.csv_files import without_suffix
from vramfit.landmarks.data.issues import finding
from vramfit.landmarks.data.marked import MarkedSet, split_called

_HEAD_BYTES = 64 * 1024


class Cvat:
    """Film sets as CVAT's XML."""

    name = "cvat"
    title = "CVAT XML"

    def detect(self, path: Path) -> bool:
        """Whether the file, or one in the folder, begins as CVAT's XML does."""
        return any(_looks_right(file) for file in _files(path))

    def read(self, path: Path) -> MarkedSet:
        """The images of all such files."""
        files = [file for file in _files(path) if _looks_right(file)]
        if not files:
            raise DataError(f"{path}: no XML of CVAT in it.")
        drafts = [draft for file in files for draft in _drafts(file)]
        annotations = (mark for draft in drafts for mark in draft.annotations.values())
        return complete(path, (landmark for mark in annotations for landmark in mark.landmarks), drafts)


def _drafts(file: Path) -> Iterator[Draft]:
    try:
        images = ET.parse(file).getroot().iter("image")
        yield from (_draft(file, image) for image in images)
    except ET.ParseError as error:
        raise DataError(f"{file}: not valid XML ({error}); export it again.") from None


def _draft(file: Path, image: ET.Element) -> Draft:
    name, subset = image.get("name", ""), image.get("subset", "")
    folders = [file.parent, file.parent / "images", file.parent / "images" / subset, file.parent / subset]
    split = split_called(subset) or split_called(Path(name.replace("\\", "/")).parent.name)
    draft = Draft(without_suffix(name), find_film(name, folders), split)
    draft.size = image_size(image.get("width"), image.get("height"))
    place = f"{file}, image {image.get('id', name)}"
    try:
        positions = dict(_points(image))
    except ValueError:
        draft.faults.append(finding("unreadable_annotation", place, "a point in it has no numbers x and y."))
        return draft
    if positions:
        landmarks = tuple(named(label) for label in positions)
        places = {named(label).symbol: at for label, at in positions.items()}
        draft.mark(RATER, Annotation(place, landmarks, places))
    return draft


def _points(image: ET.Element) -> Iterator[tuple[str, tuple[float, float]]]:
    for element in image.iter("points"):
        label, written = element.get("label", ""), [pair for pair in element.get("points", "").split(";") if pair]
        outside = element.get("outside") == "1"
        for number, pair in enumerate(written, 1):
            x, y = (float(value) for value in pair.split(","))
            name = label if len(written) == 1 else f"{label} {number}"
            yield name, (np.nan, np.nan) if outside else (x, y)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.xml"))
    return [path] if path.suffix.lower() == ".xml" else []


def _looks_right(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            head = content.read(_HEAD_BYTES)
    except OSError:
        return False
    return b"<annotations" in head and (b"<image" in head or b"<meta" in head)
