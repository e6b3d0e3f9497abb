"""The page of a check: every kind has its advice, films are drawn, and nothing is loaded from elsewhere."""

import re
import shutil

import pytest
from damaged_films import FAULTS, Damage

from vramfit.landmarks.check.check import check_films
from vramfit.landmarks.data.formats import read_films
from vramfit.landmarks.data.issues import KINDS
from vramfit.landmarks.report.check_page import ADVICE, check_page
from vramfit.landmarks.sample.make import make_sample


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("clean") / "set", films=24, height=160)


def page_of(root):
    return check_page(check_films(root), read_films(root))


def test_every_kind_has_advice():
    assert set(ADVICE) == set(KINDS)
    assert all(said.endswith(".") for said in ADVICE.values())


def test_the_worst_films_are_drawn_with_the_point_that_is_wrong(clean, tmp_path):
    root = shutil.copytree(clean, tmp_path / "set")
    for kind in ("swapped_points", "orphan_row", "unreadable_film", "point_outside"):
        FAULTS[kind](Damage(root))
    text = page_of(root)
    assert not re.search(r"(src|href)='?\"?(?!data:)(https?:|//)", text)
    assert text.count("<svg viewBox") == 2  # a film that cannot be read has no picture
    assert re.search(r"<circle class='bad'[^>]*><title>(Go|Me) \(senior\)", text)
    for kind in ("swapped_points", "orphan_row", "unreadable_film", "point_outside"):
        assert f"<summary>{kind} (1)</summary>" in text
        assert ADVICE[kind].split(".")[0].replace("'", "&#x27;") in text


def test_what_is_wrong_with_all_films_shows_some(clean, tmp_path):
    root = shutil.copytree(clean, tmp_path / "set")
    FAULTS["wrong_unit"](Damage(root))
    text = page_of(root)
    assert text.count("<svg viewBox") == 4
    assert "as fractions of the film" in text


def test_a_clean_set_has_a_page_too(clean):
    text = page_of(clean)
    assert "Nothing is wrong." in text
    assert "<svg" not in text
