"""NHWC order goes through a traced network as cuDNN carries it on."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vramfit.jobs.job import Job
from vramfit.prediction.tracing.memory_format import convolution_format
from vramfit.prediction.tracing.trace import trace_step

NHWC, NCHW = torch.channels_last, torch.contiguous_format


class Blocks(nn.Module):
    """Convolutions of every kind, whose orders the test looks at."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 1),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.ConvTranspose2d(16, 8, 2, 2),
        )

    def forward(self, images):
        for layer in self.layers:
            images = layer(images)
            self.seen.append(images.is_contiguous(memory_format=NHWC))
        return images.mean((1, 2, 3))


JOB = Job(
    model=nn.Identity,
    batch=lambda n: (torch.randn(n, 3, 16, 16), torch.zeros(n)),
    loss=lambda outputs, targets: (outputs - targets).square().mean(),
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    amp=None,
)


def traced(*, channels_last, seen):
    job = replace(JOB, model=lambda: Blocks(seen), channels_last=channels_last)
    return trace_step(job, 2, validation=False)


@pytest.mark.parametrize("channels_last", [True, False])
def test_every_layer_carries_the_order_on(channels_last):
    seen: list[bool] = []
    trace = traced(channels_last=channels_last, seen=seen)
    assert set(seen) == {channels_last}
    assert {one.convolution.channels_last for one in trace.operations if one.convolution} == {channels_last}


def test_no_layer_copies_for_the_order():
    steps = [one for one in traced(channels_last=True, seen=[]).operations if one.phase in ("forward", "backward")]
    assert not [one.name for one in steps if one.name in ("clone", "contiguous", "_to_copy")]


class HalfFrozen(nn.Module):
    """Three convolutions, of which the second is frozen and the third computed again in the backward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.frozen, self.again = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.frozen.requires_grad_(requires_grad=False)

    def forward(self, images):
        again = nn.Sequential(self.again, nn.Sigmoid())
        return checkpoint(again, self.frozen(self.first(images)), use_reentrant=False).mean((1, 2, 3))


def test_a_convolution_says_which_gradients_it_makes():
    trace = trace_step(replace(JOB, model=HalfFrozen), 2, validation=False)
    step = [one for one in trace.part("step 2") if one.convolution]
    made = [(one.phase, one.convolution.image_gradient, one.convolution.weight_gradient) for one in step]
    again = ("backward", False, False)
    assert made[3:] == [again, ("backward", True, True), ("backward", True, False), ("backward", False, True)]
    assert made[:3] == 3 * [("forward", False, False)]


@pytest.mark.parametrize(
    ("image", "weight", "expected"),
    [
        (torch.empty(2, 3, 4, 4), torch.empty(8, 3, 3, 3), NCHW),
        (torch.empty(2, 3, 4, 4).to(memory_format=NHWC), torch.empty(8, 3, 3, 3), NHWC),
        (torch.empty(2, 3, 4, 4), torch.empty(8, 3, 3, 3).to(memory_format=NHWC), NHWC),
        (torch.empty(2, 3, 4, 4), torch.empty(8, 3, 1, 1), NCHW),
        (torch.empty(2, 3, 4, 4).to(memory_format=NHWC).double(), torch.empty(8, 3, 3, 3).double(), NCHW),
        (
            torch.empty(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d),
            torch.empty(8, 3, 3, 3, 3),
            torch.channels_last_3d,
        ),
    ],
)
def test_order_is_as_cudnn_suggests(image, weight, expected):
    assert convolution_format(image, weight) is expected
