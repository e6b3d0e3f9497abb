"""What `vramfit data check` finds, and how often it is wrong.

    python benchmarks/data_check.py [--real FOLDER]

Clean generated film sets of 40 to 200 films, each with another seed, for false alarms; one fault of every kind in
copies of some of them; points moved and landmarks swapped on a tenth of the films, by distance; few heads alone; the
likeness of different films, and of copies that were saved anew, halved, brightened, darkened, put into more contrast,
inverted or cropped; false alarms in three drawn clips of video frames; how well films agree on points that are pixels,
and on the same in other units and orders. `--real` adds a set of real films, whose findings are counted as they are.
Writes benchmarks/results/data_check.json; exits with 1 if a planted fault is missed or a clean set is not called clean.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from damaged_films import FAULTS, MORE_FAULTS, Damage  # noqa: E402  # the path is set above
from made_clips import CLIPS, write_clip  # noqa: E402

from vramfit.files import write_atomically  # noqa: E402
from vramfit.landmarks.check.check import check_films  # noqa: E402
from vramfit.landmarks.check.coordinates import agreement, view_of  # noqa: E402
from vramfit.landmarks.check.shapes import find_oddities, relative_sizes  # noqa: E402
from vramfit.landmarks.data.formats import read_films  # noqa: E402
from vramfit.landmarks.data.image import read_film  # noqa: E402
from vramfit.landmarks.data.near_duplicates import SAME_PICTURE, directions, thumbnail  # noqa: E402
from vramfit.landmarks.sample.make import make_sample  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "data_check.json"
SETS = [(seed, (40, 60, 80, 120, 200)[seed % 5], (160, 240)[seed % 2]) for seed in range(100, 125)]
MOVES_MM = (4, 6, 8, 10, 12, 15, 20, 30)
SWAP_ROUNDS = 4
FEW = (10, 15, 20, 30, 40)
SUBSETS = 10
SPOILED_SHARE = 0.1
COPIES = {
    "jpeg of quality 30": lambda film: cv2.imdecode(
        cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_GRAYSCALE
    ),
    "half the size": lambda film: cv2.resize(film, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "gamma 0.7": lambda film: np.round(255 * (film / 255) ** 0.7).astype(np.uint8),
    "gamma 1.5": lambda film: np.round(255 * (film / 255) ** 1.5).astype(np.uint8),
    "contrast 1.5": lambda film: np.clip((film - 128.0) * 1.5 + 128, 0, 255).astype(np.uint8),
    "negative": lambda film: 255 - film,
    "cropped by 2 %": lambda film: film[film.shape[0] // 50 : -film.shape[0] // 50, film.shape[1] // 50 :],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, help="A set of real films, to count what is found in it.")
    real = parser.parse_args().real
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        sets = [
            make_sample(Path(work) / str(seed), films=films, seed=seed, height=height) for seed, films, height in SETS
        ]
        result = {
            "clean_sets": clean(sets),
            "clips": {name: found_in(write_clip(Path(work) / name, **how)) for name, how in CLIPS.items()},
            "planted_faults": planted(sets[:3], Path(work) / "damaged"),
            "agreement": agreements(sets),
            "points": points([heads(folder) for folder in sets[::4]]),
            "few_heads": few_heads([heads(folder) for folder in sets[::12]]),
            "likeness": likeness(sets),
        }
    if real is not None:
        result["real"] = {
            "findings": found_in(real),
            "points": points([heads(real)]),
            "few_heads": few_heads([heads(real)]),
            "likeness": likeness([real]),
            "agreement": agreements([real]),
        }
    result |= {
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "platform": platform.platform(terse=True),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_atomically(RESULT, json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    missed = [kind for kind, score in result["planted_faults"].items() if score["found"] < score["planted"]]
    sys.exit(1 if missed or result["clean_sets"]["false_alarms"] or any(result["clips"].values()) else 0)


def found_in(folder):
    """How many findings of each kind."""
    return dict(Counter(found.kind for found in check_films(folder).findings))


def clean(sets):
    """False alarms: everything found in sets without a fault."""
    alarms = [found_in(folder) for folder in sets]
    films = sum(films for _, films, _ in SETS)
    wrong = sum(sum(kinds.values()) for kinds in alarms)
    sets_wrong = sum(bool(kinds) for kinds in alarms)
    return {"sets": len(sets), "films": films, "false_alarms": wrong, "sets_with_one": sets_wrong, "kinds": alarms}


def planted(sets, work):
    """One fault of every kind, each alone in a copy of a set: was it found, and what else was."""
    faults = {**{kind: (kind, plant) for kind, plant in FAULTS.items()}, **MORE_FAULTS}
    scores = {fault: {"planted": 0, "found": 0, "also": Counter()} for fault in faults}
    for folder in sets:
        for fault, (kind, plant) in faults.items():
            plant(Damage(shutil.copytree(folder, work)))
            found = found_in(work)
            scores[fault]["planted"] += 1
            scores[fault]["found"] += kind in found
            scores[fault]["also"].update(other for other in found if other != kind)
            shutil.rmtree(work)
    return scores


READINGS = {
    "pixels, as they are": lambda points, _sizes: points,
    "5 % too large": lambda points, _sizes: 1.05 * points,
    "half resolution": lambda points, _sizes: points / 2,
    "two thirds of the resolution": lambda points, _sizes: points / 1.5,
    "per cent": lambda points, sizes: 100 * points / sizes,
    "x and y swapped": lambda points, _sizes: points[..., ::-1],
    "origin at the bottom": lambda points, sizes: points * [1, -1] + [0, 1] * sizes,
    "origin at the right": lambda points, sizes: points * [-1, 1] + [1, 0] * sizes,
}


def agreements(sets):
    """How well films agree on their points, read in several ways: the lowest and highest of the sets."""
    found = defaultdict(list)
    for folder in sets:
        marked = read_films(folder)
        symbols = [landmark.symbol for landmark in marked.landmarks]
        films = [read_film(film.path) for film in marked.films[:32]]
        sizes = np.array([film.shape[::-1] for film in films])[:, None]
        points = np.array([next(iter(film.annotations.values())).points(symbols) for film in marked.films[:32]])
        views = [view_of(film) for film in films]
        for name, change in READINGS.items():
            found[name].append(agreement(views, (change(points + 0.5, sizes)) / sizes))
    return {name: [round(min(values), 3), round(max(values), 3)] for name, values in found.items()}


def heads(folder):
    """Every rater's points of every film in mm, to one size, NxKx2."""
    marked = read_films(folder)
    symbols = [landmark.symbol for landmark in marked.landmarks]
    shapes = np.array(
        [mark.points(symbols) * film.pixel_size_mm for film in marked.films for mark in film.annotations.values()]
    )
    return shapes / relative_sizes(shapes)[:, None, None]


def points(sets):
    """Shares of moved points and of swapped landmarks that were found and named exactly, by distance in mm."""
    random = np.random.default_rng(0)
    moved, swapped, alarms = defaultdict(list), defaultdict(list), [0, 0]
    for shapes in sets:
        for distance in MOVES_MM:
            _moved(shapes, distance, random, moved, alarms)
        for _ in range(SWAP_ROUNDS):
            _swapped(shapes, random, swapped, alarms)
    return {
        "moved_mm": {str(mm): _share(hits) for mm, hits in sorted(moved.items())},
        "swapped_mm_apart": {name: _share(hits) for name, hits in sorted(swapped.items())},
        "unspoiled_shapes_called_odd": f"{alarms[0]} of {alarms[1]}",
    }


def few_heads(sets):
    """Unspoiled shapes called odd where only so many are known: subsets drawn by chance."""
    random = np.random.default_rng(1)
    return {
        str(few): f"{sum(_odd_of(shapes, few, random) for shapes in sets for _ in range(SUBSETS))} of "
        f"{few * SUBSETS * len(sets)}"
        for few in FEW
    }


def _odd_of(shapes, few, random):
    swaps, outlying = _found(shapes[random.choice(len(shapes), few, replace=False)])
    return len(swaps.keys() | outlying.keys())


def _share(hits):
    return {"planted": len(hits), "found": round(float(np.mean(hits)), 3)}


def _moved(shapes, distance, random, moved, alarms):
    spoiled, rows = shapes.copy(), _rows(shapes, random)
    truth = {}
    for row in rows:
        k, angle = random.integers(shapes.shape[1]), random.uniform(0, 2 * np.pi)
        spoiled[row, k] += distance * np.array([np.cos(angle), np.sin(angle)])
        truth[row] = (int(k),)
    swaps, outlying = _found(spoiled)
    moved[distance] += [outlying[row] == truth[row] and not swaps[row] for row in rows]
    _count_alarms(shapes, rows, swaps, outlying, alarms)


def _swapped(shapes, random, swapped, alarms):
    spoiled, rows = shapes.copy(), _rows(shapes, random)
    truth = {}
    for row in rows:
        pair = sorted(random.choice(shapes.shape[1], 2, replace=False).tolist())
        apart = np.linalg.norm(shapes[row, pair[0]] - shapes[row, pair[1]])
        truth[row] = tuple(pair), next(name for low, name in BANDS if apart >= low)
        spoiled[row, pair] = spoiled[row, pair[::-1]]
    swaps, outlying = _found(spoiled)
    for row, (pair, band) in truth.items():
        swapped[band].append(swaps[row] == (pair,) and not outlying[row])
    _count_alarms(shapes, rows, swaps, outlying, alarms)


BANDS = [(20, "20 or more"), (10, "10 to 20"), (6, "06 to 10"), (3, "03 to 06"), (0, "00 to 03")]


def _rows(shapes, random):
    return random.choice(len(shapes), max(1, int(SPOILED_SHARE * len(shapes))), replace=False).tolist()


def _found(shapes):
    oddities = find_oddities(shapes)
    swaps, outlying = defaultdict(tuple), defaultdict(tuple)
    for row, first, second in oddities.swapped:
        swaps[row] += ((first, second),)
    for row, k in oddities.outlying:
        outlying[row] += (k,)
    return swaps, outlying


def _count_alarms(shapes, rows, swaps, outlying, alarms):
    alarms[0] += len((swaps.keys() | outlying.keys()) - set(rows))
    alarms[1] += len(shapes) - len(rows)


def likeness(sets):
    """The highest likeness of two different films of a set, and the lowest of a film and its copies."""
    highest, lowest = 0.0, defaultdict(lambda: 1.0)
    for folder in sets:
        films = [read_film(film.path) for film in read_films(folder).films]
        known = directions(np.stack([thumbnail(film) for film in films]))
        highest = max(highest, float(np.triu(np.abs(known @ known.T), k=1).max()))
        for name, change in COPIES.items():
            copies = directions(np.stack([thumbnail(change(film)) for film in films]))
            lowest[name] = min(lowest[name], float(np.abs((known * copies).sum(axis=1)).min()))
    lows = {name: round(low, 3) for name, low in lowest.items()}
    return {"limit": SAME_PICTURE, "highest_of_different_films": round(highest, 3), "lowest_of_copies": lows}


if __name__ == "__main__":
    main()
