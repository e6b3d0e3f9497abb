"""The page of an evaluation: the figures of its record, sound, and with no word taken for markup."""

import re
from base64 import b64decode

import cv2
import numpy as np
import pytest
from made_reports import make_judged, make_report
from pages import require_sound

from vramfit.landmarks.evaluation.compare import compare
from vramfit.landmarks.report.evaluation_page import citation, evaluation_page

FILMS = 8


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "films <b>"
    folder.mkdir()
    for number in range(FILMS):
        picture = np.full((240, 200), 20 * number, dtype=np.uint8)
        cv2.imencode(".png", picture)[1].tofile(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def errors():
    return np.random.default_rng(0).gamma(3, 0.5, size=(FILMS, 4))


def test_the_page_is_sound_and_holds_what_people_cite(errors, folder):
    judged = make_judged(errors, folder)
    page = evaluation_page(judged)
    require_sound(page)
    overall = judged.report.evaluation.overall
    assert f"MRE {overall.mre_mm:.2f} ± {overall.sd_mm:.2f} mm" in citation(judged.report)
    for words in (citation(judged.report).split(";")[0], "junior by senior rater", "mean shape", "seed 0", "0.5000 mm"):
        assert words in page, words


def test_words_of_the_user_are_only_words(errors, folder):
    judged = make_judged(
        errors, folder, checkpoint="<script>alert(1)</script>", skipped={"<i>": "<u>why</u>"}, model="a&b"
    )
    page = evaluation_page(judged)
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;u&gt;why" in page
    assert "a&amp;b" in page
    assert "films <b>" not in page


def test_the_worst_films_are_shown_worst_first(errors, folder):
    judged = make_judged(errors, folder)
    page = evaluation_page(judged)
    order = sorted(judged.report.film_mre_mm, key=lambda film: -judged.report.film_mre_mm[film])
    assert re.findall(r"<figcaption><b>(\d+)</b>", page) == order[:6]
    pictures = re.findall(r"data:image/jpeg;base64,([^']+)'", page)
    first = cv2.imdecode(np.frombuffer(b64decode(pictures[0]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.median(first) == pytest.approx(20 * int(order[0]), abs=3)


def test_missing_points_are_neither_drawn_nor_counted(errors, folder):
    errors[:, 2] = np.nan
    errors[0] = np.nan
    page = evaluation_page(make_judged(errors, folder))
    require_sound(page)
    assert len(re.findall(r"<circle class='truth'", page)) == 6 * 3


def test_a_network_without_an_error_still_makes_a_page(folder):
    require_sound(evaluation_page(make_judged(np.zeros((2, 4)), folder, raters={}, inter_rater=None)))


def test_a_single_film_without_raters_still_makes_a_page(errors, folder):
    require_sound(evaluation_page(make_judged(errors[:1], folder, raters={}, inter_rater=None, leaked=None)))


def test_a_comparison_is_on_the_page(errors, folder):
    judged = make_judged(errors, folder)
    other = make_report(errors + 0.5, checkpoint="second.pth", leaked={"000": "<old>"})
    page = evaluation_page(judged, compare(judged.report, other))
    require_sound(page)
    assert "The first is better by 0.50 mm" in page
    assert "second.pth" in page
    assert "the second network" in page
    assert "Second: Leaked: 1 of these films" in page
    assert "First: None of these films" in page
