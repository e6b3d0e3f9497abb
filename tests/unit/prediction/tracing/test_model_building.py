"""A network is built without memory, however its factory names the device."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit import Job
from vramfit.prediction.tracing.address_space import is_reserved
from vramfit.prediction.tracing.trace import trace_step

WIDE = 1024  # a matrix of 4 MiB, above what is built for real


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu", 0)])
def test_large_weights_hold_nothing_while_a_traced_network_is_built(device) -> None:
    built = []

    def model():
        network = nn.Linear(WIDE, WIDE, device=device)
        built.append(is_reserved(network.weight.untyped_storage()))
        return network

    def batch(n):
        return torch.randn(n, WIDE), torch.randint(WIDE, (n,))

    trace_step(Job(model=model, batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None), 2)
    assert built
    assert all(built)
