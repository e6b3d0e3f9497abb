"""What an evaluation found: tables by rater, landmark and machine, and the sentences that a reader of them needs."""

import sys
from collections.abc import Mapping
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vramfit.landmarks.data.films import Unit
from vramfit.landmarks.evaluation.certainty import Kept
from vramfit.landmarks.evaluation.measures import MEASURES
from vramfit.landmarks.evaluation.metrics import Evaluation, PixelSizes, Scores, limits, sdr_at
from vramfit.landmarks.evaluation.relative import SIGMA
from vramfit.landmarks.evaluation.report import EvaluationReport
from vramfit.landmarks.evaluation.statistics import FEW_FILMS
from vramfit.report.terminal import say, show

_NAMED = 3
# Landmarks that move less than this between films move less than raters can place them.
_STILL_MM, _STILL_PX = 0.5, 0.5


def show_evaluation(report: EvaluationReport, file: TextIO | None = None) -> None:
    """Print a whole evaluation: what was judged by what, the result, and the tables."""
    file = file or sys.stdout
    say(*headlines(report), f"MRE {result(report)}", "", file=file)
    tables = [summary_table(report), landmark_table(report), machine_table(report)]
    tables += [measure_table(report)] if report.measures else []
    tables += [certainty_table(report.certainty, report.unit)] if report.certainty else []
    for table in tables:
        show(table, file)
        say("", file=file)
    say(*remarks(report), f"Worst films: {_worst(report)}.", file=file)


def headlines(report: EvaluationReport) -> list[str]:
    """What was judged, and by what."""
    left_out = f"; left out: {', '.join(report.left_out)}" if report.left_out else ""
    return [
        f"{report.checkpoint}: {model(report)}, epoch {report.epoch}, decoded with {decoding(report)}.",
        *([f"Averaged with: {', '.join(report.ensemble)}."] if report.ensemble else []),
        f"Films: {report.films} of '{report.split}' in {report.dataset}, {pixel_sizes(report.pixel_sizes)}.",
        f"Landmarks: {len(report.landmarks)} of {len(report.landmarks) + len(report.left_out)}{left_out}.",
        f"Judged by: {policy(report)}.",
    ]


def model(report: EvaluationReport) -> str:
    """The network and its image size, such as `hrnet_w32 at 768x768`, and how many it is averaged with."""
    others = f", averaged with {len(report.ensemble)} more" if report.ensemble else ""
    return "{} at {}x{}".format(report.model, *report.image_size) + others


def decoding(report: EvaluationReport) -> str:
    """How points were found in heatmaps, and in how many views of a film."""
    name = {"dark": "DARK", "soft": "a local soft-argmax"}.get(report.decode, report.decode)
    return name if report.views == 1 else f"{name} and test-time augmentation, the mean of {report.views} views"


def pixel_sizes(sizes: PixelSizes) -> str:
    """The pixel sizes used, and films that are odd in theirs."""
    if sizes.width_mm is None or sizes.height_mm is None:
        return "none with a pixel size: there are no millimetres"
    both = f"{_range(sizes.width_mm)} mm wide and {_range(sizes.height_mm)} mm high"
    said = f"pixel size {_range(sizes.width_mm)} mm" if sizes.width_mm == sizes.height_mm else f"pixels {both}"
    unequal = f", {sizes.unequal} with pixels that are not square" if sizes.unequal else ""
    missing = f", {sizes.missing} without a pixel size and in no figure in mm" if sizes.missing else ""
    return f"{said}{unequal}{missing}"


def policy(report: EvaluationReport) -> str:
    """Whose points the network was judged by."""
    if report.annotator != "mean":
        return f"the {report.annotator} rater's points"
    rounded = ", rounded up where all marked whole pixels" if report.mean_rounds_up else ""
    return f"the mean of the raters{rounded}; one rater where there is one alone"


def result(report: EvaluationReport) -> str:
    """The figure to cite, such as `1.31 +- 0.92 mm (95 % interval 1.24 to 1.39, over films).`."""
    overall = report.evaluation.overall
    low_high = overall.interval
    interval = " (95 % interval {:.2f} to {:.2f}, over films)".format(*low_high) if low_high else ""
    return f"{mm(overall.mre)} +- {mm(overall.sd)} {report.unit}{interval}."


def _summary_rows(report: EvaluationReport) -> list[tuple[str, Scores]]:
    rows = [("this network", report.evaluation.overall)]
    others = {rater: each for rater, each in report.raters.items() if rater != report.annotator}
    rows += [(f"network by {_rater(rater)}", each.overall) for rater, each in others.items()]
    rows.append(("mean shape", report.baseline.overall))
    if report.inter_rater is not None:
        rows.append(("junior by senior rater", report.inter_rater.overall))
    return rows


def summary_table(report: EvaluationReport) -> Table:
    """The network, by the policy in force and by each rater, beside the baseline and the raters."""
    table = _table(report, "")
    for row, (name, scores) in enumerate(_summary_rows(report)):
        table.add_row(name, *_score_cells(scores, report.unit), style=None if row else "bold")
    return table


def _companions(report: EvaluationReport) -> list[tuple[str, Evaluation]]:
    """What stands beside the network landmark by landmark: each rater's verdict, mean shape, rater by rater."""
    named = [(f"by {rater}", each) for rater, each in report.raters.items() if rater != "mean"]
    named.append(("mean shape", report.baseline))
    return named if report.inter_rater is None else [*named, ("raters", report.inter_rater)]


def landmark_table(report: EvaluationReport) -> Table:
    """One row a landmark, with the MRE of its companions at the end."""
    table = _table(report, "landmark", "name")
    for name, _ in _companions(report):
        table.add_column(f"{name}\nMRE {report.unit}", justify="right")
    for symbol, title in report.landmarks.items():
        beside = [mm(evaluation.landmarks[symbol].mre) for _, evaluation in _companions(report)]
        table.add_row(symbol, title, *_score_cells(report.evaluation.landmarks[symbol], report.unit), *beside)
    return table


def machine_table(report: EvaluationReport) -> Table:
    """One row an X-ray machine."""
    table = _table(report, "machine")
    for machine, scores in report.evaluation.machines.items():
        table.add_row(machine or "-", *_score_cells(scores, report.unit))
    return table


def measure_table(report: EvaluationReport) -> Table:
    """One row a cephalometric measure: its error, by each rater too, and how far raters are apart on it."""
    names = list(dict.fromkeys(name for each in report.measures.values() for name in each.by_rater))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("measure", "what it is", "unit"):
        table.add_column(name, overflow="fold")
    beside = [*(f"by\n{name}" for name in names), *(["raters\nabsolute"] if names else [])]
    for name in ("films", "bias", "SD", "mean\nabsolute", *beside):
        table.add_column(name, justify="right")
    for name, each in report.measures.items():
        raters = [mm(each.by_rater.get(rater)) for rater in names] + ([mm(each.raters_absolute)] if names else [])
        figures = (f"{each.bias:+.2f}", mm(each.sd), mm(each.mean_absolute), *raters)
        table.add_row(name, MEASURES[name].title, each.unit, str(each.films), *figures)
    return table


def certainty_table(held: Kept, unit: Unit) -> Table:
    """One row a promised coverage: the share of points within their regions, and how large those are."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("promised\n%", "points", "within\n%", "95 %\n%", f"mean radius\n{unit}"):
        table.add_column(name, justify="right")
    for each in held.promises:
        low_high = "-" if each.interval is None else "{:.1f}-{:.1f}".format(*(100 * end for end in each.interval))
        cells = (f"{100 * each.level:g}", str(each.points), f"{100 * each.share:.1f}", low_high, mm(each.radius))
        table.add_row(*cells)
    return table


def _certainty_remarks(report: EvaluationReport) -> list[str]:
    held = report.certainty
    if held is None:
        return [report.certainty_note] if report.certainty_note else []
    said = [
        f"Regions: calibrated on {held.calibrated_on} films; expected and true error have a rank correlation of "
        f"{held.spearman:.2f}."
    ]
    said += [f"Without evidence on {film}: {', '.join(names)}." for film, names in held.doubtful.items()]
    return said + [f"{film} is unlike the films calibrated on: {reason}." for film, reason in held.unlike.items()]


def remarks(report: EvaluationReport) -> list[str]:
    """What a reader of the figures must know."""
    said = [
        "MRE +- SD: mean and standard deviation of the radial error. SDR: points closer than so many "
        f"{report.unit}, in percent.",
        "Mean shape: every landmark at its mean training position, for comparison; it sees no film.",
    ]
    if report.evaluation.overall.interval is not None:
        few = f" With {report.films} films it is too narrow." if report.films < FEW_FILMS else ""
        said.append(f"95 %: a bootstrap over films, {report.resamples:,} resamples, seed {report.seed}.{few}")
    if report.measures:
        said.append(
            "Measures: by the network's points less by the true ones, or each rater's; raters: junior less senior."
        )
    return said + _certainty_remarks(report) + in_pixels(report) + cautions(report)


def in_pixels(report: EvaluationReport) -> list[str]:
    """For films without pixel sizes: that there are no millimetres, and the errors by the size of what is marked."""
    if report.unit == "mm":
        return []
    said = ["px: pixels of the films as they are on disk; none has a pixel size, so there are no millimetres."]
    if report.relative is None:
        return said
    shares = ", ".join(f"PCK@{limit} {100 * share:.1f} %" for limit, share in report.relative.pck.items())
    return [
        *said,
        f"By the larger side of the box around each film's points: mean error {report.relative.mean_percent:.2f} %, "
        f"{shares}; OKS {report.relative.oks:.3f} (sigma {SIGMA:g} for every landmark).",
    ]


def cautions(report: EvaluationReport) -> list[str]:
    """What may make the figures say less than they seem to."""
    said = _hardly_moving(report)
    if report.trained_on_annotator not in ("", report.annotator):
        said.append(f"Trained on '{report.trained_on_annotator}' points, judged by '{report.annotator}' ones.")
    if report.split != "test":
        said.append(f"These are '{report.split}' films: training saw them, or chose its best epoch by them.")
    said += _leakage(report.leaked)
    said += [f"Skipped {name}: {reason}" for name, reason in report.skipped.items()]
    return said


def _hardly_moving(report: EvaluationReport) -> list[str]:
    """That the films' points are all but the same, which makes any error small: a unit may be wrong."""
    baseline, relative = report.baseline.overall.mre, report.relative
    least = _STILL_MM if report.unit == "mm" else _STILL_PX
    if baseline is None or baseline >= least:
        return []
    by_size = f" ({relative.mean_percent:.2f} % is this network's error by their size)" if relative else ""
    return [
        f"The mean shape alone, which sees no film, is {mm(baseline)} {report.unit} from the truth: the points hardly "
        f"move between films, so that a small error proves nothing{by_size}. Check their unit with `data check`."
    ]


def _leakage(leaked: Mapping[str, str] | None) -> list[str]:
    if leaked is None:
        return ["The checkpoint does not say which films it was trained on: whether some are among these is not known."]
    if not leaked:
        return ["None of these films shows the same picture as one that the checkpoint was trained on."]
    pairs = [f"{film} (there {twin})" for film, twin in leaked.items()]
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return [
        f"Leaked: {len(leaked)} of these films show the same picture as one that the checkpoint was trained on, "
        f"which flatters the figures: {', '.join(pairs[:_NAMED])}{more}."
    ]


def _worst(report: EvaluationReport) -> str:
    known = sorted(((mre, name) for name, mre in report.film_mre.items() if mre is not None), reverse=True)
    return ", ".join(f"{name} ({mre:.2f} {report.unit})" for mre, name in known[:_NAMED]) or "none"


def _table(report: EvaluationReport, *names: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    unit = report.unit
    columns = ("points", f"MRE\n{unit}", f"95 %\n{unit}", f"SD\n{unit}")
    for name in (*columns, *(f"SDR\n{limit:g} {unit} %" for limit in limits(unit))):
        table.add_column(name, justify="right")
    return table


def _score_cells(scores: Scores, unit: Unit) -> tuple[str, ...]:
    shares = [sdr_at(scores, limit, unit) for limit in limits(unit)]
    percent = ["-" if share is None else f"{100 * share:.2f}" for share in shares]
    return (str(scores.points), mm(scores.mre), interval(scores.interval), mm(scores.sd), *percent)


def counted(films: int) -> str:
    """How many films, in words that suit one."""
    return f"{films} film{'' if films == 1 else 's'}"


def interval(low_high: tuple[float, float] | None, *, signed: bool = False) -> str:
    """An interval such as `1.24-1.39`, or `-0.10 to +0.21` where signs matter; `-` for None."""
    if low_high is None:
        return "-"
    return "{:+.2f} to {:+.2f}".format(*low_high) if signed else "{:.2f}-{:.2f}".format(*low_high)


def _rater(name: str) -> str:
    return "raters' mean" if name == "mean" else f"{name} rater"


def mm(value: float | None) -> str:
    """Millimetres, or pixels, with two decimals; `-` for None."""
    return "-" if value is None else f"{value:.2f}"


def _range(low_high: tuple[float, float]) -> str:
    low, high = low_high
    return f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"
