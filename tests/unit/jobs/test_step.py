import random
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit.errors import UsageError
from vramfit.jobs.batch import split
from vramfit.jobs.job import Job, job_key
from vramfit.jobs.levers.apply import free_levers
from vramfit.jobs.step import Precision, Step


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def samples(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 5, generator=generator).double(), torch.randn(count, 2, generator=generator).double()


def make_job(**changes):
    job = Job(model=network, batch=samples, loss=F.mse_loss, optimizer=partial(torch.optim.SGD, lr=0.1), amp=None)
    return replace(job, **changes)


def weights(step):
    return torch.cat([p.detach().flatten() for p in step.model.parameters()])


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 7])
def test_accumulation_takes_the_step_of_the_whole_batch(micro_batch):
    whole, parts = Step(make_job(), "cpu"), Step(make_job(), "cpu")
    for count in (7, 5):
        expected = whole.train(samples(count), count)
        assert parts.train(samples(count), micro_batch).item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("micro_batch", [2, 7])
def test_gradients_that_are_cleared_late_take_the_same_steps(micro_batch):
    early, late = Step(make_job(), "cpu"), Step(make_job(late_zero_grad=True), "cpu")
    for count in (7, 5):
        for step in (early, late):
            step.train(samples(count), micro_batch)
    assert torch.equal(weights(early), weights(late))
    assert [p.grad is None for p in early.model.parameters()] == [True] * 4
    assert [p.grad is None for p in late.model.parameters()] == [False] * 4


def test_clipping_bounds_the_norm_of_the_gradient():
    step = Step(make_job(clip_norm=1e-3), "cpu")
    before = weights(step)
    step.train(samples(4), 4)
    assert (weights(step) - before).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_clipping_comes_after_the_loss_scale_is_taken_out():
    """A gradient that is small enough is left as it is, however large the scale makes it."""
    scaled, plain = (Step(make_job(clip_norm=100.0), "cpu") for _ in range(2))
    scaled.precision = Precision(None, torch.amp.GradScaler("cpu", init_scale=2.0**16))
    for step in (scaled, plain):
        step.train(samples(4), 4)
    torch.testing.assert_close(weights(scaled), weights(plain), rtol=1e-12, atol=1e-14)


def test_the_average_follows_weights_and_buffers():
    job = make_job(model=lambda: nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2)).double(), ema_decay=0.75)
    step = Step(job, "cpu")
    step.train(samples(4), 4)
    step.average.steps = 1000  # past the warm-up
    start = {name: value.clone() for name, value in step.evaluation_model.state_dict().items()}
    step.train(samples(4), 4)
    for name, value in step.evaluation_model.state_dict().items():
        now = step.model.state_dict()[name]
        expected = now if not now.is_floating_point() else 0.75 * start[name] + 0.25 * now
        torch.testing.assert_close(value, expected)


def test_a_young_average_is_not_its_random_start():
    step = Step(make_job(ema_decay=0.999), "cpu")
    expected = [value.clone() for value in step.average.model.parameters()]
    for decay in (1 / 10, 2 / 11, 3 / 12):
        step.train(samples(4), 4)
        expected = [
            decay * mine + (1 - decay) * now for mine, now in zip(expected, step.model.parameters(), strict=True)
        ]
    torch.testing.assert_close(list(step.average.model.parameters()), expected)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_state_without_a_count_of_averaged_steps_loads(averaged):
    """An earlier version's average goes on with its full decay; a first one begins from the weights, warming up."""
    old = Step(make_job(ema_decay=0.5 if averaged else None), "cpu")
    old.train(samples(4), 4)
    state = deepcopy(old.state_dict())
    del state["average_steps"]
    step = Step(make_job(ema_decay=0.5), "cpu")
    step.load_state_dict(state)
    before = [value.clone() for value in step.average.model.parameters()]
    step.train(samples(4), 4)
    decay = 0.5 if averaged else 0.1
    expected = [decay * mine + (1 - decay) * now for mine, now in zip(before, step.model.parameters(), strict=True)]
    torch.testing.assert_close(list(step.average.model.parameters()), expected)


def test_validation_changes_nothing():
    step = Step(make_job(model=lambda: nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2)).double()), "cpu")
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    outputs, loss = step.validate(samples(4))
    assert outputs.shape == (4, 2)
    assert not loss.requires_grad
    torch.testing.assert_close(step.model.state_dict(), before)


def test_state_comes_back():
    job = make_job(optimizer=partial(torch.optim.AdamW, lr=0.01), ema_decay=0.9)
    first, second = Step(job, "cpu"), Step(job, "cpu")
    first.train(samples(4), 2)
    second.load_state_dict(deepcopy(first.state_dict()))
    first.train(samples(6), 3)
    second.train(samples(6), 3)
    torch.testing.assert_close(weights(second), weights(first), rtol=0, atol=0)


def test_a_run_goes_on_with_its_own_weight_decay():
    first, second = (
        Step(make_job(optimizer=partial(torch.optim.AdamW, lr=rate, weight_decay=decay)), "cpu")
        for rate, decay in ((0.01, 0.1), (0.02, 0.3))
    )
    first.train(samples(4), 2)
    second.load_state_dict(deepcopy(first.state_dict()))
    group = second.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.01, 0.3), "the schedule sets the rate"
    assert len(second.optimizer.state) == len(first.optimizer.state) > 0


def test_the_batch_may_be_any_tree():
    batch = ({"films": torch.arange(5), "extra": (torch.arange(5), [torch.arange(5)])}, torch.arange(5))
    parts = list(split(batch, 2))
    assert [part[1].tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert parts[2][0]["extra"][1][0].tolist() == [4]


@pytest.mark.parametrize(
    "change", [{"amp": "fp8"}, {"clip_norm": 0.0}, {"ema_decay": 1.0}, {"late_zero_grad": True, "step": print}]
)
def test_a_job_that_makes_no_sense_is_refused(change):
    with pytest.raises(UsageError, match=next(iter(change))):
        make_job(**change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss": lambda outputs, targets: (F.mse_loss(outputs, targets), 1)}, "returned tuple"),
        ({"loss": partial(F.mse_loss, reduction="none")}, "a tensor of 2 dimensions"),
        ({"frozen": ("0", "2")}, "Nothing of 'job' learns"),
        ({"model": nn.Identity}, "Nothing of 'job' learns"),
    ],
)
def test_a_job_that_cannot_learn_is_refused(change, said):
    with pytest.raises(UsageError, match=said):
        Step(make_job(**change), "cpu").train(samples(2), 2)


class Graded(nn.Module):
    """Reads a value back while it is built, as depths of dropped paths often are."""

    def __init__(self):
        super().__init__()
        self.rate = torch.linspace(0, 0.1, 3)[1].item()
        self.layer = nn.Linear(5, 2)

    def forward(self, values):
        return self.layer(values) * self.rate


def test_a_network_whose_construction_reads_values_has_a_key_and_levers():
    graded = make_job(model=Graded)
    assert job_key(graded).fingerprint == job_key(graded, Graded()).fingerprint
    assert "half_upsample" not in [lever.name for lever in free_levers(graded)]


def test_the_fingerprint_knows_the_shapes_and_the_settings():
    key = job_key(make_job())
    assert key == job_key(make_job())
    assert key.optimizer == "SGD"
    assert key.fingerprint != job_key(make_job(ema_decay=0.9)).fingerprint
    assert key.fingerprint != job_key(make_job(late_zero_grad=True)).fingerprint
    assert key.fingerprint != job_key(make_job(model=lambda: nn.Linear(5, 2))).fingerprint


def own_step(run, batch):
    return run.update(run.model(batch[0]).sum())


@pytest.mark.parametrize(
    "change",
    [
        {"cards": 4},
        {"batch": lambda n: (torch.zeros(n, 7, 5), torch.zeros(n, 7, 2))},
        {"batch": lambda n: (torch.zeros(n, 5, dtype=torch.float64), torch.zeros(n, 2))},
        {"rate_scales": (("bias", 2.0),)},
        {"step": own_step, "loss": None},
        {"amp": "bf16"},
    ],
)
def test_a_key_knows_all_that_moves_the_prediction(change):
    assert job_key(make_job(**change)) != job_key(make_job())


def test_a_key_names_a_sample_and_draws_no_random_number_of_the_runs():
    job = make_job(batch=lambda n: (torch.randn(n, 5), {"classes": torch.zeros(n, dtype=torch.long)}))
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert job_key(job).sample == "2x5 float32, 2 int64"
    assert torch.rand(1) == drawn


def test_a_sample_of_a_size_that_is_drawn_gives_the_same_key_each_time():
    job = make_job(batch=lambda n: (torch.zeros(n, random.randrange(1, 10**6), 5), torch.zeros(n, 2)))
    before = random.getstate()
    assert job_key(job) == job_key(job)
    assert random.getstate() == before


def test_a_run_without_an_average_or_a_scaler_can_go_on_with_both():
    first, second = Step(make_job(), "cpu"), Step(make_job(ema_decay=0.9), "cpu")
    first.train(samples(4), 2)
    second.precision = Precision(None, torch.amp.GradScaler("cpu", enabled=True))
    second.load_state_dict(deepcopy(first.state_dict()))
    torch.testing.assert_close(second.evaluation_model.state_dict(), first.model.state_dict())
