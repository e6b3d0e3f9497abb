"""Mistakes of a first hour: one sentence that names the argument and the line to write."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vramfit
from vramfit.errors import VramfitError
from vramfit.jobs.blame import place_of
from vramfit.jobs.job import Job
from vramfit.jobs.step import Step


def batch(samples):
    return torch.randn(samples, 8), torch.randint(4, (samples,))


class Detector(nn.Module):
    """Computes its losses of the targets that it is given, as torchvision's detectors do."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, images, targets=None):
        torch._assert(targets is not None, "targets should not be none when in training mode")
        return {"loss_box": F.cross_entropy(self.linear(images), targets)}


def fails(_outputs, _targets):
    raise KeyError("boxes")


JOB = Job(model=lambda: nn.Linear(8, 4), batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": lambda o, t: F.cross_entropy(o.detach(), t)}, r"loss of 'job' depends on no weight.*\.detach\(\)"),
        ({"loss": lambda o, t: {"a": F.cross_entropy(o, t)}}, "loss of 'job' returned dict; .*sum"),
        (
            {"loss": lambda o, t: F.cross_entropy(o, t, reduction="none")},
            "returned a tensor of 1 dim.*reduction='mean'",
        ),
        ({"loss": fails}, r"test_blame\.py:\d+ `raise KeyError.*, in loss: KeyError"),
        ({"model": lambda: nn.Linear(9, 4)}, "forward of the network, which batch gives a tensor 4x8"),
        (
            {"model": Detector},
            r"gives a tensor 4x8: .*its forward takes targets as well.*\(loss=None\), and the network is given",
        ),
        ({"model": lambda: nn.Bilinear(8, 8, 4)}, r"forward of Bilinear takes \(input1, input2\).*a tensor 4x8"),
        ({"model": lambda: (nn.Linear(8, 4), 1)}, "model of 'job' returned tuple"),
        ({"model": lambda: nn.Linear(8, 4).requires_grad_(False)}, "Nothing of 'job' learns"),
        ({"optimizer": lambda model: torch.optim.SGD(model.parameters())}, "optimizer of 'job' fails on the list"),
        ({"optimizer": lambda p: (torch.optim.SGD(p), None)}, "optimizer of 'job' returned tuple"),
        ({"optimizer": torch.optim.LBFGS, "amp": "fp16"}, "LBFGS wants the loss several times.*scaler"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(changes, says) -> None:
    with pytest.raises(VramfitError, match=says) as raised:
        vramfit.predict(replace(JOB, **changes), micro_batch=4, gpu="rtx3090")
    assert "\n" not in str(raised.value)


def test_a_network_that_returns_its_losses_is_traced_without_a_loss() -> None:
    trial = vramfit.predict(replace(JOB, model=Detector, loss=None), micro_batch=4, gpu="rtx3090")
    assert trial.verdict == "fits"


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here, and takes what is moved to it")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": lambda: nn.Linear(8, 4).cuda()}, r"model of 'job' puts its .*leave \.cuda\(\).* out of model"),
        ({"loss": lambda o, t: F.cross_entropy(o, t, weight=torch.ones(4, device="cuda"))}, "NVIDIA|not compiled"),
    ],
)
def test_a_step_without_a_card_refuses_cuda(changes, says) -> None:
    with pytest.raises((VramfitError, RuntimeError, AssertionError), match=says) as raised:
        Step(replace(JOB, **changes), "cpu").train(batch(4), 4)
    if "loss" in changes:
        assert r"out of loss" in (place_of(raised.value).advice(raised.value) or "")
