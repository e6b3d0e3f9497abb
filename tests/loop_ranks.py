"""A loop of one's own over two ranks and gloo, with `vramfit.recovering`; also the program that each rank is.

torchrun starts `python tests/loop_ranks.py FOLDER`; the last rank runs out of memory in its second step, on the way to
the gradients, and in its third, in the optimizer. Ranks have different numbers of valid samples.
"""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RANKS, SAMPLES, STEPS = 2, 6, 4


def run_loop(folder):
    """What each rank has at the end: weights, losses, micro-batch, events, and the batch size that a search found."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [*start, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    import torch

    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


def batches(step):
    """Both ranks' samples of a step, one after the other: inputs, targets, and which targets are valid."""
    import torch

    generator = torch.Generator().manual_seed(step)
    x = torch.randn(RANKS * SAMPLES, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(RANKS * SAMPLES, 1, generator=generator, dtype=torch.float64)
    valid = torch.ones(RANKS * SAMPLES, 1, dtype=torch.float64)
    valid[1:4] = 0
    valid[-1] = 0
    return x, y, valid


def network():
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def learn(model, parts, *, failing=False):
    """Take some steps; the step's object, and the losses."""
    import torch

    import vramfit

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    step = vramfit.recovering(model, optimizer, clip_norm=0.5, weight=lambda part: part[2].sum().item())
    losses, due = [], ["forward", "optimizer"] if failing else []

    def fail_in(phase):
        if losses and due and due[0] == phase:
            due.pop(0)
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def loss(part):
        x, y, valid = part
        outputs = model(x)
        fail_in("forward")
        return ((outputs - y) ** 2 * valid).sum() / valid.sum().clamp(min=1)

    # Parameters and state have moved when it fails.
    optimizer.register_step_post_hook(lambda *_: fail_in("optimizer"))
    while len(losses) < STEPS:
        losses.append(float(step(parts(len(losses)), loss)))
    return step, losses


def main(folder):
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    import vramfit

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = DistributedDataParallel(network())
    mine = slice(rank * SAMPLES, (rank + 1) * SAMPLES)
    step, losses = learn(
        model,
        lambda number: tuple(value[mine] for value in batches(number)),
        failing=rank == RANKS - 1,
    )

    def try_batch(size):
        if size > (9, 5)[rank]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    content = {
        "weights": model.module.state_dict(),
        "losses": losses,
        "micro_batch": step.micro_batch,
        "phases": [event.phase for event in step.events],
        "found": vramfit.find_batch_size(try_batch, start=8).batch_size,
    }
    torch.save(content, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
