"""Film sets in the formats that people keep them in, read through one small interface.

A format is an object with a name, a title, `detect` and `read`. Other packages add theirs by an entry point of the
group `vramfit.formats`; docs/formats.md shows one.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from vramfit.errors import DataError, UsageError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.films import Film, FilmSet, Landmark
from vramfit.landmarks.data.formats.aariz import Aariz
from vramfit.landmarks.data.formats.cl_detection import ClDetection
from vramfit.landmarks.data.formats.coco import Coco
from vramfit.landmarks.data.formats.csv_files import read_rows
from vramfit.landmarks.data.formats.cvat import Cvat
from vramfit.landmarks.data.formats.deeplabcut import DeepLabCut
from vramfit.landmarks.data.formats.isbi import Isbi
from vramfit.landmarks.data.formats.json_files import load
from vramfit.landmarks.data.formats.label_studio import LabelStudio
from vramfit.landmarks.data.formats.labelme import Labelme
from vramfit.landmarks.data.formats.points_csv import PointsCsv
from vramfit.landmarks.data.formats.sleap import Sleap
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import SPLITS, MarkedFilm, MarkedSet, split_called
from vramfit.landmarks.data.raters import Annotator
from vramfit.landmarks.data.sentinels import without_sentinels

__all__ = [
    "SPLITS",
    "Annotation",
    "Annotator",
    "Film",
    "FilmFormat",
    "FilmSet",
    "Finding",
    "Landmark",
    "MarkedFilm",
    "MarkedSet",
    "finding",
    "formats",
    "load_films",
    "named",
    "read_films",
]

GROUP = "vramfit.formats"
_REASONS = 3
_IN_PIXELS = "No film has a pixel size: distances are in pixels (px) of the films, and there are no millimetres."


class FilmFormat(Protocol):
    """A way in which film sets are kept: `name` is what `--format` calls it, `title` what people do."""

    name: str
    title: str

    def detect(self, path: Path) -> bool:
        """Whether a folder or file that exists looks like a film set in this format; quick, and it never raises."""

    def read(self, path: Path) -> MarkedSet:
        """All films of all splits. What is wrong with one film or one split goes into the set.

        Raises:
            DataError: nothing of it can be read.

        """


def read_films(path: str | Path, film_format: str | None = None) -> MarkedSet:
    """The film set at a path, in the format named, or in the only one that it looks like.

    Raises:
        UsageError: no format has that name, or its package cannot be loaded.
        DataError: nothing at this path, no format or several that it looks like, or nothing that can be read.

    """
    path = Path(path)
    require_film_set(path)
    marked = without_sentinels((_detected(path) if film_format is None else _called(film_format)).read(path))
    sizes_fail = any(fault.kind == "missing_pixel_size" for film in marked.films for fault in film.faults)
    if marked.has_millimetres or sizes_fail or not marked.films:
        return marked
    return replace(marked, notes=(*marked.notes, _IN_PIXELS))


def require_film_set(path: Path) -> None:
    """Refuse a film set that is not there, before anything else is done.

    Raises:
        DataError: nothing at this path.

    """
    if not path.exists():
        raise DataError(f"{path}: no such folder or file; give that of a film set.")


def load_films(
    path: str | Path,
    split: str,
    annotator: Annotator = "mean",
    *,
    film_format: str | None = None,
    skip_bad: bool = False,
    landmarks: tuple[Landmark, ...] | None = None,
) -> FilmSet:
    """The films of one split of the film set at a path: see `read_films` and `MarkedSet.of_split`."""
    marked = read_films(path, film_format)
    return marked.of_split(split, annotator, skip_bad=skip_bad, landmarks=landmarks)


def formats() -> dict[str, FilmFormat]:
    """Every format by its name: vramfit's own, then those of other packages.

    Raises:
        UsageError: a package's format cannot be loaded.

    """
    others = {point.name: _loaded(point) for point in _others()}
    return {**others, **{own.name: own for own in _OWN}}


_OWN: tuple[FilmFormat, ...] = (
    *(Aariz(), Coco(), PointsCsv(), DeepLabCut(), Isbi(), ClDetection(), Cvat(), LabelStudio(), Labelme(), Sleap()),
)


def _others() -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=GROUP), key=lambda point: point.name))


def _loaded(point: EntryPoint) -> FilmFormat:
    try:
        found = point.load()
        return found() if isinstance(found, type) else found  # type: ignore[no-any-return]  # the group's promise
    except Exception as error:
        raise UsageError(
            f"the film format '{point.name}' ({point.value}) cannot be loaded: {error}; "
            "mend or remove its package, or name another --format."
        ) from error


def _called(name: str) -> FilmFormat:
    own = {one.name: one for one in _OWN}
    others = {point.name: point for point in _others()}
    if name in own:
        return own[name]
    if name in others:
        return _loaded(others[name])
    raise UsageError(f"no film format is called '{name}'; use one of {', '.join([*own, *others])}.")


def _detected(path: Path) -> FilmFormat:
    found = [(name, one) for name, one in formats().items() if one.detect(path)]
    if len(found) == 1:
        return found[0][1]
    if found:
        names = ", ".join(f"--format {name}" for name, _ in found)
        raise DataError(f"{path}: it looks like a film set in several formats; choose one: {names}.")
    above = path.resolve().parent
    if split_called(path.resolve().name) and any(one.detect(above) for one in formats().values()):
        raise DataError(f"{path}: one split of the film set in {above}; give that folder.")
    titles = ", ".join(one.title for one in formats().values())
    told = f"no film set in a known format ({titles}); see docs/formats.md, or name one by --format"
    raise DataError(f"{path}: {told}.{''.join(f' {reason}' for reason in _reasons(path))}")


def _reasons(path: Path) -> Iterator[str]:
    """What is wrong with the first files that might have been meant, a sentence each."""
    files = [path] if path.is_file() else sorted(file for kind in ("*.json", "*.csv") for file in path.glob(kind))
    for file in files[:_REASONS]:
        try:
            if file.suffix.lower() == ".json":
                content = load(file)
                keys = (
                    f"an object with {', '.join(map(str, list(content)[:4]))}"
                    if isinstance(content, dict)
                    else "a list"
                )
                yield f"{file.name} is {keys}."
            elif file.suffix.lower() == ".csv":
                columns = (read_rows(file, most=1) or [[]])[0]
                yield f"{file.name} has the columns {', '.join(columns[:6]) or 'none'}."
        except DataError as error:
            yield f"{file.name}: {str(error).removeprefix(f'{file}: ')}"
