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
EPOCHS, SAMPLES, BATCH = 12, 40, 4
STEPS = SAMPLES // BATCH
# What a step with its checkpoint takes, about.
STEP_S = 0.02


def start(folder, result):
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), str(result)], env=environment, stdout=subprocess.PIPE
    )


def run(folder, kill_after=None):
    """Train to the end, or to a kill after (so many lines of the program, seconds more); whether it was killed."""
    with start(folder, folder / "weights.pt") as process:
        process.stdout.readline()
        if kill_after is not None:
            lines, more_s = kill_after
            for _ in range(lines):
                process.stdout.readline()
            time.sleep(more_s)
            process.kill()
        process.stdout.read()
        code = process.wait()
    assert code in ((0, -9) if kill_after is not None else (0,)), "a run could not be resumed"
    return code == -9


def whole_run(folder):
    """The weights of a run that nobody kills."""
    run(folder)
    return folder / "weights.pt"


def killed_run(folder, kills, seed=0):
    """The weights of a run killed so many times at random moments, and how many of the kills hit it alive.

    A moment is a random step, of few enough that every kill may come in time, and a random part of the next ones.
    """
    chance, most = random.Random(seed), EPOCHS * STEPS // (kills + 1)
    hits = sum(run(folder, (chance.randint(1, most), chance.uniform(0, STEP_S))) for _ in range(kills))
    run(folder)
    return folder / "weights.pt", hits


def main(folder, result):
    import small_runs as small
    import torch

    from vramfit.training import checkpoint
    from vramfit.training.listeners import Listener

    class Teller(Listener):
        def on_progress(self, progress):
            print(progress.step, flush=True)

    torch.set_num_threads(1)
    rich = {"model": small.network_with_memory, "optimizer": small.adamw, "ema_decay": 0.9}
    loop = small.loop(
        small.task(samples=SAMPLES, **rich),
        folder,
        listeners=[Teller()],
        epochs=EPOCHS,
        effective_batch=BATCH,
        save_every=2,
        save_every_steps=1,
    )
    if (folder / checkpoint.LATEST).exists():
        loop.resume(checkpoint.load(folder / checkpoint.LATEST))
    print("ready", flush=True)
    loop.run()
    torch.save(loop.step.model.state_dict(), result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
