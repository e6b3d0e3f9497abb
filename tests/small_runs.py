"""A small job and task of plain numbers, for tests of the trainer: B batch, 6 features, one output."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from vramfit.jobs.job import Job
from vramfit.jobs.step import Step
from vramfit.training.batch_plan import Decision
from vramfit.training.loop import Loop
from vramfit.training.run_options import RunOptions
from vramfit.training.task import Judgement, Task

FEATURES = 6


def network():
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1)).double()


def network_with_memory():
    """Batch normalisation moves buffers, dropout moves the random state."""
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)).double()


def squared_error(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, foreach=True)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, foreach=True)


def batch(samples):
    inputs = torch.sin(torch.arange(samples * FEATURES, dtype=torch.float64)).view(samples, FEATURES)
    return inputs, inputs.sum(dim=1, keepdim=True)


def job(**changes):
    settings = {"model": network, "batch": batch, "loss": squared_error, "optimizer": sgd, "amp": None}
    return Job(**{**settings, **changes})


@dataclass
class Numbers:
    """Samples that remember who asked for them."""

    size: int
    asked: list = field(default_factory=list)

    def __len__(self):
        return self.size

    def fetch(self, epoch, indices):
        self.asked += [(epoch, index) for index in indices]
        inputs, targets = batch(self.size)
        chosen = list(indices)
        return inputs[chosen] + 0.01 * epoch, targets[chosen]


def judged(figure):
    """A figure to make small; the name is that of the landmarks' error, which the tests of records read."""
    return Judgement({"mre_mm": figure}, best_by="mre_mm")


@dataclass
class NumberTask(Task):
    job: Job
    training: Numbers
    validation: Numbers
    name: str = "numbers"

    def start_weights(self, model):
        return "Weights: random."

    def rows(self, outputs, indices):
        truth = batch(len(self.validation))[1][list(indices)]
        return (outputs - truth).abs().detach().numpy()

    def examples(self, outputs, indices):
        return [(index, len(outputs)) for index in indices]

    def weighted(self, batch, factors):
        inputs, targets = batch
        return inputs, targets * factors[0]

    def judge(self, rows):
        return judged(float(np.mean(rows)))

    def describe(self, job):
        return {"kind": "numbers"}


def task(samples=11, **changes):
    return NumberTask(job(**changes), Numbers(samples), Numbers(5))


def loop(one, folder, *, listeners=(), ranks=None, memory=None, seed=3, **changes):
    torch.manual_seed(seed)
    np.random.seed(seed)
    step = Step(one.job, "cpu")
    plan = Decision(changes.pop("effective_batch", 4), changes.pop("micro_batch", 4))
    config = changes.pop("config", {})
    settings = {"epochs": 3, "save_dir": folder, "save_every_minutes": 0, "warmup_epochs": 0}
    options = RunOptions(**{**settings, **changes})
    return Loop(one, step, options, plan, config=config, ranks=ranks, listeners=listeners, memory=memory)


def weights(step):
    return [value.detach().clone() for value in step.model.state_dict().values()]


def difference(mine, theirs):
    return max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
