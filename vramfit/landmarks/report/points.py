"""Points that a network found, as files for other programs.

The JSON is an annotation in 'Aariz layout with a confidence beside each position, so what reads one reads the other. A
calibrated network adds to each point its expected error, the radius of the region that holds it with the coverage
stated, and whether its heatmap says anything at all.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vramfit.landmarks.data.films import Landmark
from vramfit.landmarks.evaluation.inference import FoundLandmarks
from vramfit.landmarks.evaluation.measures import MEASURES, measured
from vramfit.landmarks.evaluation.propagate import measure_spreads
from vramfit.landmarks.model.calibration import Certainty

CSV_COLUMNS = ("film", "symbol", "title", "x", "y", "confidence")
MEASURES_COLUMNS = ("film", "measure", "title", "value", "unit")


def film_json(found: FoundLandmarks, landmarks: tuple[Landmark, ...]) -> str:
    """The landmarks of one film; x and y in pixels of the film, a pixel's centre at whole numbers."""
    document = {
        "ceph_id": found.film.path.stem,
        "film": found.film.path.name,
        **({"unlike_training": found.certainty.unlike} if found.certainty else {}),
        "landmarks": [_entry(row) for row in _rows(found, landmarks)],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def films_csv(films: Iterable[FoundLandmarks], landmarks: tuple[Landmark, ...]) -> str:
    """One line a film and landmark, under a line of column names."""
    rows = [
        {"film": found.film.id, **row, **({"unlike_training": found.certainty.unlike or ""} if found.certainty else {})}
        for found in films
        for row in _rows(found, landmarks)
    ]
    return _csv(list(rows[0]) if rows else CSV_COLUMNS, rows)


def measures_csv(films: Iterable[FoundLandmarks], landmarks: tuple[Landmark, ...]) -> str:
    """One line a film and cephalometric measure, under a line of column names.

    Millimetres are measured on films that carry a pixel size, such as DICOM; on others pixels are taken to be square.
    Of a calibrated network, the standard deviations that its errors and those of one rater give each measure; the
    latter are empty where no film calibrated on had two raters.
    """
    symbols, rows = [landmark.symbol for landmark in landmarks], []
    columns: tuple[str, ...] = MEASURES_COLUMNS
    for found in films:
        in_mm = bool(np.isfinite(found.film.pixel_size_mm).all())
        size = np.array(found.film.pixel_size_mm) if in_mm else np.ones(2)
        spreads = _spreads(found.certainty, found.points, size, symbols)
        columns = (*MEASURES_COLUMNS, *spreads)
        for name, values in measured((found.points * size)[None], symbols, has_millimetres=in_mm).items():
            entry = {"film": found.film.id, "measure": name, "title": MEASURES[name].title}
            more = {column: round(of[name], 2) if of else "" for column, of in spreads.items()}
            rows.append({**entry, "value": round(float(values[0]), 2), "unit": MEASURES[name].unit, **more})
    return _csv(columns, rows)


def _spreads(
    sure: Certainty | None, points: NDArray[np.float64], size: NDArray[np.float64], symbols: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The standard deviation of each measure, by column; films without millimetres have pixels of size 1."""
    if sure is None:
        return {}
    in_mm, square = bool((size != 1).any()), np.outer(size, size)
    moments = {"sd_network": sure.network, "sd_raters": sure.raters}
    return {
        column: {} if each is None else measure_spreads(points * size, each * square, symbols, has_millimetres=in_mm)
        for column, each in moments.items()
    }


def _csv(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(found: FoundLandmarks, landmarks: tuple[Landmark, ...]) -> Iterable[dict[str, Any]]:
    for place, landmark in enumerate(landmarks):
        (x, y), confidence = found.points[place].tolist(), float(found.confidence[place])
        point = {"x": round(x, 2), "y": round(y, 2), "confidence": round(confidence, 4)}
        yield {"symbol": landmark.symbol, "title": landmark.title, **point, **_doubts(found.certainty, place)}


def _doubts(sure: Certainty | None, place: int) -> dict[str, Any]:
    """What a calibrated network says of the error of one point, in pixels of the film."""
    if sure is None:
        return {}
    radii = zip(sure.levels, sure.radii[:, place].tolist(), strict=True)
    return {
        "evidence": bool(sure.evidence[place]),
        "expected_error_px": round(float(sure.expected[place]), 2),
        **{f"radius_{100 * level:g}_px": round(radius, 2) for level, radius in radii},
    }


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    value = {"x": row["x"], "y": row["y"]}
    rest = {name: said for name, said in row.items() if name not in {"title", "symbol", "x", "y"}}
    return {"title": row["title"], "symbol": row["symbol"], "value": value, **rest}
