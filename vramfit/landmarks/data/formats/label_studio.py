"""Label Studio's JSON export: a list of tasks, points in per cent of the image.

    [{"data": {"img": "/data/upload/1/0a1b2c3d-001.png"},
      "annotations": [{"completed_by": 1, "result": [
        {"type": "keypointlabels", "original_width": 640, "original_height": 800,
         "value": {"x": 48.4, "y": 50.25, "keypointlabels": ["S"]}}]}]}]

Annotators are raters. Images are looked for by the name they had before the upload, and by that with Label Studio's
eight letters in front.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.formats.assemble import RATER, Draft, complete, find_film, image_size
from vramfit.landmarks.data.formats.csv_files import without_suffix
from vramfit.landmarks.data.formats.json_files import begins, entries, json_files, load
from vramfit.landmarks.data.issues import finding
from vramfit.landmarks.data.marked import MarkedSet

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


class LabelStudio:
    """Film sets as Label Studio's JSON."""

    name = "labelstudio"
    title = "Label Studio"

    def detect(self, path: Path) -> bool:
        """Whether the file, or one in the folder, is a list of tasks with key points."""
        return any(begins(file, "[", "keypointlabels") for file in json_files(path))

    def read(self, path: Path) -> MarkedSet:
        """The films of all such files."""
        files = [file for file in json_files(path) if begins(file, "[", "keypointlabels")]
        if not files:
            raise DataError(f"{path}: no JSON of Label Studio in it.")
        tasks = [(file, number, task) for file in files for number, task in enumerate(load(file), 1)]
        drafts = [_draft(*task) for task in tasks if isinstance(task[2], dict)]
        annotations = (mark for draft in drafts for mark in draft.annotations.values())
        return complete(path, (landmark for mark in annotations for landmark in mark.landmarks), drafts)


def _draft(file: Path, number: int, task: Mapping[str, Any]) -> Draft:
    place = f"{file}, task {task.get('id', number)}"
    name = PurePosixPath(_image(task).split("?d=")[-1].split("?")[0].replace("\\", "/")).name
    folders = [file.parent, file.parent / "images", file.parent.parent / "images"]
    paths = [find_film(one, folders) for one in dict.fromkeys((_UPLOADED.sub("", name), name))]
    path = next((found for found in paths if found.is_file()), paths[0])
    draft = Draft(without_suffix(_UPLOADED.sub("", name)) or str(number), path)
    for rater, results in _by_rater(task):
        try:
            _mark(draft, rater, place, results)
        except (KeyError, TypeError, ValueError):
            message = "a point in it lacks x, y, its label or the image's original_width and original_height."
            draft.faults.append(finding("unreadable_annotation", place, message))
    return draft


def _image(task: Mapping[str, Any]) -> str:
    """The image's path among a task's data: the one that looks like a file, whatever the project calls it."""
    data = task.get("data")
    values = [str(value) for value in (data.values() if isinstance(data, dict) else task.values())]
    looks_right = [value for value in values if re.search(r"\.\w{2,5}(\?|$)", value) and "\n" not in value]
    return next(iter(looks_right), "")


def _by_rater(task: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Each annotator's points, whatever export they are of: the whole JSON, the small one, the old `completions`."""
    whole = [*entries(task, "annotations"), *entries(task, "completions")]
    whole = [one for one in whole if not one.get("was_cancelled")]
    for one in whole:
        found = [result for result in entries(one, "result") if "keypointlabels" in result.get("value", {})]
        if found:
            yield (str(one.get("completed_by", RATER)) if len(whole) > 1 else RATER), found
    small = [result for name in task for result in entries(task, name) if "keypointlabels" in result]
    if small:
        yield RATER, [{**result, "value": result} for result in small]


def _mark(draft: Draft, rater: str, place: str, results: Sequence[Mapping[str, Any]]) -> None:
    positions: dict[str, tuple[float, float]] = {}
    for result in results:
        width, height, value = int(result["original_width"]), int(result["original_height"]), result["value"]
        draft.size = draft.size or image_size(width, height)
        label = str(value["keypointlabels"][0])
        positions[label] = float(value["x"]) / 100 * width, float(value["y"]) / 100 * height
    landmarks = tuple(named(label) for label in positions)
    draft.mark(rater, Annotation(place, landmarks, {named(label).symbol: at for label, at in positions.items()}))
