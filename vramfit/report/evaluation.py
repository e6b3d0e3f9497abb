"""Evaluations and found points, as tables, JSON and CSV."""

import csv
import io
import json
from collections.abc import Mapping, Sequence

from rich.table import Table

from vramfit.landmarks.metrics import LIMITS_MM, Scores
from vramfit.training.evaluate import EvaluationReport
from vramfit.training.infer import FoundFilm


def overall_table(report: EvaluationReport) -> Table:
    """The network beside the mean shape."""
    rows = {"network": report.network.overall, "mean shape (looks at no film)": report.mean_shape.overall}
    return _table("what", rows)


def landmark_table(report: EvaluationReport) -> Table:
    """One row a landmark, with the mean shape's MRE beside."""
    return _table("landmark", report.network.landmarks, report.mean_shape.landmarks)


def machine_table(report: EvaluationReport) -> Table:
    """One row a machine, with the mean shape's MRE beside."""
    return _table("machine", report.network.machines, report.mean_shape.machines)


def headline(report: EvaluationReport) -> str:
    """What was judged, on what."""
    skipped = f", {len(report.skipped)} skipped" if report.skipped else ""
    return (
        f"{report.checkpoint} (epoch {report.epoch}) on {report.films} films of '{report.split}' in "
        f"{report.dataset}{skipped}; points of: {report.annotator}."
    )


def points_json(found: Sequence[FoundFilm], symbols: Sequence[str]) -> str:
    """Found points as one JSON document; x and y in pixels of the film."""
    films = [{"film": str(one.path), "landmarks": list(_landmarks(one, symbols))} for one in found]
    return json.dumps({"films": films}, indent=2, ensure_ascii=False) + "\n"


def points_csv(found: Sequence[FoundFilm], symbols: Sequence[str]) -> str:
    """Found points as CSV, one row a landmark; x and y in pixels of the film."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["film", "symbol", "x", "y", "confidence"], lineterminator="\n")
    writer.writeheader()
    for one in found:
        writer.writerows({"film": str(one.path), **landmark} for landmark in _landmarks(one, symbols))
    return text.getvalue()


def _landmarks(found: FoundFilm, symbols: Sequence[str]) -> list[dict[str, str | float]]:
    rows = zip(symbols, found.points, found.confidence, strict=True)
    return [
        {"symbol": symbol, "x": round(float(x), 2), "y": round(float(y), 2), "confidence": round(float(sure), 3)}
        for symbol, (x, y), sure in rows
    ]


def _table(what: str, rows: Mapping[str, Scores], baseline: Mapping[str, Scores] | None = None) -> Table:
    limits = [f"SDR@{limit:g}mm\n%" for limit in LIMITS_MM]
    table = Table()
    headers = [what, "points", "MRE\nmm", "SD\nmm", *limits, *(["mean shape\nMRE mm"] if baseline else [])]
    for header in headers:
        table.add_column(header, justify="left" if header == what else "right")
    for name, scores in rows.items():
        extra = [_mm(baseline[name].mre_mm)] if baseline else []
        table.add_row(name, *_cells(scores), *extra)
    return table


def _cells(scores: Scores) -> list[str]:
    shares = [scores.sdr.get(f"{limit}mm") for limit in LIMITS_MM]
    percents = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
    return [str(scores.points), _mm(scores.mre_mm), _mm(scores.sd_mm), *percents]


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
