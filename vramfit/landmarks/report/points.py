"""Points that a network found, as files for other programs.

The JSON is an annotation in 'Aariz layout with a confidence beside each position, so what reads one reads the other.
"""

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.evaluation.inference import FoundLandmarks
from vramfit.landmarks.evaluation.measures import MEASURES, measured

CSV_COLUMNS = ("film", "symbol", "title", "x", "y", "confidence")
MEASURES_COLUMNS = ("film", "measure", "title", "value", "unit")


def film_json(found: FoundLandmarks, landmarks: tuple[Landmark, ...]) -> str:
    """The landmarks of one film; x and y in pixels of the film, a pixel's centre at whole numbers."""
    document = {
        "ceph_id": found.film.path.stem,
        "film": found.film.path.name,
        "landmarks": [_entry(row) for row in _rows(found, landmarks)],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def films_csv(films: Iterable[FoundLandmarks], landmarks: tuple[Landmark, ...]) -> str:
    """One line a film and landmark, under a line of column names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for found in films:
        writer.writerows({"film": found.film.id, **row} for row in _rows(found, landmarks))
    return text.getvalue()


def measures_csv(films: Iterable[FoundLandmarks], landmarks: tuple[Landmark, ...]) -> str:
    """One line a film and cephalometric measure, under a line of column names.

    Millimetres are measured on films that carry a pixel size, such as DICOM; on others pixels are taken to be square.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, MEASURES_COLUMNS, lineterminator="\n")
    writer.writeheader()
    symbols = [landmark.symbol for landmark in landmarks]
    for found in films:
        size = np.array(found.film.pixel_size_mm)
        in_mm = bool(np.isfinite(size).all())
        points = found.points * size if in_mm else found.points
        for name, values in measured(points[None], symbols, has_millimetres=in_mm).items():
            entry = {"film": found.film.id, "measure": name, "title": MEASURES[name].title}
            writer.writerow({**entry, "value": round(float(values[0]), 2), "unit": MEASURES[name].unit})
    return text.getvalue()


def _rows(found: FoundLandmarks, landmarks: tuple[Landmark, ...]) -> Iterable[dict[str, Any]]:
    for landmark, (x, y), confidence in zip(landmarks, found.points.tolist(), found.confidence.tolist(), strict=True):
        place = {"x": round(x, 2), "y": round(y, 2), "confidence": round(confidence, 4)}
        yield {"symbol": landmark.symbol, "title": landmark.title, **place}


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    value = {"x": row["x"], "y": row["y"]}
    return {"title": row["title"], "symbol": row["symbol"], "value": value, "confidence": row["confidence"]}
