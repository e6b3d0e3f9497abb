"""`vramfit check`: what was accepted, what grew, and how it is told."""

import json
import sys
from pathlib import Path

import pytest

SOURCE = """
import torch
import vramfit

def job():
    return vramfit.Job(
        model=lambda: torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.{activation}(), torch.nn.Linear(256, 4)),
        batch=lambda n: (torch.randn(n, 64), torch.zeros(n, dtype=torch.int64)),
        loss=torch.nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        amp=None,
    )
"""
SCRIPT = """
import torch
model = torch.nn.Linear(64, {width}).cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(9):
    optimizer.zero_grad()
    model(torch.ones(512, 64, device="cuda")).pow(2).sum().backward()
    optimizer.step()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("ReLU")


def write(activation: str) -> None:
    sys.modules.pop("work", None)  # as in a process of its own
    Path("work.py").write_text(SOURCE.format(activation=activation))


def test_what_was_accepted_passes_and_what_grew_fails(vramfit):
    accepted = vramfit("check", "--model", "work.py:job", "--batch-size", "512", "--update")
    assert accepted.code == 0, accepted.err
    assert "Lock file written to vramfit.lock" in accepted.out
    assert vramfit("check").code == 0
    write("RReLU")
    failed = vramfit("check", "--annotate", "github", "--sarif", "found.sarif")
    assert failed.code == 9
    assert "work.py:job, batch 512: the peak of" in failed.out
    assert "::error file=vramfit.lock,line=" in failed.out
    assert json.loads(Path("found.sarif").read_text())["runs"][0]["results"]
    assert vramfit("check", "--tolerance", "900%").code == 0
    assert vramfit("check", "--update").code == 0
    assert vramfit("check").code == 0


def test_json_says_what_grew(vramfit):
    vramfit("check", "--model", "work.py:job", "--batch-size", "512", "--update", "--name", "tiny")
    write("RReLU")
    failed = vramfit("check", "--json", "--name", "tiny")
    document = json.loads(failed.out)
    assert failed.code == 9
    assert not document["passed"]
    assert document["grown"][0]["after_bytes"] > document["grown"][0]["before_bytes"]
    assert set(document["jobs"]) == {"tiny"}


@pytest.mark.usefixtures("warm")
def test_script_is_locked_by_its_command(vramfit):
    Path("train.py").write_text(SCRIPT.format(width=64))
    assert vramfit("check", "--update", "--", "python", "train.py").code == 0
    Path("train.py").write_text(SCRIPT.format(width=96))
    failed = vramfit("check")
    assert failed.code == 9
    assert "python train.py: the peak of" in failed.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is no vramfit.lock"),
        (("--model", "work.py:job"), "--batch-size is missing"),
        (("--model", "work.py:job", "--batch-size", "4", "--", "python", "x.py"), "two questions"),
        (("--batch-size", "4", "--", "python", "x.py"), "say nothing to a script"),
        (("--tolerance", "much"), "'much' is no share"),
        (("--gpu", "rtx9999"), "rtx9999"),
        (("--gpu", "rtx3060"), "all is checked as it was locked"),
        (("--batch-size", "1"), "all is checked as it was locked"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(vramfit, words, said):
    outcome = vramfit("check", *words)
    assert outcome.code == 2
    assert said in outcome.err


def test_job_that_is_not_locked_yet_is_not_passed(vramfit):
    vramfit("check", "--model", "work.py:job", "--batch-size", "4", "--update")
    outcome = vramfit("check", "--model", "work.py:job", "--batch-size", "8")
    assert outcome.code == 2
    assert "not locked yet" in outcome.err
    other = vramfit("check", "--model", "work.py:job", "--batch-size", "4", "--amp", "bf16")
    assert other.code == 2
    assert "locked with other options" in other.err
    assert "nothing called 'x' is locked" in vramfit("check", "--name", "x").err
