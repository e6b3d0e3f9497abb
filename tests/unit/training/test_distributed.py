"""Two processes over gloo: the same run as one, an OOM that both hear of, and no hang."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]
RANK = Path(__file__).with_name("rank.py")


def run(folder, ranks, *, fail_on="", resume=False):
    """The weights after a run of some ranks; `fail_on` is the rank that runs out of memory once."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(RANK)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
    }
    environment |= {"FOLDER": str(folder), "FAIL_ON": str(fail_on), "RESUME": "1" if resume else ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(ranks)]


pytestmark = pytest.mark.slow


def difference(mine, theirs):
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), 1)[0]


def test_two_ranks_train_what_one_does(alone, tmp_path):
    first, second = run(tmp_path, 2)
    assert difference(first["weights"], second["weights"]) == 0
    assert difference(first["weights"], alone["weights"]) < 1e-9
    assert first["figures"] == second["figures"] == pytest.approx(alone["figures"], abs=1e-9)


def test_one_rank_out_of_memory_makes_both_split_anew(alone, tmp_path):
    first, second = run(tmp_path, 2, fail_on=1)
    assert first["micro_batch"] == second["micro_batch"] == 1
    assert difference(first["weights"], second["weights"]) == 0
    assert difference(first["weights"], alone["weights"]) < 1e-9


def test_a_run_of_two_goes_on_as_one(alone, tmp_path):
    run(tmp_path, 2)
    assert difference(run(tmp_path, 1, resume=True)[0]["weights"], alone["weights"]) < 1e-9
