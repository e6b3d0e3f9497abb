"""`vramfit demo`: the steps are commands of vramfit, and everything goes into one folder."""

from pathlib import Path

import pytest

from vramfit.cli import demo as verb
from vramfit.errors import DataError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The commands that the demonstration would run, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    commands = []
    monkeypatch.setattr(verb, "_run", commands.append)
    return commands


def test_the_whole_job_in_order(vramfit, ran):
    outcome = vramfit("demo")
    assert outcome.code == 0
    assert [words[0] for words in ran] == ["sample", "probe", "probe", "train", "evaluate"]
    for words in ran:
        assert f"$ vramfit {' '.join(words)}\n" in outcome.out
    for place, _ in verb._places(Path("vramfit-demo")):
        assert str(place) in outcome.out.split("Done in")[1]


def test_the_job_that_is_probed_is_the_one_that_is_trained(vramfit, ran):
    vramfit("demo", "--epochs", "3")
    probe, train = ran[1], ran[3]
    for option in ("--model", "--image-size", "--epochs"):
        assert probe[probe.index(option) + 1] == train[train.index(option) + 1]
    assert train[train.index("--profile") + 1] == probe[probe.index("--export") + 1]


def test_every_option_of_every_step_exists(ran, vramfit):
    vramfit("demo")
    known = (REPOSITORY / "tests" / "golden" / "cli.txt").read_text(encoding="utf-8").splitlines()
    for words in ran:
        for option in (word for word in words if word.startswith("--")):
            assert any(f"vramfit {words[0]} " in line and option in line.split() for line in known), (words[0], option)


def test_a_second_run_takes_the_next_name_and_a_used_folder_is_left_alone(vramfit, ran, tmp_path):
    (tmp_path / "vramfit-demo").mkdir()
    vramfit("demo")
    assert ran[0][1] == str(Path("vramfit-demo-2") / "films")
    (tmp_path / "vramfit-demo" / "mine.txt").write_text("mine")
    assert vramfit("demo", "vramfit-demo").code == 8


def test_a_step_that_fails_ends_it_with_that_error(vramfit, monkeypatch, tmp_path):
    def fail(words):
        raise DataError("film 7 is torn.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "_run", fail)
    outcome = vramfit("demo")
    assert (outcome.code, outcome.err) == (7, "vramfit: film 7 is torn.\n")
