"""Runs of the small task by several ranks over gloo; also the program that each rank is.

torchrun starts `python tests/ranks.py FOLDER FAIL_ON`; rank FAIL_ON runs out of memory once on its way to the
gradients, once in the optimizer and once in validation.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
NOBODY = -1


def run_ranks(folder, ranks, *, fail_on=NOBODY):
    """What each of some ranks has at the end of a run: weights, figures, micro-batch, OOM events, seconds."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [*start, __file__, str(folder), str(fail_on)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [_read(folder / f"rank{rank}.pt") for rank in range(ranks)]


def difference(mine, theirs):
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def _read(file):
    import torch

    from vramfit.records import OomEvent

    content = torch.load(file, weights_only=True)
    return {**content, "events": [OomEvent.model_validate(event) for event in content["events"]]}


def make_loop(folder, ranks=None):
    """The run: 21 samples, 8 a step; alone, or as one of some ranks."""
    import small_runs as small

    micro_batch = 8 // (ranks.world_size if ranks else 1)
    options = {"effective_batch": 8, "micro_batch": micro_batch, "save_every": 1}
    return small.loop(small.task(samples=21), folder, ranks=ranks, **options)


def main(folder, fail_on):
    import torch

    from vramfit.jobs.ranks import Ranks

    with Ranks.join("cpu") as ranks:
        loop = make_loop(folder, ranks)
        if ranks.rank == fail_on:
            fail_now_and_then(loop.step)
        began = time.monotonic()
        loop.run()
        content = {
            "weights": loop.step.model.state_dict(),
            "figures": [record.metrics["mre_mm"] for record in loop.state.history],
            "micro_batch": loop.recovery.micro_batch,
            "events": [event.model_dump(mode="json") for event in loop.state.oom_events],
            "seconds": time.monotonic() - began,
        }
        torch.save(content, folder / f"rank{ranks.rank}.pt")


def fail_now_and_then(step):
    """Put a step on cards that run out in its second pass, later in an update, and in the first validation."""
    from scripted_card import ScriptedCard

    backward, update, validate = step.backward, step.update, step.validate
    for_backward, for_update, for_validation = (ScriptedCard(ooms_at=(k,)) for k in (1, 3, 0))

    def failing_backward(batch, micro_batch):
        for_backward.take(1)
        return backward(batch, micro_batch)

    def failing_update():
        for_update.take(1)
        update()

    def failing_validation(batch):
        for_validation.take(1)
        return validate(batch)

    step.backward, step.update, step.validate = failing_backward, failing_update, failing_validation


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
