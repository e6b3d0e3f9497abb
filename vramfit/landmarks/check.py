"""Checking a film set in 'Aariz layout without changing it: everything wrong at once, each in a sentence."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import computed_field

from vramfit.errors import DataError
from vramfit.landmarks.aariz import SPLITS, film_paths, machines_file, rater_folders, split_folder
from vramfit.landmarks.annotation import Annotation, common_landmarks, read_annotation
from vramfit.landmarks.check_films import SeenFilm, film_findings, look, repeated_films
from vramfit.landmarks.check_points import MarkedFilm, point_findings
from vramfit.landmarks.finding import Finding, finding
from vramfit.landmarks.image import SUFFIXES
from vramfit.landmarks.machines import Machines, read_machines
from vramfit.records import Record

Progress = Callable[[int, int], None]


class CheckReport(Record):
    """What a check found: films looked at by split, the landmarks most have, and the findings in order of film."""

    root: str
    films: dict[str, int]
    landmarks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented order
    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(found.severity == "error" for found in self.findings)


def check_films(root: str | Path, progress: Progress | None = None) -> CheckReport:
    """Look at every film, annotation and row of a set; nothing is changed.

    Args:
        root: the folder with train, valid and test.
        progress: called with the films done and the films in all.

    Raises:
        DataError: the folder does not exist.

    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds train, valid and test.")
    check = _Check(root, progress)
    check.run()
    found = tuple(_from(root, each) for each in check.findings)
    counts = {split: sum(film.split == split for film in check.films) for split in SPLITS}
    return CheckReport(root=str(root), films=counts, landmarks=check.symbols, findings=found)


class _Check:
    """One check under way: what was seen so far, and what was found."""

    def __init__(self, root: Path, progress: Progress | None) -> None:
        self.root = root
        self.progress = progress
        self.findings: list[Finding] = []
        self.films: list[SeenFilm] = []
        self.annotations: dict[tuple[str, str], dict[str, Annotation]] = {}
        self.symbols: tuple[str, ...] = ()

    def run(self) -> None:
        paths = {split: self._films_of(split) for split in SPLITS}
        for split, found in paths.items():
            if found:
                self._read_annotations(split, {path.stem for path in found})
        self._look(paths)
        self.findings += repeated_films(self.films)
        every = [annotation for raters in self.annotations.values() for annotation in raters.values()]
        if every:
            self.symbols = tuple(landmark.symbol for landmark in common_landmarks(every))
        sizes = self._pixel_sizes()
        marked = [
            MarkedFilm(film, sizes.get((film.split, film.id)), self.annotations.get((film.split, film.id), {}))
            for film in self.films
        ]
        self.findings += point_findings(marked, self.symbols)

    def _films_of(self, split: str) -> list[Path]:
        try:
            paths = film_paths(split_folder(self.root, split))
        except DataError as error:
            self._say("missing_folder", self.root / split, _short(error))
            return []
        for file in sorted(paths[0].parent.iterdir()):
            if file.suffix.lower() not in SUFFIXES and not file.name.startswith("."):
                self._say("unknown_file", file, f"it is none of {', '.join(SUFFIXES)} and is passed over.")
        return paths

    def _read_annotations(self, split: str, ids: set[str]) -> None:
        try:
            folders = rater_folders(split_folder(self.root, split))
        except DataError as error:
            self._say("missing_folder", self.root / split, _short(error))
            return
        marked: dict[str, set[str]] = {film_id: set() for film_id in ids}
        for rater, folder in folders.items():
            for file in sorted(folder.glob("*.json")):
                if file.stem not in ids:
                    self._say("orphan_annotation", file, "there is no film of this id in its split.")
                    continue
                marked[file.stem].add(rater)
                self._read_annotation(split, rater, file)
        self._missing_raters(split, marked, set(folders))

    def _read_annotation(self, split: str, rater: str, file: Path) -> None:
        try:
            annotation = read_annotation(file)
        except DataError as error:
            self._say("unreadable_annotation", file, _short(error))
            return
        self.annotations.setdefault((split, file.stem), {})[rater] = annotation
        if annotation.ceph_id not in ("", file.stem):
            self._say("wrong_id", file, f"its ceph_id is '{annotation.ceph_id}'.")

    def _missing_raters(self, split: str, marked: dict[str, set[str]], raters: set[str]) -> None:
        for film_id, there in sorted(marked.items()):
            place = self.root / split / film_id
            if not there:
                self._say("missing_annotation", place, "no rater has marked this film.")
            for rater in sorted(raters - there) if there else ():
                self._say("missing_rater", place, f"the {rater} rater has not marked this film.")

    def _look(self, paths: dict[str, list[Path]]) -> None:
        total = sum(map(len, paths.values()))
        for split, found in paths.items():
            for film in look(split, found):
                self.films.append(film)
                self.findings += film_findings(film)
                if self.progress is not None:
                    self.progress(len(self.films), total)

    def _pixel_sizes(self) -> dict[tuple[str, str], tuple[float, float]]:
        try:
            table = machines_file(self.root)
            machines = read_machines(table)
        except DataError as error:
            self._say("missing_pixel_size", self.root, _short(error))
            return {}
        self.findings += _table_findings(machines, self.films)
        found = {}
        for film in self.films:
            try:
                found[film.split, film.id] = machines.of(film.id, film.split).pixel_size_mm
            except DataError as error:
                self._say("missing_pixel_size", table, _short(error))
        return found

    def _say(self, kind: str, place: Path, message: str) -> None:
        self.findings.append(finding(kind, place, message))


def _table_findings(machines: Machines, films: Sequence[SeenFilm]) -> Iterator[Finding]:
    splits: dict[str, set[str]] = {}
    for film in films:
        splits.setdefault(film.id, set()).add(film.split)
        splits.setdefault(film.id.lstrip("0"), set()).add(film.split)
    said: dict[tuple[str, str], Mapping[str, str]] = {}
    for row in machines.records:
        film_id, mode = row["cephalogram_id"], row.get("mode", "").lower()
        if film_id not in splits:
            yield finding("orphan_row", machines.path, f"there is no film '{film_id}'.")
        elif mode in SPLITS and mode not in splits[film_id]:
            yield finding("wrong_mode", machines.path, f"film '{film_id}' is not in '{mode}' as its row says.")
        if said.setdefault((film_id, mode), row) != row:
            yield finding("conflicting_rows", machines.path, f"film '{film_id}' has two rows that differ.")


def _from(root: Path, found: Finding) -> Finding:
    """The finding with its place seen from the root."""
    place = Path(found.place)
    return found.model_copy(update={"place": place.relative_to(root).as_posix() or "."})


def _short(error: DataError) -> str:
    """The sentence without the place that a finding names anyway, and without advice on loading."""
    return str(error).split(": ", 1)[-1].replace(" or use --skip-bad", "")
