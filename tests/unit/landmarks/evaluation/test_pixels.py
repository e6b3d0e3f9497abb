"""Films without pixel sizes: trained, judged, compared and drawn in pixels, which every figure says."""

import re
from dataclasses import replace

import numpy as np
import pytest
from made_reports import make_judged

from vramfit.landmarks.evaluation.compare import compare
from vramfit.landmarks.evaluation.metrics import evaluate_points, scores
from vramfit.landmarks.evaluation.relative import relative_scores
from vramfit.landmarks.report.comparison import comparison_table, verdict
from vramfit.landmarks.report.evaluation import remarks, result, show_evaluation


def test_errors_are_pixels_and_no_figure_in_mm_is_given():
    found = scores(np.array([[1.0, 3.0], [6.0, np.nan]]), "px")
    assert (found.mre_mm, found.sd_mm, found.interval_mm) == (None, None, None)
    assert found.mre_px == found.mre == pytest.approx(10 / 3)
    assert found.sdr == {"2px": 1 / 3, "5px": 2 / 3, "10px": 1, "20px": 1}


def test_relative_scores_by_hand():
    truth = np.array([[[0.0, 0.0], [100.0, 50.0]]])
    found = relative_scores(np.array([[4.0, 12.0]]), truth)
    assert found.mean_percent == pytest.approx(8)
    assert found.pck == {"0.05": 0.5, "0.1": 0.5, "0.2": 1}
    expected = np.exp(-np.array([16, 144]) / (2 * 5000 * 0.01))
    assert found.oks == pytest.approx(expected.mean())
    assert relative_scores(np.array([[1.0]]), np.array([[[5.0, 5.0]]])) is None


def in_pixels(judged):
    """The films of a judgement without their pixel sizes."""
    films = tuple(replace(film, pixel_size_mm=(np.nan, np.nan)) for film in judged.films.films)
    return replace(judged.films, films=films)


def test_an_evaluation_is_in_the_films_unit(tmp_path):
    judged = make_judged([[1.0, 2.0], [3.0, 4.0]])
    films = in_pixels(judged)
    assert (judged.films.unit, films.unit) == ("mm", "px")
    moved = np.stack([film.points for film in films.films]) + np.array([3, 4])
    evaluation = evaluate_points(moved, films)
    assert evaluation.overall.mre_px == pytest.approx(5)
    assert evaluation.overall.interval_px == pytest.approx((5, 5))
    assert len(evaluation.curve) == 101


@pytest.fixture
def report():
    """A report in pixels: that of made films, with the fields of the other unit."""
    errors = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 9.0], [1.0, 1.0, 2.0]])
    report = make_judged(errors).report
    in_px = {
        "mre_mm": None,
        "sd_mm": None,
        "interval_mm": None,
        **{
            "mre_px": 2.5,
            "sd_px": 1.5,
            "interval_px": (1.0, 3.0),
            "sdr": {"2px": 0.3, "5px": 0.9, "10px": 1, "20px": 1},
        },
    }

    def turned(evaluation):
        scored = {name: each.model_copy(update=in_px) for name, each in evaluation.landmarks.items()}
        machines = {name: each.model_copy(update=in_px) for name, each in evaluation.machines.items()}
        overall = evaluation.overall.model_copy(update=in_px)
        return evaluation.model_copy(update={"overall": overall, "landmarks": scored, "machines": machines})

    evaluations = {name: turned(getattr(report, name)) for name in ("evaluation", "baseline")}
    rows = {"film_mre_px": report.film_mre_mm, "errors_px": report.errors_mm, "film_mre_mm": {}, "errors_mm": {}}
    relative = relative_scores(errors, np.array([[[0.0, 0.0], [90.0, 10.0], [40.0, 80.0]]] * 3))
    sizes = report.pixel_sizes.model_copy(update={"width_mm": None, "height_mm": None, "missing": 3})
    changes = {**evaluations, **rows, "unit": "px", "relative": relative, "inter_rater": None, "raters": {}}
    return report.model_copy(update={**changes, "pixel_sizes": sizes})


def test_no_report_in_pixels_says_mm(report, capsys):
    show_evaluation(report)
    printed = capsys.readouterr().out
    assert "2.50 +- 1.50 px (95 % interval 1.00 to 3.00, over films)." in printed
    assert "there are no millimetres" in printed
    assert re.search(r"PCK@0\.05 .* OKS 0\.\d+", printed)
    assert not re.search(r"\d mm\b|\bmm %|MRE mm", printed)
    compared = compare(report, report)
    assert compared.overall.mean_px == 0
    assert compared.overall.mean_mm is None
    assert "px a film" in verdict(compared)
    assert all("mm" not in str(column.header) for column in comparison_table(compared).columns)
    assert result(report).endswith("over films).")


def test_points_that_hardly_move_are_told(report):
    still = report.baseline.model_copy(update={"overall": report.baseline.overall.model_copy(update={"mre_px": 0.2})})
    assert not [said for said in remarks(report) if "hardly move" in said]
    (told,) = [said for said in remarks(report.model_copy(update={"baseline": still})) if "hardly move" in said]
    assert "0.20 px from the truth" in told
