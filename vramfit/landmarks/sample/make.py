"""A small made-up film set in 'Aariz layout: for a demonstration, a benchmark or a test, never for medicine."""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vramfit.errors import CannotWrite, UsageError
from vramfit.landmarks.data.formats.aariz import MACHINES_FILE, RATERS
from vramfit.landmarks.sample.anatomy import PLACES, Array, Random, draw_skull, mark
from vramfit.landmarks.sample.drawing import draw_film

SPLIT_SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}

_MARGIN_MM = 8.0


@dataclass(frozen=True)
class SampleMachine:
    """A made-up machine: the (width, height) in mm that it sees, and its pixels for each of a plain one."""

    name: str
    field_mm: tuple[float, float]
    fineness: float


MACHINES = (
    SampleMachine("Sample Ceph A", (194.0, 240.0), 1.0),
    SampleMachine("Sample Ceph B", (210.0, 230.0), 1.2),
    SampleMachine("Sample Ceph C", (200.0, 250.0), 0.8),
)


def make_sample(
    folder: str | Path,
    *,
    films: int = 40,
    seed: int = 0,
    height: int = 640,
    machines: Sequence[SampleMachine] = MACHINES,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make a film set; the same arguments make the same films.

    Args:
        folder: where; must not exist yet, or be empty. It appears whole or not at all.
        films: how many, split 70/15/15.
        seed: of skulls, films and raters.
        height: pixels of the films of the plain machine; the others have 1.2 and 0.8 times its fineness.
        machines: those whose films there are.
        progress: called with the films done and the films in all.

    Raises:
        UsageError: fewer than 3 films, or films too small to see anything.
        CannotWrite: the folder is in use, or cannot be written.

    """
    folder = Path(folder)
    if films < 3 or height < 64:
        raise UsageError(f"{films} films of {height} pixels make no film set; use at least 3 of at least 64.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CannotWrite(f"{folder} is not empty; choose another folder or remove it first.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as work:
            made = Path(work) / "set"
            _write_set(made, films, seed, height, machines=machines, progress=progress)
            if folder.exists():
                folder.rmdir()
            shutil.move(made, folder)
    except OSError as error:
        raise CannotWrite(f"{folder} could not be written ({error.strerror or error}).") from error
    return folder


def sample_film(number: int, height: int = 640) -> NDArray[np.uint8]:
    """One film alone, grey uint8 HxW of so many rows; the same number gives the same film."""
    random = np.random.Generator(np.random.Philox(key=[0, number]))
    return _draw(MACHINES[0], MACHINES[0].field_mm[1] / height, random)[0]


def split_of(number: int, films: int) -> str:
    """The split of a film by its number, counted from 0; every split has one at least."""
    held_out = max(1, round(films * SPLIT_SHARES["valid"]))
    if number >= films - held_out:
        return "test"
    return "valid" if number >= films - 2 * held_out else "train"


def _write_set(
    root: Path,
    films: int,
    seed: int,
    height: int,
    *,
    machines: Sequence[SampleMachine],
    progress: Callable[[int, int], None] | None,
) -> None:
    rows = []
    for number in range(films):
        random = np.random.Generator(np.random.Philox(key=[seed, number]))
        machine = machines[int(random.integers(len(machines)))]
        rows.append(_write_film(root / split_of(number, films), f"{number + 1:03d}", machine, height, random))
        if progress is not None:
            progress(number + 1, films)
    _write_rows(root / MACHINES_FILE, rows)


def _write_film(folder: Path, film_id: str, machine: SampleMachine, height: int, random: Random) -> dict[str, str]:
    import cv2

    pixel_size = round(machine.field_mm[1] / (height * machine.fineness), 5)
    image, truth, to_pixels = _draw(machine, pixel_size, random)
    _write(folder / "Cephalograms" / f"{film_id}.png", cv2.imencode(".png", image)[1].tobytes())
    for rater, name in RATERS.items():
        points = mark(truth, random, junior=rater == "junior") @ to_pixels[:, :2].T + to_pixels[:, 2]
        place = folder / "Annotations" / "Cephalometric Landmarks" / name / f"{film_id}.json"
        _write(place, _annotation(film_id, points, image.shape[::-1]).encode())
    return {
        "cephalogram_id": film_id,
        "machine": machine.name,
        "pixel_size": f"{pixel_size:.5f}",
        "image_format": "png",
        "mode": folder.name,
    }


def _draw(machine: SampleMachine, pixel_size: float, random: Random) -> tuple[NDArray[np.uint8], Array, Array]:
    """A film, the landmarks that it shows in mm, and the map from those to its pixels."""
    size = round(machine.field_mm[0] / pixel_size), round(machine.field_mm[1] / pixel_size)
    skull = draw_skull(random)
    truth = np.stack([skull.points[symbol] for symbol in PLACES])
    to_pixels = _pose(machine, truth, pixel_size, random)
    return draw_film(skull, size, to_pixels, random), truth, to_pixels


def _pose(machine: SampleMachine, truth: Array, pixel_size: float, random: Random) -> Array:
    """From mm around the sella to pixels: the patient's nod, and where the head was in the field."""
    nod = np.deg2rad(random.normal(0, 4))
    turn = np.array([[np.cos(nod), -np.sin(nod)], [np.sin(nod), np.cos(nod)]])
    field, placed = np.array(machine.field_mm), truth @ turn.T
    sella = field * [0.41, 0.47] + random.normal(0, 4, 2)
    # The operator sees to it that the whole face is on the film.
    sella = np.clip(sella, _MARGIN_MM - placed.min(axis=0), field - _MARGIN_MM - placed.max(axis=0))
    return np.column_stack([turn, sella]) / pixel_size


def _annotation(film_id: str, points: Array, size: tuple[int, int]) -> str:
    inside = np.round(points).clip(0, np.array(size) - 1).astype(int).tolist()
    landmarks = [
        {"landmark_id": f"L{number}", "title": place.title, "symbol": symbol, "value": {"x": x, "y": y}}
        for number, ((symbol, place), (x, y)) in enumerate(zip(PLACES.items(), inside, strict=True), 1)
    ]
    return json.dumps({"ceph_id": film_id, "landmarks": landmarks}, indent=1)


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue().encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
