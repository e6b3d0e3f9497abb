"""SIGKILL at random times, saves included: always resumable, and to the same bits."""

import sys

import kills
import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="exit codes of a kill differ"),
    pytest.mark.usefixtures("warm_module"),
]


def test_killed_five_times_and_still_the_same_run(tmp_path):
    expected = kills.whole_run(tmp_path / "whole")
    weights, hits = kills.killed_run(tmp_path / "killed", 5)
    assert hits == 5
    mine, theirs = (torch.load(path, weights_only=True) for path in (weights, expected))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
