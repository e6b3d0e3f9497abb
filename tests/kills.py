"""Runs of the small task in a process of its own, to be killed at any time; also the program that is killed.

python tests/kills.py FOLDER WEIGHTS     trains, from the latest checkpoint where there is one
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EPOCHS = 12


def start(folder, result):
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), str(result)], env=environment, stdout=subprocess.PIPE
    )


def run(folder, kill_after_s=None):
    """Train to the end, or to a kill so many seconds after the start; whether it was killed, and seconds trained."""
    with start(folder, folder / "weights.pt") as process:
        process.stdout.readline()
        began = time.perf_counter()
        killed = False
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            killed = process.poll() is None
            process.kill()
        code = process.wait()
    assert code in ((0, -9) if kill_after_s is not None else (0,)), "a run could not be resumed"
    return killed, time.perf_counter() - began


def whole_run(folder):
    """The weights of a run that nobody kills, and how many seconds it trained."""
    _, duration_s = run(folder)
    return folder / "weights.pt", duration_s


def killed_run(folder, kills, duration_s, seed=0):
    """The weights of a run killed so many times at random moments, and how many of the kills hit it alive."""
    chance = random.Random(seed)
    hits = sum(run(folder, chance.uniform(0, 0.3 * duration_s))[0] for _ in range(kills))
    run(folder)
    return folder / "weights.pt", hits


def main(folder, result):
    import small_runs as small
    import torch

    from vramfit.training import checkpoint

    torch.set_num_threads(1)
    rich = {"model": small.network_with_memory, "optimizer": small.adamw, "ema_decay": 0.9}
    loop = small.loop(small.task(samples=40, **rich), folder, epochs=EPOCHS, save_every=2, save_every_steps=1)
    if (folder / checkpoint.LATEST).exists():
        loop.resume(checkpoint.load(folder / checkpoint.LATEST))
    print("ready", flush=True)
    loop.run()
    torch.save(loop.step.model.state_dict(), result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
