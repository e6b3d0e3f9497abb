"""Kill a run at random times, saves included, and resume it each time.

    python benchmarks/kill_resume.py [--kills 100]

Each run is killed five times and resumed from what each kill left; its weights must then be, bit for bit, those of a
run that nobody killed. Writes benchmarks/results/kill_resume.json.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

import kills  # noqa: E402  # the path is set above
from ending import end  # noqa: E402

KILLS_A_RUN = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    wanted = parser.parse_args().kills
    began, hits, runs, same = time.perf_counter(), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        expected = kills.whole_run(Path(folder) / "whole")
        theirs = torch.load(expected, weights_only=True)
        while hits < wanted:
            weights, more = kills.killed_run(Path(folder) / f"run{runs}", KILLS_A_RUN, seed=runs)
            mine = torch.load(weights, weights_only=True)
            same += all(torch.equal(mine[name], theirs[name]) for name in theirs)
            hits, runs = hits + more, runs + 1
    result = {"kills": hits, "runs": runs, "runs_with_the_same_weights": same}
    end("kill_resume", result, began, sound=same == runs)


if __name__ == "__main__":
    main()
