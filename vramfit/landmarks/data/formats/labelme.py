"""labelme's JSON, a file an image, written beside it.

    {"shapes": [{"label": "S", "points": [[310, 402]], "shape_type": "point"}],
     "imagePath": "001.png", "imageWidth": 640, "imageHeight": 800}

Landmarks are the shapes of type `point`, by their labels; the folder `train`, `valid` or `test` is the split.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.formats.assemble import RATER, Draft, complete, find_film, image_size
from vramfit.landmarks.data.formats.csv_files import without_suffix
from vramfit.landmarks.data.formats.json_files import begins, entries, json_files, load
from vramfit.landmarks.data.issues import finding
from vramfit.landmarks.data.marked import MarkedSet, split_called


class Labelme:
    """Film sets as labelme's files."""

    name = "labelme"
    title = "labelme"

    def detect(self, path: Path) -> bool:
        """Whether the file, or one in the folder, has labelme's keys."""
        return any(begins(file, "{", "shapes", "imagePath") for file in json_files(path))

    def read(self, path: Path) -> MarkedSet:
        """The films of all such files."""
        files = [file for file in json_files(path) if begins(file, "{", "shapes", "imagePath")]
        if not files:
            raise DataError(f"{path}: no JSON of labelme in it.")
        drafts = [_draft(path, file) for file in files]
        annotations = (mark for draft in drafts for mark in draft.annotations.values())
        return complete(path, (landmark for mark in annotations for landmark in mark.landmarks), drafts)


def _draft(root: Path, file: Path) -> Draft:
    try:
        content = load(file)
    except DataError as error:
        draft = Draft(file.stem, find_film(file.stem, [file.parent]))
        message = str(error).removeprefix(f"{file}: ")
        draft.faults.append(finding("unreadable_annotation", file, message))
        return draft
    name = str(content.get("imagePath") or file.stem)
    path = find_film(name, [file.parent, file.parent.parent / "images", file.parent / "images"])
    below = file.parent != root and root.is_dir()
    split = split_called(file.parent.name) if below else ""
    draft = Draft(without_suffix(path.name) if split or not below else f"{file.parent.name}/{path.stem}", path, split)
    draft.size = image_size(content.get("imageWidth"), content.get("imageHeight"))
    try:
        positions = dict(_points(content))
    except (TypeError, ValueError, IndexError):
        draft.faults.append(finding("unreadable_annotation", file, "a point in it has no numbers x and y."))
        return draft
    landmarks = tuple(named(label) for label in positions)
    draft.mark(RATER, Annotation(str(file), landmarks, {named(label).symbol: at for label, at in positions.items()}))
    return draft


def _points(content: Any) -> Iterator[tuple[str, tuple[float, float]]]:
    for shape in entries(content, "shapes"):
        if shape.get("shape_type", "point") == "point" and shape.get("points"):
            x, y = shape["points"][0][:2]
            yield str(shape.get("label", "")), (float(x), float(y))
