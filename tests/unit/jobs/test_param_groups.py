"""Parts of a network that are frozen or learn more slowly: in the step, and so in what is predicted of it."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit.errors import UsageError
from vramfit.jobs.job import Job, job_key
from vramfit.jobs.step import Step
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.network import HeatmapNetwork
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.model.stages import STAGES, stage_modules
from vramfit.prediction.predict import predict

SMALL = LandmarkJobOptions(model="hrnet_w18_small", image_size=(64, 64), landmarks=2)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), *layers)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, films):
        return self.head(self.body(films))


def network():
    torch.manual_seed(1)
    return Network()


def batch(samples):
    films = torch.linspace(-1, 1, samples * 256).view(samples, 1, 16, 16)
    return films, films.sin()


JOB = Job(model=network, batch=batch, loss=F.mse_loss, optimizer=partial(torch.optim.SGD, lr=0.1), amp=None)


def moved(job, name):
    """How far the tensors of a module move in two steps."""
    step = Step(job, "cpu")
    before = {key: value.clone() for key, value in step.model.state_dict().items()}
    for _ in range(2):
        step.train(job.batch(4), 2)
    return sum(
        float((value - before[key]).abs().sum())
        for key, value in step.model.state_dict().items()
        if key.startswith(name)
    )


def test_a_frozen_part_keeps_weights_and_statistics():
    frozen = replace(JOB, frozen=("body",))
    assert moved(frozen, "body") == 0
    assert moved(frozen, "head") > 0
    assert moved(JOB, "body") > 0


def test_less_memory_and_time_are_predicted_of_a_frozen_part():
    whole, part = (predict(job, micro_batch=64, gpu="rtx3090") for job in (JOB, replace(JOB, frozen=("body",))))
    assert part.peak_allocated_bytes < 0.7 * whole.peak_allocated_bytes
    assert part.step_time_s < whole.step_time_s
    assert job_key(replace(JOB, frozen=("body",))) != job_key(JOB)


def test_a_part_learns_at_its_share_of_the_rate():
    one_step, slow = Step(JOB, "cpu"), Step(replace(JOB, rate_scales=(("body", 0.1),)), "cpu")
    assert sorted(group["lr"] for group in slow.optimizer.param_groups) == pytest.approx([0.01, 0.1])
    before = one_step.model.body[0].weight.detach().clone()
    for step in (one_step, slow):
        step.train(JOB.batch(4), 4)
    ratio = (slow.model.body[0].weight - before) / (one_step.model.body[0].weight - before)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(slow.model.head.weight, one_step.model.head.weight)


@pytest.mark.parametrize("change", [{"frozen": ("tail",)}, {"rate_scales": (("tail", 0.1),)}])
def test_a_part_that_is_not_there_is_named(change):
    with pytest.raises(UsageError, match=r"'tail'.*body, head"):
        Step(replace(JOB, **change), "cpu")


def test_stages_are_the_whole_backbone():
    with torch.device("meta"):
        model = HeatmapNetwork("hrnet_w18_small", 2)
    found = {weight for name in stage_modules(STAGES) for weight in model.get_submodule(name).parameters()}
    assert found == set(model.backbone.parameters())


def test_the_landmark_job_takes_stages_by_name():
    job = landmark_job(replace(SMALL, freeze=("stem", "stage1"), backbone_lr_scale=0.1))
    assert "backbone.layer1" in job.frozen
    assert job.rate_scales == (("backbone", 0.1),)
    step = Step(job, "cpu")
    assert not any(weight.requires_grad for weight in step.model.backbone.layer1.parameters())
    assert {group["lr"] for group in step.optimizer.param_groups} == {1e-3, 1e-4}
    for wrong in ({"freeze": ("stage9",)}, {"backbone_lr_scale": 0.0}):
        with pytest.raises(UsageError):
            replace(SMALL, **wrong)
