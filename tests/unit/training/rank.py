"""One rank of a run, started by torchrun; see test_distributed.py."""

import os
from pathlib import Path

import small_runs as small
import torch

from vramfit.training import checkpoint
from vramfit.training.distributed import Ranks

folder = Path(os.environ["FOLDER"])
ranks = Ranks.join("cpu")
loop = small.loop(small.task(samples=11), folder, ranks=ranks, micro_batch=2)
if os.environ["RESUME"]:
    loop.resume(checkpoint.load(folder / "checkpoint_epoch_001.pth"))
whole, calls = loop.step.backward, []


def backward(batch, micro_batch):
    calls.append(micro_batch)
    if len(calls) == 2 and os.environ["FAIL_ON"] == str(ranks.rank):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return whole(batch, micro_batch)


loop.step.backward = backward
loop.options = loop.options.__class__(**{**loop.options.__dict__, "save_every": 1})
loop.run()
weights = loop.step.model.state_dict()
figures = [record.mre_mm for record in loop.state.history]
content = {"weights": weights, "figures": figures, "micro_batch": loop.recovery.micro_batch}
torch.save(content, folder / f"rank{ranks.rank}.pt")
ranks.leave()
