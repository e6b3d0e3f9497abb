"""Film sets of any format written anew in 'Aariz layout or as COCO keypoints, with everything that was read of them.

Films are copied as they are; those in formats of medicine are written as PNG, whose pixels no other program reads
otherwise. A film's id becomes the name of its file, with `_` for `/`.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vramfit.errors import CannotWrite, DataError
from vramfit.files import write_atomically
from vramfit.landmarks.data.annotation import Annotation
from vramfit.landmarks.data.films import Landmark, Skipped
from vramfit.landmarks.data.formats.aariz import MACHINES_FILE, RATERS
from vramfit.landmarks.data.image import film_size, read_film
from vramfit.landmarks.data.marked import SPLITS, MarkedFilm, MarkedSet
from vramfit.landmarks.data.medical import is_medical

Target = Literal["aariz", "coco"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Converted:
    """How many films were written, which were left out, and decisions, one sentence each."""

    films: int
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Written:
    """A film in its new place: `name` is its id there."""

    film: MarkedFilm
    name: str
    path: Path
    size: tuple[int, int]


def convert(
    marked: MarkedSet,
    folder: Path,
    target: Target,
    *,
    skip_bad: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Converted:
    """Write a film set into a new or empty folder.

    Raises:
        DataError: a film that cannot be used, unless `skip_bad`; two films that would have one name.
        CannotWrite: the folder holds something, or cannot be written.

    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotWrite(f"{folder} is there already; name a new or empty folder.")
    usable, skipped = _usable(marked, skip_bad)
    _require_names_apart(usable)
    place = _aariz_place if target == "aariz" else _coco_place
    written = []
    for film in usable:
        written.append(_copied(film, place(folder, film)))
        progress(len(written), len(usable))
    raters, notes = _raters(usable)
    if target == "aariz":
        _write_aariz(folder, marked.landmarks, written, raters)
    else:
        _write_coco(folder, marked.landmarks, written)
    return Converted(len(written), tuple(skipped), (*marked.notes, *(notes if target == "aariz" else ())))


def _usable(marked: MarkedSet, skip_bad: bool) -> tuple[list[MarkedFilm], list[Skipped]]:
    usable, skipped = [], []
    for film in marked.films:
        try:
            _require_usable(film)
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append(Skipped.of(film.id, str(error)))
        else:
            usable.append(film)
    if not usable:
        raise DataError(f"{marked.root}: none of its {len(marked.films)} films can be used.")
    return usable, skipped


def _require_usable(film: MarkedFilm) -> None:
    faults = [fault for fault in film.faults if fault.kind != "missing_pixel_size"]
    for fault in (*faults, *film.wrong_size(film_size(film.path))):
        raise DataError(f"{fault.place}: {fault.message.removesuffix('.')}, or use --skip-bad.")
    if not film.split:
        raise DataError(f"{film.path}: it is of none of the splits {', '.join(SPLITS)}; name one, or use --skip-bad.")
    if not film.is_marked:
        raise DataError(f"{film.path}: no rater has marked this film; mark it or use --skip-bad.")


def _require_names_apart(films: Sequence[MarkedFilm]) -> None:
    seen: dict[tuple[str, str], MarkedFilm] = {}
    for film in films:
        other = seen.setdefault((film.split, _name(film).casefold()), film)
        if other is not film:
            raise DataError(f"{film.path}: it would have the name of {other.path}; rename one, or use --skip-bad.")


def _name(film: MarkedFilm) -> str:
    return film.id.replace("\\", "/").strip("/").replace("/", "_")


def _file_name(film: MarkedFilm) -> str:
    return _name(film) + (".png" if is_medical(film.path) else film.path.suffix.lower())


def _aariz_place(folder: Path, film: MarkedFilm) -> Path:
    return folder / film.split / "Cephalograms" / _file_name(film)


def _coco_place(folder: Path, film: MarkedFilm) -> Path:
    return folder / "images" / film.split / _file_name(film)


def _copied(film: MarkedFilm, path: Path) -> _Written:
    write_atomically(path, _png(film.path) if is_medical(film.path) else film.path.read_bytes())
    return _Written(film, _name(film), path, film_size(path))


def _png(path: Path) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", read_film(path))[1].tobytes())


def _raters(films: Sequence[MarkedFilm]) -> tuple[Mapping[str, str], list[str]]:
    """What each rater of the set is called in 'Aariz layout, which has two, and what was decided."""
    names = list(dict.fromkeys(rater for film in films for rater in film.annotations))
    known = {name: name for name in names if name in RATERS}
    free = [rater for rater in RATERS if rater not in known]
    renamed = dict(zip([name for name in names if name not in known], free, strict=False))
    lost = [name for name in names if name not in known and name not in renamed]
    notes = [f"Rater '{name}' is the {rater} one of the 'Aariz layout." for name, rater in renamed.items()]
    return {**known, **renamed}, notes + [f"Rater '{name}' is left out: the layout has two." for name in lost]


def _write_aariz(
    folder: Path, landmarks: Sequence[Landmark], written: Sequence[_Written], raters: Mapping[str, str]
) -> None:
    for one in written:
        annotations = folder / one.film.split / "Annotations" / "Cephalometric Landmarks"
        for rater, annotation in one.film.annotations.items():
            if rater in raters:
                content = {"ceph_id": one.name, "landmarks": list(_aariz_entries(landmarks, annotation))}
                _write_json(annotations / RATERS[raters[rater]] / f"{one.name}.json", content)
    if any(one.film.pixel_size_mm for one in written):
        write_atomically(folder / MACHINES_FILE, _machines_csv(written))


def _aariz_entries(landmarks: Sequence[Landmark], annotation: Annotation) -> Iterator[dict[str, Any]]:
    for landmark in landmarks:
        x, y = annotation.positions.get(landmark.symbol, (math.nan, math.nan))
        value = None if math.isnan(x) or math.isnan(y) else {"x": _plain(x), "y": _plain(y)}
        names = {"landmark_id": landmark.symbol, "title": landmark.title, "symbol": landmark.symbol}
        yield {**names, "value": value}


def _machines_csv(written: Sequence[_Written]) -> str:
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["cephalogram_id", "machine", "pixel_size_x", "pixel_size_y", "image_format", "mode"])
    for one in written:
        sizes = one.film.pixel_size_mm or ("", "")
        rows.writerow([one.name, one.film.machine, *sizes, one.path.suffix[1:], one.film.split])
    return text.getvalue()


def _write_coco(folder: Path, landmarks: Sequence[Landmark], written: Sequence[_Written]) -> None:
    names = [landmark.symbol for landmark in landmarks]
    categories = [{"id": 1, "name": "film", "keypoints": names, "skeleton": []}]
    for split in dict.fromkeys(one.film.split for one in written):
        images, annotations = [], list[dict[str, Any]]()
        for number, one in enumerate((one for one in written if one.film.split == split), 1):
            images.append(_coco_image(number, one))
            for rater, annotation in one.film.annotations.items():
                marked = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "rater": rater}
                annotations.append({**marked, **_coco_keypoints(names, annotation)})
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        _write_json(folder / "annotations" / f"{split}.json", content)


def _coco_image(number: int, one: _Written) -> dict[str, Any]:
    entry = {"id": number, "file_name": one.path.name, "width": one.size[0], "height": one.size[1]}
    sizes = {"pixel_size_mm": list(one.film.pixel_size_mm)} if one.film.pixel_size_mm else {}
    return {**entry, **sizes, "machine": one.film.machine}


def _coco_keypoints(names: Sequence[str], annotation: Annotation) -> dict[str, Any]:
    places = annotation.points(names).tolist()
    rows = [(0, 0, 0) if math.isnan(x) or math.isnan(y) else (_plain(x), _plain(y), 2) for x, y in places]
    known = [row for row in rows if row[2]]
    left, top = (min((row[axis] for row in known), default=0) for axis in (0, 1))
    right, bottom = (max((row[axis] for row in known), default=0) for axis in (0, 1))
    box = [left, top, right - left, bottom - top]
    keypoints = [value for row in rows for value in row]
    return {"keypoints": keypoints, "num_keypoints": len(known), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def _plain(value: float) -> float | int:
    """A whole number as one, as raters write them."""
    return int(value) if value == int(value) else value


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
