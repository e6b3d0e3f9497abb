"""Reading the 'Aariz layout: films, two raters' points, machines and pixel sizes.

    {train,valid,test}/Cephalograms/<id>.{png,jpg,jpeg,bmp}
    {split}/Annotations/Cephalometric Landmarks/{Junior,Senior} Orthodontists/<id>.json
    cephalogram_machine_mappings.csv

Copies in the wild capitalise folders, lack the CVM stages or a rater, repeat ids across splits and list landmarks in
any order: folders are found whatever their case, landmarks are joined by symbol or id, and their number comes from the
data.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vramfit.errors import DataError
from vramfit.landmarks.annotation import Annotation, common_landmarks, read_annotation
from vramfit.landmarks.films import Annotator, Film, FilmSet, Landmark, Points, Skipped
from vramfit.landmarks.image import SUFFIXES, film_size
from vramfit.landmarks.machines import Machines, read_machines

SPLITS = {"train": ("train", "training"), "valid": ("valid", "val", "validation"), "test": ("test", "testing")}
RATERS = {"senior": "Senior Orthodontists", "junior": "Junior Orthodontists"}
MACHINES_FILE = "cephalogram_machine_mappings.csv"


def load_films(
    root: str | Path,
    split: str,
    annotator: Annotator = "mean",
    *,
    skip_bad: bool = False,
    landmarks: tuple[Landmark, ...] | None = None,
) -> FilmSet:
    """The films of one split of a set in 'Aariz layout.

    Args:
        root: the folder with train, valid and test.
        split: `train`, `valid` or `test`.
        annotator: whose points to learn. `mean` is the set's official policy, the mean of both raters rounded up to
            whole pixels; points marked between pixels are averaged as they are, and one rater does for both.
        skip_bad: leave out films that cannot be used and list them, in place of raising.
        landmarks: those wanted, in their order, such as those of a checkpoint; None for those of the data.

    Raises:
        DataError: a folder, file or field that is missing or wrong; names it.

    """
    root = Path(root)
    folder = split_folder(root, split)
    paths = film_paths(folder)
    raters = rater_folders(folder)
    machines = read_machines(machines_file(root))
    source = _Source(split, annotator, landmarks or _landmarks(root, raters), raters, machines)
    films, skipped = [], []
    for path in paths:
        try:
            films.append(_film(path, source))
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append(Skipped(path.stem, str(error)))
    if not films:
        raise DataError(f"{folder}: none of its {len(paths)} films can be used; the first: {skipped[0].reason}")
    return FilmSet(root, split, annotator, source.landmarks, tuple(films), tuple(skipped))


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split, whatever its case."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds train, valid and test.")
    folder = _child(root, SPLITS[split])
    if folder is None:
        raise DataError(f"{root}: no folder '{split}' in it; the 'Aariz layout has train, valid and test.")
    return folder


def film_paths(folder: Path) -> list[Path]:
    """The films of a split, in order of id."""
    films = _child(folder, ("Cephalograms",))
    if films is None:
        raise DataError(f"{folder}: no folder 'Cephalograms' in it.")
    paths = sorted(path for path in films.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
    if not paths:
        raise DataError(f"{films}: no films in it; the known types are {', '.join(SUFFIXES)}.")
    return paths


def rater_folders(folder: Path) -> dict[str, Path]:
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


def combine(raters: Mapping[str, Points]) -> Points:
    """The official policy: both raters' mean rounded up; a point that one rater lacks is the other's."""
    both = np.stack(list(raters.values()))
    known = np.isfinite(both)
    count = known.sum(axis=0)
    mean = np.where(known, both, 0).sum(axis=0) / np.where(count, count, np.nan)
    whole = bool(np.all(both[known] == np.round(both[known])))
    combined: Points = np.ceil(mean) if whole else mean
    return combined


@dataclass(frozen=True)
class _Source:
    """What is known of a split before its first film is read."""

    split: str
    annotator: Annotator
    landmarks: tuple[Landmark, ...]
    raters: Mapping[str, Path]
    machines: Machines


def _film(path: Path, source: _Source) -> Film:
    size = film_size(path)
    raters = {
        rater: read_annotation(file).arranged(source.landmarks, size)
        for rater, folder in source.raters.items()
        if (file := folder / f"{path.stem}.json").is_file()
    }
    points = _chosen(raters, source.annotator, path)
    machine = source.machines.of(path.stem, source.split)
    return Film(path.stem, path, size, machine.pixel_size_mm, machine.name, points, raters)


def _chosen(raters: Mapping[str, Points], annotator: Annotator, path: Path) -> Points:
    if not raters:
        raise DataError(f"{path}: no rater has marked this film; add its JSON or use --skip-bad.")
    if annotator == "mean":
        return combine(raters)
    if annotator not in raters:
        raise DataError(f"{path}: not marked by the {annotator} rater; use --annotator mean or --skip-bad.")
    return raters[annotator]


def _landmarks(root: Path, raters: Mapping[str, Path]) -> tuple[Landmark, ...]:
    """The landmarks of the set: those of the training films where there are any, so that all splits agree."""
    train = _child(root, SPLITS["train"])
    folders = rater_folders(train).values() if train else raters.values()
    return common_landmarks(_readable(file for folder in folders for file in sorted(folder.glob("*.json"))))


def _readable(files: Iterable[Path]) -> list[Annotation]:
    annotations = []
    refusal = None
    for file in files:
        try:
            annotations.append(read_annotation(file))
        except DataError as error:
            refusal = refusal or error
    if not annotations:
        raise refusal or DataError("no annotations: the folders of both raters hold no JSON.")
    return annotations


def machines_file(root: Path) -> Path:
    """The table of machines and pixel sizes."""
    file = _child(root, (MACHINES_FILE,))
    if file is None:
        raise DataError(f"{root}: no file '{MACHINES_FILE}' in it; without pixel sizes there are no millimetres.")
    return file


def _child(folder: Path, names: Iterable[str]) -> Path | None:
    wanted = {name.lower() for name in names}
    return next((child for child in sorted(folder.iterdir()) if child.name.lower() in wanted), None)
