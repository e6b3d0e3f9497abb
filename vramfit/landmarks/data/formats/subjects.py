"""Several subjects in one image: each becomes a film of its own, cropped around its keypoints and box."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation
from vramfit.landmarks.data.formats.assemble import Draft
from vramfit.landmarks.data.image import film_size, read_film
from vramfit.landmarks.data.unpacked import unpacked

Box = NDArray[np.float64]

MARGIN = 0.2
# Boxes of one subject by two raters overlap by more, those of two subjects seldom do.
_SAME = 0.5


@dataclass(frozen=True)
class Marked:
    """One annotation: who made it, its points, and its box (left, top, right, bottom), NaN where nothing is known."""

    rater: str
    annotation: Annotation
    box: Box

    @classmethod
    def of(cls, rater: str, annotation: Annotation, entry: Mapping[str, Any]) -> "Marked":
        """With the box around its points and COCO's `bbox`, [left, top, width, height], where that is one."""
        places = np.array([*annotation.positions.values(), (np.nan, np.nan)], dtype=np.float64)
        low, high = np.fmin.reduce(places), np.fmax.reduce(places)
        try:
            left, top, width, height = (float(value) for value in entry.get("bbox", ()))
        except (TypeError, ValueError):
            return cls(rater, annotation, np.concatenate([low, high]))
        if width > 0 and height > 0:
            low, high = np.fmin(low, (left, top)), np.fmax(high, (left + width, top + height))
        return cls(rater, annotation, np.concatenate([low, high]))


def films_of(draft: Draft, marks: Sequence[Marked]) -> list[Draft]:
    """The draft with its annotations; of several subjects, a draft for each, in order of the annotations."""
    subjects = _subjects(marks)
    if len(subjects) > 1 and _is_as_said(draft):
        return [_cropped(draft, number, subject) for number, subject in enumerate(subjects, 1)]
    for mark in marks:
        draft.mark(mark.rater, mark.annotation)
    return [draft]


def _subjects(marks: Sequence[Marked]) -> list[list[Marked]]:
    found: list[list[Marked]] = []
    for mark in marks:
        same = next((subject for subject in found if _overlap(subject[0].box, mark.box) > _SAME), None)
        if same is None:
            found.append([mark])
        else:
            same.append(mark)
    return found


def _overlap(one: Box, other: Box) -> float:
    """The intersection of two boxes over their union; 1 where one has none, as that of a film without points."""
    if not np.isfinite([one, other]).all():
        return 1.0
    shared = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])).prod()
    union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared
    return float(shared / union) if union > 0 else float(np.array_equal(one, other))


def _is_as_said(draft: Draft) -> bool:
    """Whether the image can be read and has the size that its set says: else it is told of as a whole."""
    try:
        size = film_size(draft.path)
    except DataError:
        return False
    return draft.size in (None, size)


def _cropped(draft: Draft, number: int, subject: Sequence[Marked]) -> Draft:
    left, top, right, bottom = _crop(subject, film_size(draft.path))
    part = f"{left},{top},{right},{bottom}"
    path = unpacked(draft.path, part, lambda: read_film(draft.path)[top:bottom, left:right])
    film = Draft(f"{draft.id}_{number}", path, draft.split, draft.pixel_size_mm, draft.machine)
    film.size, film.image, film.faults = (right - left, bottom - top), draft.id, list(draft.faults)
    for mark in subject:
        moved = {symbol: (x - left, y - top) for symbol, (x, y) in mark.annotation.positions.items()}
        film.mark(mark.rater, replace(mark.annotation, positions=moved))
    return film


def _crop(subject: Sequence[Marked], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels around a subject's boxes, with a margin, within the image."""
    boxes = np.array([mark.box for mark in subject])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = MARGIN * max(float((high - low).max()), 1.0)
    left, top = (int(value) for value in np.clip(np.floor(low - margin), 0, np.array(size) - 1))
    right, bottom = (int(value) for value in np.clip(np.ceil(high + margin) + 1, (left + 1, top + 1), size))
    return left, top, right, bottom


def note(drafts: Sequence[Draft], images: int) -> Iterator[str]:
    """A sentence where images were cut into subjects."""
    if len(drafts) > images:
        yield (
            f"Images with several subjects give a film for each, cropped with a margin of {100 * MARGIN:g} %: "
            f"{len(drafts)} films of {images} images."
        )
