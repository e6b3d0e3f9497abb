"""How the jobs of this list are written down, and what many of them share."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from vramfit.jobs.job import Job

Made = Callable[[], Job]
JOBS: dict[str, tuple[Made, int]] = {}


def case(samples: int) -> Callable[[Made], Made]:
    """Put a job on the list, under its function's name, to be tried with so many samples."""

    def register(make: Made) -> Made:
        family = make.__module__.rpartition(".")[2]
        JOBS[f"{family} {make.__name__}"] = make, samples
        return make

    return register


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-4)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def job(model, batch, loss=F.cross_entropy, optimizer=adamw, **more) -> Job:
    """A network, its inputs and targets, and a loss."""
    return Job(model=model, batch=batch, loss=loss, optimizer=optimizer, amp=None, **more)


def own(model, batch, optimizer=adamw, **more) -> Job:
    """A network that computes its loss itself."""
    return Job(model=model, batch=batch, optimizer=optimizer, amp=None, **more)


def images(size=64, classes=10, channels=3):
    return lambda n: (torch.randn(n, channels, size, size), torch.randint(classes, (n,)))


def tokens(n, length=32, words=500):
    return torch.randint(5, words, (n, length))


def mlp(*widths):
    layers = []
    for a, b in zip(widths, widths[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
