"""What an evaluation found: tables by landmark and by machine, and the sentences that a reader of them needs."""

import sys
from collections.abc import Mapping
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vramfit.landmarks.films import Annotator
from vramfit.landmarks.metrics import LIMITS_MM, Scores
from vramfit.report.table import show
from vramfit.training.evaluation import EvaluationReport

_POLICIES: dict[Annotator, str] = {
    "mean": "the mean of both raters, rounded up where both marked whole pixels; one rater where there is one alone",
    "senior": "the senior rater's points",
    "junior": "the junior rater's points",
}
_WORST = 3
_SDR = tuple(f"SDR\n{limit:g} mm %" for limit in LIMITS_MM)


def show_evaluation(report: EvaluationReport, file: TextIO | None = None) -> None:
    """Print a whole evaluation: what was judged by what, the result, and the tables."""
    file = file or sys.stdout
    print(*headlines(report), "", sep="\n", file=file)
    for table in (summary_table(report), landmark_table(report), machine_table(report)):
        show(table, file)
        print(file=file)
    print(*remarks(report), sep="\n", file=file)


def headlines(report: EvaluationReport) -> list[str]:
    """What was judged, by what, and the figure to cite."""
    size = "{}x{}".format(*report.image_size)
    low, high = report.pixel_size_mm
    spacing = f"{low:.4f} mm" if low == high else f"{low:.4f} to {high:.4f} mm"
    return [
        f"{report.checkpoint}: {report.model} at {size}, {report.epoch} epochs, decoded by {report.decode}.",
        f"Films: {report.films} of '{report.split}' in {report.dataset}, {len(report.landmarks)} landmarks, "
        f"pixel size {spacing}.",
        f"Judged by: {_POLICIES[report.annotator]}.",
        f"MRE {result(report)}",
    ]


def result(report: EvaluationReport) -> str:
    """The figure to cite, such as `1.31 +- 0.92 mm (95 % interval 1.24 to 1.39, over films).`."""
    overall = report.evaluation.overall
    interval = " (95 % interval {:.2f} to {:.2f}, over films)".format(*report.interval_mm) if report.interval_mm else ""
    return f"{_mm(overall.mre_mm)} +- {_mm(overall.sd_mm)} mm{interval}."


def summary_table(report: EvaluationReport) -> Table:
    """The network beside the baseline and the raters."""
    table = _table("")
    table.add_row("this network", *_cells(report.evaluation.overall))
    table.add_row("mean shape", *_cells(report.baseline.overall))
    if report.inter_rater is not None:
        table.add_row("junior by senior rater", *_cells(report.inter_rater.overall))
    return table


def landmark_table(report: EvaluationReport) -> Table:
    """One row a landmark, with the baseline's and the raters' MRE at the end."""
    table = _table("landmark", "name")
    table.add_column("mean shape\nMRE mm", justify="right")
    if report.inter_rater is not None:
        table.add_column("raters\nMRE mm", justify="right")
    for symbol, title in report.landmarks.items():
        others = [_mm(report.baseline.landmarks[symbol].mre_mm)]
        if report.inter_rater is not None:
            others.append(_mm(report.inter_rater.landmarks[symbol].mre_mm))
        table.add_row(symbol, title, *_cells(report.evaluation.landmarks[symbol]), *others)
    return table


def machine_table(report: EvaluationReport) -> Table:
    """One row an X-ray machine."""
    table = _table("machine")
    for machine, scores in report.evaluation.machines.items():
        table.add_row(machine or "-", *_cells(scores))
    return table


def remarks(report: EvaluationReport) -> list[str]:
    """What a reader of the figures must know."""
    said = [
        "MRE +- SD: mean and standard deviation of the radial error. SDR: points closer than so many mm, in percent.",
        "Mean shape: every landmark at its mean training position, for comparison; it sees no film.",
    ]
    if report.interval_mm is not None:
        said.append(f"The interval is a bootstrap over films, {report.resamples} resamples.")
    if report.trained_on_annotator not in ("", report.annotator):
        said.append(f"Trained on '{report.trained_on_annotator}' points, judged by '{report.annotator}' ones.")
    if report.split != "test":
        said.append(f"These are '{report.split}' films: training saw them, or chose its best epoch by them.")
    said.append(f"Worst films: {_worst(report.film_mre_mm)}.")
    said += [f"Skipped {name}: {reason}" for name, reason in report.skipped.items()]
    return said


def _worst(films: Mapping[str, float | None]) -> str:
    known = sorted(((mre, name) for name, mre in films.items() if mre is not None), reverse=True)
    return ", ".join(f"{name} ({mre:.2f} mm)" for mre, name in known[:_WORST]) or "none"


def _table(*names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    for name in ("points", "MRE\nmm", "SD\nmm", *_SDR):
        table.add_column(name, justify="right")
    return table


def _cells(scores: Scores) -> tuple[str, ...]:
    shares = [scores.sdr.get(f"{limit}mm") for limit in LIMITS_MM]
    percent = ["-" if share is None else f"{100 * share:.2f}" for share in shares]
    return (str(scores.points), _mm(scores.mre_mm), _mm(scores.sd_mm), *percent)


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
