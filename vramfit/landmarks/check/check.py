"""Checking a film set without changing it: everything wrong at once, each in a sentence."""

from collections.abc import Callable
from pathlib import Path

from pydantic import computed_field

from vramfit.landmarks.check.coordinates import coordinate_findings
from vramfit.landmarks.check.equal_points import equal_findings
from vramfit.landmarks.check.films import film_findings, look, repeated_films
from vramfit.landmarks.check.points import point_findings
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import SPLITS, MarkedSet, split_of_file
from vramfit.records import Record

Progress = Callable[[int, int], None]


class CheckReport(Record):
    """What a check found: films by split, the landmarks most have, how the set was read, and what is wrong with it."""

    root: str
    films: dict[str, int]
    landmarks: tuple[str, ...]
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(found.severity == "error" for found in self.findings)


def check_films(
    path: str | Path, *, film_format: str | None = None, progress: Progress = lambda _done, _total: None
) -> CheckReport:
    """Look at every film, annotation and row of a set; nothing is changed.

    Args:
        path: the folder or file of the set.
        film_format: its format; None to detect it.
        progress: called with the films done and the films in all.

    Raises:
        DataError: nothing there that can be read.
        UsageError: no such format.

    """
    marked = read_films(path, film_format)
    folder = marked.root if marked.root.is_dir() else marked.root.parent
    found = tuple(dict.fromkeys(_from(folder, each) for each in _findings(marked, progress)))
    counts = {split: sum(film.split == split for film in marked.films) for split in SPLITS}
    symbols = tuple(landmark.symbol for landmark in marked.landmarks)
    only = _only_split(marked)
    notes = (
        *marked.notes,
        *([f"This file is the split '{only}' alone; name its folder to check all."] if only else []),
    )
    return CheckReport(root=str(marked.root), films=counts, landmarks=symbols, notes=notes, findings=found)


def _findings(marked: MarkedSet, progress: Progress) -> list[Finding]:
    films = []
    for film in look(marked.films):
        films.append(film)
        progress(len(films), len(marked.films))
    symbols = [landmark.symbol for landmark in marked.landmarks]
    repeated = list(repeated_films(films))
    return [
        *marked.findings,
        *_empty_splits(marked),
        *(fault for film in marked.films for fault in film.faults),
        *(found for film in films for found in film_findings(film, has_millimetres=marked.has_millimetres)),
        *repeated,
        *point_findings(films, symbols),
        *equal_findings(marked.films, symbols, {found.place for found in repeated}),
        *coordinate_findings(marked.films, symbols),
    ]


def _empty_splits(marked: MarkedSet) -> list[Finding]:
    """The splits that training needs and that no film is in, where the format says nothing of them itself."""
    if _only_split(marked):
        return []
    there = {film.split for film in marked.films}
    missing = [split for split in ("train", "valid") if split not in there and split not in marked.refusals]
    return [finding("empty_split", marked.root, f"no film is in the split '{split}'.") for split in missing]


def _only_split(marked: MarkedSet) -> str:
    """The split of a file that is one split of a set by its name, such as train.json; empty for other sets."""
    split = split_of_file(marked.root) if marked.root.is_file() else ""
    return split if {film.split for film in marked.films} == {split} else ""


def _from(folder: Path, found: Finding) -> Finding:
    """The finding with its place seen from the set's folder."""
    place = Path(found.place)
    if place.is_relative_to(folder):
        place = place.relative_to(folder)
    return found.model_copy(update={"place": place.as_posix()})
