"""`vramfit evaluate`: tables, one document, and refusals."""

import json

import pytest
from made_checkpoint import make_checkpoint, make_films

from vramfit.training.evaluation import EvaluationReport


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
        "hrnet_w18_small at 64x64, 3 epochs, decoded by dark.",
        "2 of 'test'",
        "29 landmarks, pixel size 1.",
        "Judged by: the mean of both raters",
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
    assert outcome.err == ""


def test_json_is_one_document_and_the_table_says_the_same(evaluate):
    document = evaluate("--json").out
    report = EvaluationReport.model_validate(json.loads(document))
    row = next(line.split() for line in evaluate().out.splitlines() if line.startswith("this network"))
    assert row[2:5] == ["58", f"{report.evaluation.overall.mre_mm:.2f}", f"{report.evaluation.overall.sd_mm:.2f}"]


def test_options_change_what_is_judged(evaluate):
    options = ("--split", "valid", "--annotator", "junior", "--decode", "argmax", "--batch-size", "1", "--json")
    report = json.loads(evaluate(*options).out)
    assert (report["split"], report["annotator"], report["decode"]) == ("valid", "junior", "argmax")
    assert "chose its best epoch by them" in evaluate("--split", "valid").out


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
    ],
)
def test_refusals_are_one_sentence(evaluate, words, code, said):
    outcome = evaluate(*words)
    assert (outcome.code, outcome.out) == (code, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
