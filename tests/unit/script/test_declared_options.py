"""A searched option that the script does not have, and values beyond what its data makes."""

import ast

import pytest
from scripted_card import ScriptedCard
from scripted_run import played

from vramfit.cli.run import say_trial
from vramfit.errors import ScriptFailed
from vramfit.measure.budget import read_budget
from vramfit.script.command import parse_command
from vramfit.script.declared_options import named_wrongly, names_optimizers
from vramfit.script.measured_answer import ScriptMeasurer
from vramfit.script.searched_values import within_data

SCRIPT = """
import argparse
parser = argparse.ArgumentParser("--not-an-option of course")
parser.add_argument("--train_batch", "-b", type=int)
parser.add_argument("--width", type=int)
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return parse_command(["python", "train.py"])


@pytest.mark.parametrize(
    ("option", "code", "said"),
    [
        ("widht", 2, "no option widht; did you mean --find width?"),
        ("--train-bach", 2, "did you mean --find train_batch?"),
        ("train-batch", 2, "refused"),  # it has that one: something else was wrong
        ("zzz", 2, "refused"),
        ("widht", 1, "refused"),  # no parser's exit code
    ],
)
def test_a_misspelt_option_is_told_which_was_meant(command, option, code, said):
    refused = ScriptFailed("refused", exit_code=code)
    error = named_wrongly(option, command, refused)
    assert said in str(error)
    assert error.exit_code == code


def test_a_search_by_a_misspelt_option_ends_with_that_sentence(command):
    card = ScriptedCard()

    def refuse(_):
        raise ScriptFailed("error: unrecognized arguments: --widht 2", exit_code=2)

    with pytest.raises(ScriptFailed, match="did you mean --find width"):
        ScriptMeasurer(command, card, read_budget(card), refuse, option="widht").largest()


def test_a_value_beyond_the_data_is_not_said_to_fit(command, monkeypatch, capsys):
    card, told = ScriptedCard(per_image_bytes=1 << 20), []
    searched = ScriptMeasurer(command, card, read_budget(card), played(card, 100), option="batch-size")
    searched.on_trial = told.append
    assert searched.largest().profile.plan.micro_batch == 100
    beyond = [trial for trial in told if trial.micro_batch > 100]
    assert beyond
    assert all(trial.note == "the data makes batches of 100 at most" for trial in beyond)
    assert all(not trial.note for trial in told if trial.micro_batch <= 100)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    say_trial(beyond[0], "batch-size")
    assert capsys.readouterr().err == f"batch-size {beyond[0].micro_batch}: the data makes batches of 100 at most\n"


def test_a_value_that_is_no_batch_has_no_such_note(command):
    card = ScriptedCard(per_image_bytes=1 << 20)
    outcomes = {value: played(card, 4)(command.with_value("batch-size", 4)) for value in (8, 64)}
    assert within_data(card.trial(64), outcomes).note == ""


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import torch.optim", True),
        ("import torch\nopt = torch.optim.SGD([], 0.1)", True),
        ("from torch import nn, optim", True),
        ("from torch.optim.swa_utils import AveragedModel", True),
        ("import torch\noptimum = 'torch.optim'\nfor p in []: p.data.add_(1)", False),
    ],
)
def test_whether_a_script_names_the_optimizers_of_torch(source, named):
    assert names_optimizers(ast.parse(source)) is named
    assert not names_optimizers(None)
