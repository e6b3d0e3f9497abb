"""A retried optimizer step begins where the first did, also what a scaler hands to a fused optimizer."""

from functools import partial

import pytest
import torch

from vramfit.jobs.job import Job
from vramfit.jobs.step import Precision, Step
from vramfit.training.rollback import Rollback


def make_step(**changes):
    torch.manual_seed(1)
    job = Job(
        model=partial(torch.nn.Linear, 4, 2),
        batch=lambda n: (torch.ones(n, 4), torch.zeros(n, 2)),
        loss=torch.nn.functional.mse_loss,
        optimizer=partial(torch.optim.AdamW, lr=0.1, fused=True),
        amp=None,
        **changes,
    )
    return Step(job, "cpu", precision=Precision(None, torch.amp.GradScaler("cpu", enabled=True)))


def fail_once(optimizer):
    real, failures = optimizer._init_group, [torch.OutOfMemoryError("CUDA out of memory")]

    def init_group(*args):
        if failures:
            raise failures.pop()
        return real(*args)

    optimizer._init_group = init_group


def test_a_fused_step_that_failed_divides_by_its_scale_once():
    whole, retried = make_step(), make_step()
    batch = whole.job.batch(3)
    whole.train(batch, 3)
    rollback = Rollback(retried)
    retried.backward(batch, 3)
    rollback.before_optimizer()
    fail_once(retried.optimizer)
    with pytest.raises(torch.OutOfMemoryError):
        retried.update()
    rollback.restore()
    retried.train(batch, 3)
    for expected, mine in zip(whole.optimizer.state.values(), retried.optimizer.state.values(), strict=True):
        torch.testing.assert_close(mine["exp_avg"], expected["exp_avg"])
    torch.testing.assert_close(retried.model.state_dict(), whole.model.state_dict())


def test_a_step_that_is_taken_back_is_not_counted_by_the_average():
    step = make_step(ema_decay=0.999)
    batch = step.job.batch(3)
    step.train(batch, 3)
    rollback = Rollback(step)
    step.backward(batch, 3)
    rollback.before_optimizer()
    step.update()
    assert step.average.steps == 2
    rollback.restore()
    assert step.average.steps == 1
