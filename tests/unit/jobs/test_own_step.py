"""Several networks and optimizers, and a step of a job's own."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import vramfit
from vramfit.errors import UsageError
from vramfit.jobs.job import Job, job_key
from vramfit.jobs.optimizers import Optimizers
from vramfit.jobs.step import Step
from vramfit.prediction.tracing.trace import trace_step

WIDTH = 32


def networks() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "generator": nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 8)),
            "critic": nn.Sequential(nn.Linear(8, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)),
        }
    )


def images(count):
    return torch.ones(count, 8)


def take_turns(run, batch):
    fakes = run.model["generator"](batch[:, :4])
    critic = run.model["critic"](fakes.detach()).mean() - run.model["critic"](batch).mean()
    run.backward(critic)
    run.update("critic")
    generator = -run.model["critic"](fakes).mean()
    run.backward(generator)
    run.update("generator")
    return critic.detach() + generator.detach()


def gan(**changes) -> Job:
    made = Job(
        model=networks,
        batch=images,
        step=take_turns,
        optimizer={"generator": partial(torch.optim.SGD, lr=0.1), "critic": torch.optim.AdamW},
        amp=None,
    )
    return replace(made, **changes)


def by_hand(count: int, steps: int) -> nn.Module:
    model = networks()
    critic_steps = torch.optim.AdamW(model["critic"].parameters())
    generator_steps = torch.optim.SGD(model["generator"].parameters(), lr=0.1)
    for _ in range(steps):
        fakes = model["generator"](images(count)[:, :4])
        (model["critic"](fakes.detach()).mean() - model["critic"](images(count)).mean()).backward()
        critic_steps.step()
        model.zero_grad()
        (-model["critic"](fakes).mean()).backward()
        generator_steps.step()
        model.zero_grad()
    return model


def test_a_step_of_ones_own_does_what_a_loop_by_hand_does() -> None:
    step = Step(gan(), "cpu")
    for _ in range(3):
        step.train(images(6), 6)
    expected = by_hand(6, 3).state_dict()
    torch.testing.assert_close(step.model.state_dict(), expected, rtol=1e-5, atol=1e-6)


def test_its_state_is_saved_and_taken_up() -> None:
    whole, first = Step(gan(), "cpu"), Step(gan(), "cpu")
    for _ in range(4):
        whole.train(images(6), 6)
    for _ in range(2):
        first.train(images(6), 6)
    second = Step(gan(), "cpu")
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        second.train(images(6), 6)
    torch.testing.assert_close(second.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_it_is_predicted() -> None:
    trace = trace_step(gan(), 256)
    kinds = {storage.kind for storage in trace.storages}
    assert {"parameter", "gradient", "optimizer state", "activation"} <= kinds
    # Two moments of the critic; SGD keeps none.
    state = sum(s.size_bytes for s in trace.storages if s.kind == "optimizer state" and s.size_bytes > 4)
    critic = sum(p.numel() * 4 for p in networks()["critic"].parameters())
    assert state == 2 * (critic - 4)  # but for the bias of one, whose moments are as small as a step counter
    assert vramfit.predict(gan(amp="fp16"), micro_batch=256, gpu="rtx3090").verdict == "fits"
    assert vramfit.fit(gan(), gpu="rtx3090", schedule=vramfit.Schedule(images=64)).plan.micro_batch > 1
    assert job_key(gan()).optimizer == "SGD+AdamW"


@pytest.mark.parametrize(
    ("changes", "micro_batch", "says"),
    [
        ({"step": lambda run, batch: run.model["critic"](batch).mean()}, 6, "updated nothing"),
        ({"step": lambda run, _: run.update("discriminator")}, 6, "its optimizers are generator, critic"),
        ({}, 3, "cannot be split into parts of 3"),
        ({"optimizer": {"encoder": torch.optim.SGD}}, 6, "names 'encoder'.*it has generator, critic"),
    ],
)
def test_what_makes_no_sense_is_told(changes, micro_batch, says) -> None:
    with pytest.raises(UsageError, match=says):
        Step(gan(**changes), "cpu").train(images(6), micro_batch)


class Student(nn.Module):
    """Learns what its teacher says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.teacher, self.student = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        with torch.no_grad():
            aim = self.teacher(x)
        return (self.student(x) - aim).square().mean()


def test_a_teacher_is_frozen_and_its_student_learns() -> None:
    made = Job(model=Student, batch=images, optimizer=torch.optim.SGD, amp=None, frozen=("teacher",))
    step = Step(made, "cpu")
    before = {name: value.clone() for name, value in step.model.state_dict().items()}
    losses = [float(step.train(images(6), 2)) for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert torch.equal(step.model.state_dict()["teacher.weight"], before["teacher.weight"])
    assert not torch.equal(step.model.state_dict()["student.weight"], before["student.weight"])
    state = [s for s in trace_step(made, 4).storages if s.kind == "gradient"]
    assert sum(s.size_bytes for s in state) == 2 * (8 * 4 + 4) * 4  # the student's alone, in each of two steps


def test_several_optimizers_in_a_plain_step_each_learn_their_module() -> None:
    made = Job(
        model=networks,
        batch=lambda n: (images(n)[:, :4], images(n)),
        loss=nn.functional.mse_loss,
        optimizer={"0": torch.optim.AdamW, "2": partial(torch.optim.SGD, lr=0.05, momentum=0.5)},
        amp=None,
    )
    made = replace(made, model=lambda: networks()["generator"])
    step = Step(made, "cpu")
    assert isinstance(step.optimizer, Optimizers)
    losses = [float(step.train(made.batch(6), 2)) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert len(step.optimizer.param_groups) == 2


def test_a_function_in_the_place_of_what_it_makes_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"optimizer is an SGD that exists already.*optimizer=lambda parameters"):
        gan(optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters()))
    with pytest.raises(UsageError, match=r"batch is a tuple.*batch=lambda n"):
        gan(batch=(images(1), images(1)))
    with pytest.raises(UsageError, match="loss is a Tensor"):
        gan(loss=torch.tensor(1.0))
