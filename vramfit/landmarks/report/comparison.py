"""Two checkpoints side by side: the difference, how sure it is, and landmark by landmark."""

import sys
from collections.abc import Callable
from typing import TextIO

from rich.table import Table

from vramfit.landmarks.evaluation.compare import Comparison, Difference
from vramfit.landmarks.evaluation.report import EvaluationReport
from vramfit.landmarks.evaluation.statistics import FEW_FILMS
from vramfit.landmarks.report.evaluation import cautions, counted, headlines, interval, mm, remarks, result
from vramfit.report.terminal import make_table, say, show

_LEVEL = 0.05
_LEAST = 0.001  # the smallest p that is told apart
_FIGURES = "MRE +- SD: mean and standard deviation of the radial error."


def show_comparison(comparison: Comparison, file: TextIO | None = None) -> None:
    """Print both results, the difference between them, the table of landmarks and what to keep in mind."""
    file = file or sys.stdout
    for name, report in (("First", comparison.first), ("Second", comparison.second)):
        say(f"{name}: {headlines(report)[0]}", f"  MRE {result(report)}", file=file)
    say(*headlines(comparison.first)[1:], verdict(comparison), "", file=file)
    show(comparison_table(comparison), file)
    say("", _FIGURES, *method(comparison), *_of_both(comparison, cautions), file=file)


def verdict(comparison: Comparison) -> str:
    """The difference in a sentence, which says no more than the test does."""
    overall = comparison.overall
    better, size = ("first" if overall.mean < 0 else "second"), abs(overall.mean)
    sure = f"95 % interval {interval(overall.interval, signed=True)}, " if overall.interval else ""
    sign = "<" if overall.p_value < _LEAST else "="
    test = f"p {sign} {max(overall.p_value, _LEAST):.3f}, {counted(overall.films)}"
    told = f"difference {overall.mean:+.2f} {comparison.first.unit} a film ({sure}{test})"
    if overall.p_value > _LEVEL:
        return f"Which of the two is better cannot be told from these films: {told}."
    return f"The {better} is better by {size:.2f} {comparison.first.unit}: {told}."


def comparison_table(comparison: Comparison) -> Table:
    """One row a landmark, those marked that differ when all are asked about together."""
    unit = comparison.first.unit
    figures = (f"first\nMRE {unit}", f"second\nMRE {unit}", f"difference\n{unit}", f"95 %\n{unit}")
    table = make_table(("landmark", "name", *figures, "p", "adjusted\np"))
    for symbol, difference in comparison.landmarks.items():
        table.add_row(*_difference_cells(comparison, symbol), style="bold" if stands_out(difference) else None)
    return table


def _difference_cells(comparison: Comparison, symbol: str) -> tuple[str, ...]:
    difference = comparison.landmarks[symbol]
    both = (comparison.first, comparison.second)
    return (
        f"{symbol} *" if stands_out(difference) else symbol,
        comparison.first.landmarks[symbol],
        *(mm(report.evaluation.landmarks[symbol].mre) for report in both),
        f"{difference.mean:+.2f}",
        interval(difference.interval, signed=True),
        p_value(difference.p_value),
        p_value(difference.adjusted_p_value),
    )


def stands_out(difference: Difference) -> bool:
    """Whether a landmark differs at 5 % when all are asked about together."""
    return difference.adjusted_p_value <= _LEVEL


def method(comparison: Comparison) -> list[str]:
    """How the difference was found, in sentences."""
    films = comparison.overall.films
    few = f" With {counted(films)} the interval is too narrow." if films < FEW_FILMS else ""
    return [
        "Difference: first less second, film by film; below 0 the first is better. Every film counts alike.",
        f"95 %: a bootstrap over films, {comparison.resamples:,} resamples; p: a two-sided permutation test that flips "
        f"the signs of whole films, {comparison.flips:,} times (Fisher 1935; Phipson and Smyth 2010); "
        f"seed {comparison.seed}.{few}",
        "adjusted p: p adjusted for multiple comparisons (Holm 1979); * marks those of at most 0.05.",
    ]


def both_remarks(comparison: Comparison) -> list[str]:
    """What a reader of all tables must know of both, and then of each alone."""
    return _of_both(comparison, remarks)


def _of_both(comparison: Comparison, said: Callable[[EvaluationReport], list[str]]) -> list[str]:
    first, second = said(comparison.first), said(comparison.second)
    return [
        *(remark for remark in first if remark in second),
        *(f"First: {remark}" for remark in first if remark not in second),
        *(f"Second: {remark}" for remark in second if remark not in first),
    ]


def p_value(value: float) -> str:
    """A p-value with three decimals, as journals ask."""
    return f"{value:.3f}" if value >= _LEAST else f"<{_LEAST:.3f}"
