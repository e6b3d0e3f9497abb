"""One self-contained page of an evaluation: the figures to cite, how sure they are, plots, and the worst films."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain

from vramfit.landmarks.data.films import Unit
from vramfit.landmarks.evaluation.compare import Comparison
from vramfit.landmarks.evaluation.evaluate import Judged
from vramfit.landmarks.evaluation.metrics import Scores, curve_limits, limits, sdr_at
from vramfit.landmarks.evaluation.report import EvaluationReport
from vramfit.landmarks.report import cases, film_names
from vramfit.landmarks.report.comparison import both_remarks, comparison_table, method, stands_out, verdict
from vramfit.landmarks.report.evaluation import (
    counted,
    decoding,
    interval,
    landmark_table,
    machine_table,
    measure_table,
    mm,
    model,
    pixel_sizes,
    policy,
    remarks,
    summary_table,
)
from vramfit.report.page import facts, figure, page, paragraphs, table
from vramfit.report.plot import Chart, rows_chart

_WORST = 6

_STYLE = """
.tiles{display:flex;flex-wrap:wrap;gap:.8rem 2.4rem;margin:1.2rem 0}.tiles div{min-width:5.5rem}
.tiles b{display:block;font-size:1.75rem;line-height:1.15;font-weight:600;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.87rem}.tiles small{font-size:.95rem;font-weight:400}
blockquote{margin:1rem 0;padding:.1rem 0 .1rem 1rem;border-left:3px solid var(--line);max-width:50rem}
"""


def evaluation_page(judged: Judged, comparison: Comparison | None = None) -> str:
    """The page as HTML text; it loads nothing from elsewhere. The films are read anew for their pictures."""
    report = judged.report
    title = f"{model(report)} on {counted(report.films)} of '{report.split}'"
    sections = chain(
        (f"<h1>{escape(title)}</h1>", _tiles(report.evaluation.overall, report.unit)),
        (f"<blockquote>{paragraphs([citation(report)])}</blockquote>",),
        _compared(comparison) if comparison is not None else (),
        _beside(report, comparison),
        _by_landmark(report),
        _by_machine(report),
        _measures(report),
        _worst(judged),
        _how(report, both_remarks(comparison) if comparison is not None else remarks(report)),
    )
    return page(title, sections, style=_STYLE + cases.STYLE + film_names.STYLE)


def citation(report: EvaluationReport) -> str:
    """A sentence with everything that a figure needs beside it to be cited."""
    overall = report.evaluation.overall
    sure = (
        f" (95 % interval {interval(overall.interval)} {report.unit}, bootstrap over films)" if overall.interval else ""
    )
    each = "/".join(f"{limit:g}" for limit in limits(report.unit))
    shares = "/".join(_percent(overall, limit, report.unit) for limit in limits(report.unit))
    return (
        f"MRE {mm(overall.mre)} \N{PLUS-MINUS SIGN} {mm(overall.sd)} {report.unit}{sure}; "
        f"SDR at {each} {report.unit}: {shares} %; "
        f"{counted(report.films)}, {len(report.landmarks)} landmarks; judged by {policy(report)}; "
        f"{pixel_sizes(report.pixel_sizes)}; {model(report)}, decoded with {decoding(report)}."
    )


def _tiles(overall: Scores, unit: Unit) -> str:
    around = f"95 % {interval(overall.interval)}" if overall.interval else "mean radial error"
    shown: list[tuple[str, str, str]] = [(mm(overall.mre), unit, f"MRE, {around}")]
    shown += [(_percent(overall, limit, unit), "%", f"SDR at {limit:g} {unit}") for limit in limits(unit)]
    tiles = (f"<div><b>{value} <small>{what}</small></b><span>{said}</span></div>" for value, what, said in shown)
    return f"<div class='tiles'>{''.join(tiles)}</div>"


def _percent(scores: Scores, limit: float, unit: Unit) -> str:
    share = sdr_at(scores, limit, unit)
    return "-" if share is None else f"{100 * share:.1f}"


def _beside(report: EvaluationReport, comparison: Comparison | None) -> Iterator[str]:
    yield "<h2>Beside what it must be read</h2>"
    yield table(summary_table(report))
    yield f"<div class='pair'>{_curves(report, comparison)}{_landmark_plot(report)}</div>"


def _curves(report: EvaluationReport, comparison: Comparison | None) -> str:
    """The SDR of everything at hand against the limit."""
    curves = [("first", "this network", report.evaluation.curve)]
    curves += [("second", "the second network", comparison.second.evaluation.curve)] if comparison else []
    curves += [("third", "junior by senior rater", report.inter_rater.curve)] if report.inter_rater else []
    curves.append(("fourth", "mean shape", report.baseline.curve))
    unit = report.unit
    chart = Chart((0, curve_limits(unit)[-1]), (0, 100), f"radial error below, {unit}", "landmarks, %", height=360)
    lines = [chart.upright(limit) for limit in limits(unit)]
    shown = [each for each in curves if each[2]]
    lines += [chart.line(_percents(curve, unit), mark) for mark, _, curve in reversed(shown)]
    *first, last = (f"{limit:g}" for limit in limits(unit))
    dashed = f"dashed at {', '.join(first)} and {last} {unit}."
    caption = f"The share of landmarks found within each distance of the truth (SDR); {dashed}"
    names = [(mark, name) for mark, name, _ in shown]
    return figure(chart.drawing(lines, "SDR against its limit"), caption, names)


def _percents(curve: Sequence[float], unit: Unit) -> list[tuple[float, float]]:
    return [(limit, 100 * share) for limit, share in zip(curve_limits(unit), curve, strict=True)]


def _by_landmark(report: EvaluationReport) -> Iterator[str]:
    yield "<h2>By landmark</h2>"
    yield table(landmark_table(report))


def _landmark_plot(report: EvaluationReport) -> str:
    """Each landmark's MRE with its interval, the best on top, and the raters' beside it."""
    mine = {symbol: each for symbol, each in report.evaluation.landmarks.items() if each.mre is not None}
    symbols = sorted(mine, key=lambda symbol: mine[symbol].mre or 0.0)
    raters = report.inter_rater.landmarks if report.inter_rater else {}
    far = [value for symbol in symbols for value in _reaches(mine[symbol], raters.get(symbol))]
    unit = report.unit
    chart = rows_chart(symbols, (0, 1.04 * max(far, default=0.0) or 1.0), f"MRE, {unit}")
    marks: list[str] = []
    for row, symbol in enumerate(symbols):
        apart = raters[symbol].mre if symbol in raters else None
        marks += _landmark_row(chart, row, symbol, (mine[symbol], apart), unit)
    names = [("first", "this network, with its 95 % interval")] + (
        [("third", "junior by senior rater")] if raters else []
    )
    caption = "MRE of each landmark over films. Where raters are farther apart than the network is from them, "
    return figure(chart.drawing(marks, "MRE by landmark", y_names=symbols), caption + "its error says little.", names)


def _reaches(mine: Scores, raters: Scores | None) -> list[float]:
    high = mine.interval[1] if mine.interval else 0.0
    return [mine.mre or 0.0, high, (raters.mre if raters else None) or 0.0]


def _landmark_row(
    chart: Chart, row: int, symbol: str, figures: tuple[Scores, float | None], unit: Unit
) -> Iterator[str]:
    """The network's scores of a landmark and how far raters are apart on it."""
    scores, apart = figures
    if apart is not None:
        yield chart.dot(apart, row, "third", f"{symbol}: raters {mm(apart)} {unit} apart", hollow=True, size=3.5)
    if scores.interval is not None:
        yield chart.span(*scores.interval, row, "first")
    title = f"{symbol}: {mm(scores.mre)} {unit}, 95 % {interval(scores.interval)}"
    yield chart.dot(scores.mre or 0.0, row, "first", title)


def _by_machine(report: EvaluationReport) -> Iterator[str]:
    yield "<h2>By X-ray machine</h2>"
    yield table(machine_table(report))


def _measures(report: EvaluationReport) -> Iterator[str]:
    if report.measures:
        yield "<h2>Cephalometric measures</h2>"
        yield table(measure_table(report))


def _compared(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Compared with another checkpoint</h2>"
    yield f"<p class='lead'>{escape(verdict(comparison))}</p>"
    second = comparison.second
    yield facts([("first", _one(comparison.first)), ("second", _one(second))])
    yield "<div class='pair'>"
    yield _difference_plot(comparison)
    yield f"<div>{paragraphs(method(comparison))}</div></div>"
    yield table(comparison_table(comparison))


def _one(report: EvaluationReport) -> str:
    overall = report.evaluation.overall
    return f"{report.checkpoint}: {model(report)}, epoch {report.epoch}; MRE {mm(overall.mre)} {report.unit}"


def _difference_plot(comparison: Comparison) -> str:
    """Each landmark's difference with its interval; those right of 0 are for the second."""
    differences = comparison.landmarks
    symbols = sorted(differences, key=lambda symbol: differences[symbol].mean)
    far = [abs(side) for each in differences.values() for side in (each.interval or (each.mean,))]
    reach = 1.05 * max(far, default=0.0) or 1.0
    chart = rows_chart(symbols, (-reach, reach), f"first less second, {comparison.first.unit}")
    marks = [chart.upright(0)]
    for row, symbol in enumerate(symbols):
        each = differences[symbol]
        mark = "fourth" if not stands_out(each) else "first" if each.mean < 0 else "second"
        marks += [chart.span(*each.interval, row, mark)] if each.interval else []
        told = f"{symbol}: {each.mean:+.2f} {comparison.first.unit}, 95 % {interval(each.interval, signed=True)}"
        marks.append(chart.dot(each.mean, row, mark, told))
    names = [("fourth", "cannot be told"), ("first", "first better"), ("second", "second better")]
    caption = (
        "Difference of each landmark with its 95 % interval; coloured where p, adjusted for multiple comparisons "
        "(Holm), is at most 0.05."
    )
    return figure(chart.drawing(marks, "Difference by landmark", y_names=symbols), caption, names)


def _worst(judged: Judged) -> Iterator[str]:
    yield "<h2>Worst films</h2>"
    caption = "The films with the largest MRE; point at a landmark to read its error."
    yield figure(cases.worst_cases(judged, _WORST), caption, cases.LEGEND)


def _how(report: EvaluationReport, said: Sequence[str]) -> Iterator[str]:
    yield "<h2>How it was judged</h2>"
    yield facts(_circumstances(report))
    yield paragraphs(said)


def _circumstances(report: EvaluationReport) -> Sequence[tuple[str, str]]:
    left_out = f"; left out: {', '.join(report.left_out)}" if report.left_out else ", all that the checkpoint knows"
    return (
        ("checkpoint", f"{report.checkpoint}, epoch {report.epoch}"),
        ("network", model(report)),
        *([("averaged with", ", ".join(report.ensemble))] if report.ensemble else []),
        ("films", f"{report.films} of '{report.split}' in {report.dataset}"),
        ("landmarks", f"{len(report.landmarks)}: {', '.join(report.landmarks)}{left_out}"),
        ("judged by", policy(report)),
        ("trained on", f"'{report.trained_on_annotator}' points" if report.trained_on_annotator else "not known"),
        ("pixel sizes", pixel_sizes(report.pixel_sizes)),
        ("decoded with", decoding(report)),
        ("intervals", f"95 %, bootstrap over films, {report.resamples:,} resamples, seed {report.seed}"),
        ("left out", "; ".join(f"{name} ({reason})" for name, reason in report.skipped.items()) or "no film"),
        ("made by", f"vramfit {report.vramfit_version}"),
    )
