"""`vramfit evaluate`: tables, one document, and refusals."""

import json

import numpy as np
import pytest
from made_checkpoint import make_checkpoint, make_films
from pages import require_sound

from vramfit.landmarks.evaluation.compare import Comparison
from vramfit.landmarks.evaluation.report import EvaluationReport


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films") / "Röntgen فیلم")


@pytest.fixture(scope="module")
def checkpoint(films, tmp_path_factory):
    return make_checkpoint(films, tmp_path_factory.mktemp("run") / "checkpoint_best.pth", annotator="senior")


@pytest.fixture
def evaluate(vramfit, films, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path / "cache"))

    def run(*words):
        return vramfit(
            *("evaluate", "--checkpoint", str(checkpoint), "--dataset_path", str(films), "--device", "cpu"), *words
        )

    return run


def test_the_tables_hold_what_people_cite(evaluate):
    outcome = evaluate()
    assert outcome.code == 0, outcome.err
    out = outcome.out
    for words in (
        "hrnet_w18_small at 64x64, epoch 3, decoded with DARK.",
        "2 of 'test'",
        "pixel size 1.",
        "Landmarks: 29 of 29.",
        "network by junior rater",
        "None of these films shows the same picture",
        "Judged by: the mean of the raters",
        "95 % interval",
        "this network",
        "mean shape",
        "junior by senior rater",
        "Sample Ceph",
        "Trained on 'senior' points, judged by 'mean' ones.",
        "Worst films: 0",
    ):
        assert words in out, words
    header = next(line for line in out.splitlines() if line.startswith("landmark"))
    for column in ("MRE mm", "SD mm", "SDR 2 mm %", "SDR 2.5 mm %", "SDR 3 mm %", "SDR 4 mm %", "raters MRE mm"):
        assert column in header
    assert out.isascii() or "Röntgen" in out
    assert outcome.err.startswith("Next: vramfit infer ")
    assert outcome.err.count("\n") == 1


def test_json_is_one_document_and_the_table_says_the_same(evaluate):
    document = evaluate("--json").out
    report = EvaluationReport.model_validate(json.loads(document))
    row = next(line.split() for line in evaluate().out.splitlines() if line.startswith("this network"))
    overall = report.evaluation.overall
    low, high = overall.interval_mm
    assert row[2:6] == ["58", f"{overall.mre_mm:.2f}", f"{low:.2f}-{high:.2f}", f"{overall.sd_mm:.2f}"]


def test_options_change_what_is_judged(evaluate):
    options = ("--split", "valid", "--annotator", "junior", "--decode", "argmax", "--batch-size", "1", "--json")
    report = json.loads(evaluate(*options).out)
    assert (report["split"], report["annotator"], report["decode"]) == ("valid", "junior", "argmax")
    assert "chose its best epoch by them" in evaluate("--split", "valid").out


def test_two_checkpoints_are_compared_on_the_same_films(evaluate, films, tmp_path):
    other = make_checkpoint(films, tmp_path / "other.pth", seed=1)
    out = evaluate("--compare", str(other), "--landmarks", "N, A").out
    for words in (
        "First: ",
        "Second: ",
        "other.pth",
        "Landmarks: 2 of 29",
        "difference",
        "adjusted",
        "multiple comparisons (Holm 1979)",
    ):
        assert words in out, words
    document = Comparison.model_validate(json.loads(evaluate("--compare", str(other), "--json").out))
    means = [np.mean(list(report.film_mre_mm.values())) for report in (document.first, document.second)]
    assert document.overall.mean_mm == pytest.approx(means[0] - means[1])
    assert len(document.landmarks) == 29


def test_the_page_is_written_and_never_over_another_file_unasked(evaluate, tmp_path):
    target = tmp_path / "report.html"
    outcome = evaluate("--html", str(target))
    assert f"Report written to {target}" in outcome.out
    require_sound(target.read_text(encoding="utf-8"))
    target.write_text("mine")
    assert evaluate("--html", str(target)).code == 8
    assert target.read_text() == "mine"
    assert evaluate("--html", str(target), "--export", str(target), "--force").code == 2


def test_export_never_overwrites_unasked(evaluate, tmp_path):
    target = tmp_path / "evaluation.json"
    assert evaluate("--export", str(target)).code == 0
    assert json.loads(target.read_text(encoding="utf-8"))["films"] == 2
    target.write_text("mine")
    refused = evaluate("--export", str(target))
    assert refused.code == 8
    assert "--force" in refused.err
    assert target.read_text() == "mine"
    assert evaluate("--export", str(target), "--force").code == 0


def test_a_bad_film_is_refused_or_left_out_and_listed(vramfit, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("VRAMFIT_CACHE", str(tmp_path / "cache"))
    films = make_films(tmp_path / "films")
    bad = next((films / "test" / "Cephalograms").glob("*.png"))
    bad.write_bytes(bad.read_bytes()[:200])
    words = ("evaluate", "--checkpoint", str(checkpoint), "--dataset-path", str(films), "--device", "cpu")
    refused = vramfit(*words)
    assert refused.code == 7
    assert bad.name in refused.err
    report = json.loads(vramfit(*words, "--skip-bad", "--json").out)
    assert report["films"] == 1
    assert list(report["skipped"]) == [bad.stem]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--checkpoint", "nowhere.pth"], 7, "no such checkpoint"),
        (["--dataset-path", "nowhere"], 7, "nowhere"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--annotator", "me"], 2, "--annotator"),
        (["--landmarks", "A,Xy"], 2, "'Xy'"),
        (["--landmarks", " ,"], 2, "--landmarks"),
        (["--compare", "nowhere.pth"], 7, "no such checkpoint"),
    ],
)
def test_refusals_are_one_sentence(evaluate, words, code, said):
    outcome = evaluate(*words)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_ensemble_is_judged_and_said(evaluate, films, tmp_path):
    other = make_checkpoint(films, tmp_path / "other" / "checkpoint_best.pth", seed=1)
    page = tmp_path / "page.html"
    outcome = evaluate("--ensemble", str(other), "--html", str(page))
    assert outcome.code == 0, outcome.err
    out = " ".join(outcome.out.split())
    assert "hrnet_w18_small at 64x64, averaged with 1 more, epoch 3" in out
    assert f"Averaged with: {other}." in outcome.out.replace("\n", "")
    assert f"FILMS --ensemble {other} -o found" in outcome.err.replace("\n", "")
    require_sound(page.read_text(encoding="utf-8"))
    assert "averaged with" in page.read_text(encoding="utf-8")
    refused = evaluate("--ensemble", str(other), "--split", "valid", "--calibrate")
    assert (refused.code, "leave --ensemble out" in refused.err) == (2, True)


def test_what_is_missing_is_said_before_what_would_be_overwritten(vramfit, films, checkpoint, tmp_path):
    page = tmp_path / "report.html"
    page.write_text("kept")
    words = ("--dataset-path", str(films), "--html", str(page))
    for missing in (
        ("gone.pth",),
        (str(checkpoint), "--compare", "gone.pth"),
        (str(checkpoint), "--ensemble", "gone.pth"),
    ):
        outcome = vramfit("evaluate", *missing, *words)
        assert (outcome.code, outcome.err.count("\n")) == (7, 1)
        assert "gone.pth: no such checkpoint" in outcome.err
    outcome = vramfit("evaluate", str(checkpoint), "--dataset-path", "nowhere", "--html", str(page))
    assert outcome.code == 7
    assert "nowhere: no such folder" in outcome.err
    assert vramfit("evaluate", str(checkpoint), *words).code == 8
    assert page.read_text() == "kept"
