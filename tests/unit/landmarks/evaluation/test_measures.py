"""Cephalometric measures: by hand, whichever way the face looks, and near the published norms on real films."""

from dataclasses import replace

import numpy as np
import pytest
from made_reports import make_judged

from vramfit.landmarks.data.formats import load_films
from vramfit.landmarks.evaluation.measures import MEASURES, measure_errors, measured
from vramfit.landmarks.evaluation.metrics import scales, true_points

# A face that looks to the right, y downwards, on round numbers.
FACE = {
    "S": (0, 0),
    "N": (70, 0),
    "A": (70, 50),
    "B": (60, 80),
    "Po": (-20, 20),
    "Or": (50, 20),
    "Go": (0, 70),
    "Me": (50, 120),
    "Ar": (-10, 40),
    "ANS": (72, 45),
    "LIA": (55, 95),
    "LIT": (65, 60),
    "UMT": (30, 60),
    "LMT": (30, 62),
    "UPM": (50, 60),
    "LPM": (50, 62),
}
POINTS = np.array([list(FACE.values())], dtype=np.float64)


def of(points=POINTS, symbols=tuple(FACE), **how):
    return {name: values[0] for name, values in measured(points, symbols, **{"has_millimetres": True, **how}).items()}


def test_by_hand():
    found = of()
    assert found["SNA"] == pytest.approx(90)
    assert found["SNB"] == pytest.approx(np.degrees(np.arctan2(80, 10)))
    assert found["ANB"] == pytest.approx(90 - found["SNB"])
    assert found["FMA"] == pytest.approx(45)
    assert found["FMIA"] == pytest.approx(180 - found["FMA"] - found["IMPA"])
    assert found["Wits"] == pytest.approx(10)
    assert found["Jarabak ratio"] == pytest.approx(100 * 70 / np.hypot(20, 120))
    assert found["Bjork sum"] == pytest.approx(found["Saddle"] + found["Articular"] + found["Gonial"])
    assert "U1-SN" not in found  # its landmarks are not there


def test_incisor_to_mandibular_plane_by_hand():
    face = {"Me": (0, 0), "Go": (-10, 0), "LIA": (0, 0), "LIT": (3, -10)}
    found = of(np.array([list(face.values())], dtype=np.float64), tuple(face))
    assert found["IMPA"] == pytest.approx(90 + np.degrees(np.arctan2(3, 10)))


def test_turned_moved_mirrored_and_scaled_faces_have_the_same_angles():
    angle = np.deg2rad(12)
    turned = POINTS @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + [400, 300]
    for points in (turned, POINTS * [-1, 1] + [500, 0], 7 * POINTS):
        found = of(points, has_millimetres=False)
        assert "Wits" not in found
        assert found == pytest.approx({name: value for name, value in of().items() if name != "Wits"})


def test_missing_landmarks_are_missing_measures():
    points = np.concatenate([POINTS, POINTS])
    points[0, list(FACE).index("A")] = np.nan
    found = measured(points, tuple(FACE), has_millimetres=True)
    assert np.isnan(found["SNA"]).tolist() == [True, False]
    assert np.isfinite(found["SNB"]).all()
    assert measured(points[:1], tuple(FACE), has_millimetres=True).keys() == found.keys() - {"SNA", "ANB", "Wits"}


def test_errors_are_those_of_the_points(tmp_path):
    judged = make_judged(np.zeros((3, len(FACE))))
    landmarks = tuple(replace(judged.films.landmarks[0], symbol=symbol, title=symbol) for symbol in FACE)
    films = tuple(replace(film, points=POINTS[0], raters={}, pixel_size_mm=(0.5, 0.5)) for film in judged.films.films)
    moved = np.repeat(POINTS, 3, axis=0)
    moved[:, list(FACE).index("A"), 0] += [2, 4, 6]
    found = measure_errors(moved, replace(judged.films, landmarks=landmarks, films=films))
    expected = np.degrees(np.arctan2([2, 4, 6], 50))
    assert found["SNA"].bias == pytest.approx(expected.mean())
    assert found["SNA"].sd == pytest.approx(expected.std(ddof=1))
    assert found["Wits"].bias == pytest.approx(2)  # 4 pixels of 0.5 mm
    assert found["SNB"].mean_absolute == 0
    assert found["SNA"].raters_absolute is None


@pytest.mark.shared
def test_real_films_have_the_values_that_the_sources_state(shared_data):
    films = load_films(shared_data / "ceph100", "train")
    found = measured(true_points(films) * scales(films)[:, None], films.symbols, has_millimetres=True)
    # Norms of the sources named in the module; the means of a clinic's patients lie within a spread of them.
    norms = {"SNA": 82, "SNB": 80, "SN-GoGn": 32, "FMA": 25, "Facial angle": 87.8, "Y axis": 59.4, "Saddle": 123}
    norms |= {"Articular": 143, "Gonial": 130, "Bjork sum": 396, "Jarabak ratio": 63, "Lower height": 55}
    assert set(found) == {*norms, "ANB"} <= set(MEASURES)
    for name, norm in norms.items():
        assert abs(np.nanmean(found[name]) - norm) < 5, name


def test_each_rater_alone_judges_measures_too(sample_set):
    films = load_films(sample_set, "train")
    seniors = np.stack([film.raters["senior"] for film in films.films])
    found = measure_errors(seniors, films)["SNA"]
    assert found.by_rater["senior"] == 0
    assert found.by_rater["junior"] == pytest.approx(found.raters_absolute)
