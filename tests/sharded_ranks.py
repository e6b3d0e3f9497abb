"""A step of a network on two ranks that talk by gloo; also the program that each rank is.

torchrun starts `python tests/sharded_ranks.py FOLDER`.
"""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RANKS, SAMPLES, WIDTH, STEPS = 2, 8, 33, 3
LEVERS = ("fsdp=on", "fsdp=keep", "ddp=on", "ddp=views")


def run_sharded(folder):
    """By rank and lever: the losses of each step, the whole weights after them, and the numbers held of them."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [*start, __file__, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    import torch

    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


def make_job(**options):
    """Blocks of odd widths between two layers of their own; the mean loss of rows that are the same each time."""
    import torch
    from torch import nn

    from vramfit.jobs.job import Job

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, rows):
            return rows + self.narrow(self.wide(rows).relu())

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, WIDTH), nn.Sequential(*(Block() for _ in range(4))), nn.Linear(WIDTH, 1))

    def optimizer(parameters):
        return torch.optim.AdamW(parameters, lr=1e-2)

    job = {"loss": nn.functional.mse_loss, "optimizer": optimizer, "amp": None, **options}
    return Job(model=model, batch=rows, **job)


def rows(samples):
    import torch

    values = torch.linspace(-1, 1, samples * 5).reshape(samples, 5)
    return values, values.sum(1, keepdim=True)


def trained(job, batch):
    """The losses of the steps, and the step after them."""
    from vramfit.jobs.step import Step

    step = Step(job, "cpu")
    return [float(step.train(batch, len(batch[0]))) for _ in range(STEPS)], step


def whole(value):
    """A weight of all ranks' parts."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def main(folder):
    import torch
    import torch.distributed as dist

    from vramfit.jobs.levers.text import parse_levers

    dist.init_process_group("gloo")
    rank, each, found = dist.get_rank(), SAMPLES // RANKS, {}
    batch = tuple(part[rank * each : (rank + 1) * each] for part in rows(SAMPLES))
    for lever in LEVERS:
        losses, step = trained(make_job(levers=parse_levers(lever), clip_norm=0.5), batch)
        parts = [getattr(value, "_local_tensor", value) for value in step.model.parameters()]
        weights = step.model.state_dict()
        found[lever] = {
            "losses": losses,
            "weights": {
                n: value.full_tensor() if hasattr(value, "full_tensor") else value for n, value in weights.items()
            },
            "held": sum(part.untyped_storage().nbytes() // 4 for part in parts),
        }
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
