"""The CL-Detection challenges' JSON: landmarks by number, each with the number of its image.

    {"type": "Multiple points", "points": [{"name": "1", "point": [835.1, 993.6, 1]}, ...]}

The third number is the image's place in the challenge's stack, from 1. Images are looked for one a file, as 1.png,
001.png or 1.mha, in the folder, in `images` and in folders of splits, or in the only stack there (.mha, extra `mha`),
whose films are unpacked into the folder of caches.
Pixel sizes come from films.csv, from .mha files, or from a list "spacing" in the JSON where there is one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.formats.assemble import RATER, Draft, complete, find_film
from vramfit.landmarks.data.formats.json_files import begins, entries, json_files, load
from vramfit.landmarks.data.grey import to_bytes
from vramfit.landmarks.data.image import SUFFIXES
from vramfit.landmarks.data.issues import finding
from vramfit.landmarks.data.marked import MarkedSet, split_called
from vramfit.landmarks.data.medical import from_stack, stack_size
from vramfit.landmarks.data.unpacked import unpacked

_WIDTHS = (0, 2, 3, 4)


class ClDetection:
    """Film sets as the challenges' JSON."""

    name = "cldetection"
    title = "CL-Detection JSON"

    def detect(self, path: Path) -> bool:
        """Whether the file, or one in the folder, is a list of named points."""
        return any(begins(file, "{", "points", "point", "name") for file in json_files(path))

    def read(self, path: Path) -> MarkedSet:
        """The films of all such files."""
        files = [file for file in json_files(path) if begins(file, "{", "points", "point", "name")]
        if not files:
            raise DataError(f"{path}: no JSON of CL-Detection in it.")
        drafts = [draft for file in files for draft in _drafts(file)]
        annotations = (mark for draft in drafts for mark in draft.annotations.values())
        return complete(path, (landmark for mark in annotations for landmark in mark.landmarks), drafts)


def _drafts(file: Path) -> Iterator[Draft]:
    content = load(file)
    points: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
    faults: dict[int, str] = {}
    for place, entry in enumerate(entries(content, "points"), 1):
        try:
            x, y, number = (float(value) for value in entry["point"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{file}: point {place} of it is not x, y and the number of an image.") from None
        label = named(entry.get("name", place)).symbol
        if label in points[int(number)]:
            faults[int(number)] = f"landmark '{label}' of image {int(number)} is listed twice."
        points[int(number)][label] = x, y
    words = file.stem.replace("-", "_").split("_")
    split = next((found for word in words if (found := split_called(word))), "")
    for number, positions in sorted(points.items()):
        draft = Draft(str(number), _film(file.parent, number), split)
        draft.pixel_size_mm = _spacing(content, number)
        landmarks = tuple(named(label) for label in sorted(positions, key=_order))
        draft.mark(RATER, Annotation(f"{file}, image {number}", landmarks, positions))
        if number in faults:
            draft.faults.append(finding("unreadable_annotation", f"{file}, image {number}", faults[number]))
        yield draft


def _film(folder: Path, number: int) -> Path:
    below = [child for child in sorted(folder.iterdir()) if child.is_dir()]
    folders = [folder, folder / "images", *below]
    paths = [find_film(f"{number:0{width}d}", folders) for width in _WIDTHS]
    found = next((path for path in paths if path.is_file() and path.suffix.lower() in SUFFIXES), None)
    return found or _of_stack(folders, number) or paths[0]


def _of_stack(folders: Sequence[Path], number: int) -> Path | None:
    """The film's own file, unpacked from the only stack there is; None where there is none, or it has too few films."""
    stacks = [path for folder in dict.fromkeys(folders) for path in sorted(folder.glob("*.mha"))]
    try:
        if len(stacks) != 1 or not 1 <= number <= stack_size(stacks[0]):
            return None
        return unpacked(stacks[0], str(number), lambda: to_bytes(from_stack(stacks[0], number - 1)))
    except RuntimeError:
        return None  # damaged: the film is then told of as missing


def _spacing(content: Mapping[str, Any], number: int) -> tuple[float, float] | None:
    sizes = content.get("spacing")
    try:
        size = float(sizes[number - 1]) if isinstance(sizes, list) else 0.0
    except (IndexError, TypeError, ValueError):
        return None
    return (size, size) if size > 0 else None


def _order(label: str) -> tuple[bool, int, str]:
    """Numbers by their size, then words."""
    return (not label.isdigit(), int(label) if label.isdigit() else 0, label)
