"""The 'Aariz layout: films, two raters' points, machines and pixel sizes.

    {train,valid,test}/Cephalograms/<id>.{png,jpg,jpeg,bmp}
    {split}/Annotations/Cephalometric Landmarks/{Junior,Senior} Orthodontists/<id>.json
    cephalogram_machine_mappings.csv

    {"ceph_id": ..., "landmarks": [{"landmark_id": ..., "title": ..., "symbol": ..., "value": {"x": ..., "y": ...}}]}

Copies in the wild capitalise folders, lack the CVM stages or a rater, repeat ids across splits and list landmarks in
any order: folders are found whatever their case, landmarks are joined by symbol or id, and their number comes from the
data.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, common_landmarks, named
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.formats.scanners import Scanners, read_scanners, row_findings
from vramfit.landmarks.data.image import SUFFIXES
from vramfit.landmarks.data.issues import Finding, finding
from vramfit.landmarks.data.marked import SPLITS, MarkedFilm, MarkedSet

RATERS = {"senior": "Senior Orthodontists", "junior": "Junior Orthodontists"}
MACHINES_FILE = "cephalogram_machine_mappings.csv"

# Annotations by rater, and the faults met in reading them.
_Marks = tuple[dict[str, Annotation], list[Finding]]


class Aariz:
    """Film sets in 'Aariz layout."""

    name = "aariz"
    title = "'Aariz"

    def detect(self, path: Path) -> bool:
        """Whether a folder has a split with films or annotations in it."""
        splits = [_child(path, names) for names in SPLITS.values()] if path.is_dir() else []
        return any(_child(split, ("Cephalograms", "Annotations")) for split in splits if split and split.is_dir())

    def read(self, path: Path) -> MarkedSet:
        """Every split of the folder."""
        reading = _Reading(path)
        for split in SPLITS:
            reading.read(split)
        findings = reading.findings
        if reading.machines is not None:
            ids = [(film.split, film.id) for film in reading.films]
            findings += row_findings(reading.machines, ids)
        films, refusals = tuple(reading.films), reading.refusals
        return MarkedSet(path, reading.landmarks(), films, tuple(findings), refusals, mean_rounds_up=True)


class _Reading:
    """What was read of a set so far."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.films: list[MarkedFilm] = []
        self.findings: list[Finding] = []
        self.refusals: dict[str, str] = {}
        self.machines, self.machines_fault = _machines(root)

    def read(self, split: str) -> None:
        """Add a split."""
        try:
            folder = _split_folder(self.root, split)
            paths = _film_paths(folder)
        except DataError as error:
            self._refuse(split, error)
            return
        for file in sorted(paths[0].parent.iterdir()):
            if file.suffix.lower() not in SUFFIXES and not file.name.startswith("."):
                self._say("unknown_file", file, f"it is none of {', '.join(SUFFIXES)} and is passed over.")
        marks = self._marks(split, folder, {path.stem for path in paths})
        for path in paths:
            annotations, faults = marks.get(path.stem, ({}, []))
            size, machine, unknown = self._machine(path.stem, split)
            self.films.append(
                MarkedFilm(path.stem, split, path, annotations, size, machine, faults=(*faults, *unknown))
            )

    def landmarks(self) -> tuple[Landmark, ...]:
        """Those of the training films where there are any, so that all splits agree."""
        train = [film for film in self.films if film.split == "train" and film.annotations]
        return common_landmarks([mark for film in train or self.films for mark in film.annotations.values()])

    def _marks(self, split: str, folder: Path, ids: set[str]) -> dict[str, _Marks]:
        marks: dict[str, _Marks] = {film_id: ({}, []) for film_id in ids}
        try:
            folders = _rater_folders(folder)
        except DataError as error:
            self._refuse(split, error)
            return marks
        written: dict[str, set[str]] = {film_id: set() for film_id in ids}
        for rater, rater_folder in folders.items():
            for file in sorted(rater_folder.glob("*.json")):
                if file.stem not in ids:
                    self._say("orphan_annotation", file, "there is no film of this id in its split.")
                    continue
                written[file.stem].add(rater)
                self._mark(marks[file.stem], rater, file)
        self._missing_raters(self.root / split, written, set(folders))
        return marks

    def _mark(self, marks: _Marks, rater: str, file: Path) -> None:
        annotations, faults = marks
        try:
            annotation = read_annotation(file)
        except DataError as error:
            faults.append(_fault("unreadable_annotation", file, error))
            return
        annotations[rater] = annotation
        if annotation.film_id not in ("", file.stem):
            self._say("wrong_id", file, f"its ceph_id is '{annotation.film_id}'.")

    def _missing_raters(self, folder: Path, written: Mapping[str, set[str]], raters: set[str]) -> None:
        for film_id, there in sorted(written.items()):
            for rater in sorted(raters - there) if there else ():
                self._say("missing_rater", folder / film_id, f"the {rater} rater has not marked this film.")

    def _machine(self, film_id: str, split: str) -> tuple[tuple[float, float] | None, str, list[Finding]]:
        if self.machines is None:
            return None, "unknown", [self.machines_fault] if self.machines_fault else []
        try:
            machine = self.machines.of(film_id, split)
        except DataError as error:
            return None, "unknown", [_fault("missing_pixel_size", self.machines.path, error)]
        return machine.pixel_size_mm, machine.name, []

    def _refuse(self, split: str, error: DataError) -> None:
        self.refusals[split] = str(error)
        self._say("missing_folder", self.root / split, str(error).split(": ", 1)[-1])

    def _say(self, kind: str, place: Path, message: str) -> None:
        self.findings.append(finding(kind, place, message))


def read_annotation(path: Path) -> Annotation:
    """One annotation file; a byte-order mark is welcome.

    Raises:
        DataError: no JSON, no landmarks, or an entry without a name or position; names the entry.

    """
    content = _read_json(path)
    entries = content.get("landmarks") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: no 'landmarks' list in it; export the annotation again.")
    landmarks, positions = [], {}
    for number, entry in enumerate(entries, 1):
        landmark = _landmark(path, number, entry)
        if landmark.symbol in positions:
            raise DataError(f"{path}: landmark '{landmark.symbol}' is listed twice; remove one.")
        landmarks.append(landmark)
        positions[landmark.symbol] = _position(path, landmark.symbol, entry.get("value"))
    return Annotation(str(path), tuple(landmarks), positions, str(content.get("ceph_id", "")))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); export the annotation again.") from None


def _landmark(path: Path, number: int, entry: Any) -> Landmark:
    names = entry if isinstance(entry, dict) else {}
    symbol = names.get("symbol") or names.get("landmark_id") or names.get("title")
    if not symbol:
        raise DataError(f"{path}: landmark {number} has neither 'symbol' nor 'landmark_id'; it cannot be joined.")
    return named(symbol, names.get("title"))


def _position(path: Path, symbol: str, value: Any) -> tuple[float, float]:
    if value is None:
        return math.nan, math.nan
    try:
        x, y = value["x"], value["y"]
        if x is None or y is None:
            return math.nan, math.nan
        return float(x), float(y)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path}: landmark '{symbol}' has no 'value' with numbers x and y.") from None


def _machines(root: Path) -> tuple[Scanners | None, Finding | None]:
    file = _child(root, (MACHINES_FILE,))
    if file is None:
        return None, None
    try:
        return read_scanners(file), None
    except DataError as error:
        return None, _fault("missing_pixel_size", file, error)


def _fault(kind: str, place: Path, error: DataError) -> Finding:
    """The error as a finding, whose place it begins with."""
    return finding(kind, place, str(error).removeprefix(f"{place}: "))


def _split_folder(root: Path, split: str) -> Path:
    folder = _child(root, SPLITS[split])
    if folder is None:
        raise DataError(f"{root}: no folder '{split}' in it; the 'Aariz layout has train, valid and test.")
    return folder


def _film_paths(folder: Path) -> list[Path]:
    """The films of a split, in order of id."""
    films = _child(folder, ("Cephalograms",))
    if films is None:
        raise DataError(f"{folder}: no folder 'Cephalograms' in it.")
    paths = sorted(path for path in films.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if not paths:
        raise DataError(f"{films}: no films in it; the known types are {', '.join(SUFFIXES)}.")
    return paths


def _rater_folders(folder: Path) -> dict[str, Path]:
    """Each rater's folder of annotations, of those that are there."""
    annotations = _child(folder, ("Annotations",))
    inner = annotations and _child(annotations, ("Cephalometric Landmarks",))
    if inner is None:
        raise DataError(f"{folder}: no folder 'Annotations/Cephalometric Landmarks' in it.")
    found = {rater: _child(inner, (name,)) for rater, name in RATERS.items()}
    present = {rater: path for rater, path in found.items() if path is not None}
    if not present:
        raise DataError(f"{inner}: neither 'Senior Orthodontists' nor 'Junior Orthodontists' in it.")
    return present


def _child(folder: Path, names: Iterable[str]) -> Path | None:
    wanted = {name.lower() for name in names}
    return next((child for child in sorted(folder.iterdir()) if child.name.lower() in wanted), None)
