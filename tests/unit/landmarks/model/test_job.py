import pickle
from dataclasses import replace

import pytest
import torch

from vramfit.errors import UsageError
from vramfit.jobs.param_groups import adamw
from vramfit.jobs.step import Step
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions

SMALL = LandmarkJobOptions(model="hrnet_w18_small", image_size=(64, 96), landmarks=3)


def test_job_pickles_and_trains():
    job = pickle.loads(pickle.dumps(landmark_job(SMALL)))
    step = Step(job, "cpu")
    batch = job.batch(3)
    losses = [step.train(batch, 2).item() for _ in range(6)]
    assert losses[-1] < losses[0]
    outputs, _ = step.validate(batch)
    assert outputs.shape == (3, 3, 16, 24)


def test_batch_is_what_the_loader_makes_and_touches_no_random_state():
    before = torch.get_rng_state()
    inputs, points = landmark_job(SMALL).batch(2)
    assert torch.equal(before, torch.get_rng_state())
    assert inputs["films"].shape == (2, 1, 64, 96)
    assert inputs["films"].dtype == torch.uint8
    assert inputs["films"].float().std() > 50
    assert inputs["photometric"].shape[0] == 2
    assert points.shape == (2, 3, 2)
    assert ((points >= 0) & (points < torch.tensor([96.0, 64.0]))).all()


@pytest.mark.parametrize("stride", [1, 4])
def test_whole_step_runs_without_storage(stride):
    job = landmark_job(replace(SMALL, heatmap_stride=stride))
    with torch.device("meta"):
        network = job.model()
        inputs, targets = job.prepare(*job.batch(2), True)
        loss = job.loss(network(inputs), targets)
        loss.backward()
        job.optimizer(network.parameters())
    assert loss.device.type == "meta"


def test_missing_landmark_gives_no_gradient():
    job = landmark_job(replace(SMALL, landmark_weights=(1.0, 2.0, 1.0)))
    inputs, points = job.batch(1)
    points[0, 1] = float("nan")
    _, (heatmaps, weights) = job.prepare(inputs, points, False)
    outputs = torch.zeros_like(heatmaps).requires_grad_()
    job.loss(outputs, (heatmaps, weights)).backward()
    assert outputs.grad[0, 1].abs().max() == 0
    assert outputs.grad[0, 0].abs().max() > 0


def test_norms_and_biases_do_not_decay():
    optimizer = adamw(torch.nn.Linear(3, 2).parameters(), learning_rate=1e-3, weight_decay=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(group["fused"] for group in optimizer.param_groups)


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": (100, 64)}, {"heatmap_stride": 3}, {"sigma": -1.0}, {"landmarks": 0}, {"landmark_weights": (1.0,)}],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(UsageError):
        replace(SMALL, **wrong)


def test_the_squared_error_is_that_of_the_landmarks_that_count():
    job = landmark_job(LandmarkJobOptions(model="hrnet_w18_small", image_size=(64, 64), landmarks=2, loss="mse"))
    outputs, heatmaps = torch.zeros(1, 2, 4, 4), torch.stack([torch.full((4, 4), 3.0), torch.full((4, 4), 5.0)])[None]
    assert job.loss(outputs, (heatmaps, torch.tensor([[1.0, 0.0]]))) == 9
    assert job.loss(outputs, (heatmaps, torch.tensor([[1.0, 1.0]]))) == 17
