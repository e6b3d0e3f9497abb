"""The layout of the ISBI 2015 cephalometric challenge: a text file an image and rater.

    RawImage/TrainingData/001.bmp  RawImage/Test1Data/151.bmp  RawImage/Test2Data/301.bmp
    400_senior/001.txt  400_junior/001.txt          (here or in AnnotationsByMD)

A file has a line `x,y` for each of 19 landmarks, and then eight classes, which are passed over. The challenge states
pixels of 0.1 mm for its films of 1935x2400; that is believed of films of this size alone. Its two sets of test films
are the splits `valid` and `test`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vramfit.errors import DataError
from vramfit.landmarks.data.annotation import Annotation, named
from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.data.formats.assemble import Draft, complete, find_film
from vramfit.landmarks.data.image import SUFFIXES, film_size
from vramfit.landmarks.data.issues import finding
from vramfit.landmarks.data.marked import MarkedSet, split_called

# The landmarks L1 to L19 in the challenge's order, by the symbols of the 'Aariz set.
_LANDMARKS = (
    *(
        ("S", "Sella"),
        ("N", "Nasion"),
        ("Or", "Orbitale"),
        ("Po", "Porion"),
        ("A", "Subspinale"),
        ("B", "Supramentale"),
    ),
    *(("Pog", "Pogonion"), ("Me", "Menton"), ("Gn", "Gnathion"), ("Go", "Gonion"), ("LIT", "Lower incisor tip")),
    *(("UIT", "Upper incisor tip"), ("Ls", "Upper lip"), ("Li", "Lower lip"), ("Sn", "Subnasale")),
    *(("Pog`", "Soft tissue pogonion"), ("PNS", "Posterior nasal spine"), ("ANS", "Anterior nasal spine")),
    ("Ar", "Articulare"),
)
_SPLITS = {"trainingdata": "train", "test1data": "valid", "test2data": "test"}
_STATED_SIZE, _STATED_MM = (1935, 2400), (0.1, 0.1)


class Isbi:
    """Film sets in the layout of the challenge."""

    name = "isbi"
    title = "ISBI 2015"

    def detect(self, path: Path) -> bool:
        """Whether a folder has raters' folders of text files that begin with x,y."""
        return any(_looks_right(file) for folder in _rater_folders(path) for file in sorted(folder.glob("*.txt"))[:1])

    def read(self, path: Path) -> MarkedSet:
        """All films that a rater has marked, and those beside them that nobody has."""
        folders = _rater_folders(path)
        if not folders:
            raise DataError(f"{path}: no folder '400_senior' or '400_junior' in it.")
        landmarks = tuple(named(symbol, title) for symbol, title in _LANDMARKS)
        films = _films(path)
        drafts = {name: _draft(name, film) for name, film in films.items()}
        for folder in folders:
            for file in sorted(folder.glob("*.txt")):
                draft = drafts.setdefault(file.stem, Draft(file.stem, find_film(file.stem, [path / "RawImage", path])))
                _mark(draft, folder.name.lower().split("_")[-1], file, landmarks)
        stated = any(draft.pixel_size_mm for draft in drafts.values())
        note = "Pixels of films of 1935x2400 are 0.1 mm, as the challenge states."
        return complete(path, landmarks, list(drafts.values()), notes=[note] if stated else [])


def _draft(name: str, film: Path) -> Draft:
    split = next((_SPLITS.get(part.name.lower()) or split_called(part.name) for part in film.parents[:1]), "")
    draft = Draft(name, film, split)
    try:
        draft.pixel_size_mm = _STATED_MM if film_size(film) == _STATED_SIZE else None
    except DataError:
        return draft  # told of where the film is looked at
    return draft


def _mark(draft: Draft, rater: str, file: Path, landmarks: Sequence[Landmark]) -> None:
    try:
        places = list(_pairs(file))
    except (OSError, ValueError):
        places = []
    if len(places) != len(landmarks):
        message = f"{len(places)} lines of x,y where the challenge has {len(landmarks)}."
        draft.faults.append(finding("unreadable_annotation", file, message))
        return
    positions = {landmark.symbol: place for landmark, place in zip(landmarks, places, strict=True)}
    draft.mark(rater, Annotation(str(file), tuple(landmarks), positions))


def _pairs(file: Path) -> Iterator[tuple[float, float]]:
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        cells = line.replace(",", " ").split()
        if len(cells) == 2:
            yield float(cells[0]), float(cells[1])


def _films(path: Path) -> dict[str, Path]:
    """The films below the folder by name, hidden ones left out."""
    files = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    found: dict[str, Path] = {}
    for file in files:
        found.setdefault(file.stem, file)
    return found


def _rater_folders(path: Path) -> list[Path]:
    """The folders of raters, here or one deeper."""
    if not path.is_dir():
        return []
    children = [child for child in sorted(path.iterdir()) if child.is_dir()]
    deeper = [inner for child in children for inner in sorted(child.iterdir()) if inner.is_dir()]
    return [
        one
        for one in (*children, *deeper)
        if one.name.lower().endswith(("senior", "junior")) and any(one.glob("*.txt"))
    ]


def _looks_right(file: Path) -> bool:
    try:
        return len(list(_pairs(file))) > 1
    except (OSError, ValueError):
        return False
