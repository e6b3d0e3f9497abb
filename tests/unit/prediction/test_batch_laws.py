"""Jobs whose memory is no straight line in the batch, or which take only some batches, against traces made directly."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vramfit
from vramfit.cards import find_card
from vramfit.errors import NotTraceable
from vramfit.jobs.job import Job
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.prediction.trace_series import TraceSeries
from vramfit.prediction.tracing.host_batch import traceable_batch
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.rescale import TraceCurve
from vramfit.records import Verdict
from vramfit.units import MemoryLimits

WIDTH = 16


def batch(samples):
    return torch.zeros(samples, WIDTH), torch.zeros(samples, WIDTH)


def contrastive(outputs, targets):
    """Every sample against every other: BxB logits."""
    logits = outputs @ targets.T
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def of_triplets(outputs, targets):
    """Every triplet of samples: BxBxB."""
    apart = torch.cdist(outputs, targets)
    return F.relu(apart[:, :, None] - apart[:, None] + 0.2).mean()


def of_most(outputs, targets):
    kept = int(0.7 * len(outputs))
    return F.mse_loss(outputs[:kept] * 2, targets[:kept])


def of_pairs(outputs, targets):
    """A view of pairs, which an odd batch does not have."""
    one, other = outputs.view(2, -1, WIDTH)
    return F.mse_loss(one * other, targets.view(2, -1, WIDTH)[0])


def of_many(outputs, targets):
    return F.mse_loss(outputs, targets) + outputs.topk(30, dim=0).values.mean()


def of_twelves(outputs, targets):
    if len(outputs) % 12:
        raise ValueError("a batch of twelves")
    return F.mse_loss(outputs, targets)


def growing_at_40(outputs, targets):
    return F.mse_loss(outputs.repeat(1, 8 if len(outputs) >= 40 else 1).sum(1), targets.sum(1))


def job(loss, **changes) -> Job:
    made = Job(model=partial(nn.Linear, WIDTH, WIDTH), batch=batch, loss=loss, optimizer=torch.optim.SGD, amp=None)
    return replace(made, **changes)


def predictor(loss, vram) -> Predictor:
    card = find_card("rtx3070ti")
    return Predictor(job(loss), card, card_budget(card, MemoryLimits.parse(vram=vram)))


@pytest.mark.parametrize("loss", [contrastive, of_most, of_pairs, of_many, growing_at_40])
@pytest.mark.parametrize("micro_batch", [40, 400])
def test_a_prediction_is_of_the_batch_that_is_asked(loss, micro_batch) -> None:
    trial = vramfit.predict(job(loss), micro_batch=micro_batch, gpu="rtx3070ti")
    card = find_card("rtx3070ti")
    direct = Predictor(job(loss), card, card_budget(card)).trial_of(trace_step(job(loss), micro_batch))
    assert trial == direct


@pytest.mark.parametrize("loss", [contrastive, of_most, growing_at_40])
def test_the_largest_batch_was_traced_and_fits(loss) -> None:
    found = predictor(loss, "700MB")
    largest = found.largest_that_fits()
    assert found.trial_of(trace_step(job(loss), largest)).verdict is Verdict.FITS
    # Not by the line through small batches, which says that all would.
    if loss is contrastive:
        assert found.trial_of(trace_step(job(loss), largest + 1)).verdict is not Verdict.FITS
        assert largest < 10_000


@pytest.mark.parametrize(("loss", "divisor", "least"), [(of_pairs, 2, 2), (of_many, 1, 30), (of_twelves, 12, 12)])
def test_a_job_that_takes_some_batches_alone_gets_one_that_it_takes(loss, divisor, least) -> None:
    found = predictor(loss, "700MB")
    largest = found.largest_that_fits(901)
    assert largest >= least
    assert largest % divisor == 0
    assert largest > 890


def test_a_fit_of_a_job_that_takes_even_batches_alone() -> None:
    profile = vramfit.fit(job(of_pairs), gpu="rtx3070ti", objective="largest", schedule=vramfit.Schedule(images=101))
    assert profile.plan.micro_batch == 100
    failed = [trial for trial in profile.trials if trial.verdict is Verdict.FAILED]
    assert failed
    assert all(trial.micro_batch % 2 for trial in failed)


def test_a_job_that_takes_no_batch_says_why() -> None:
    with pytest.raises(NotTraceable, match="shape"):
        predictor(lambda outputs, _: outputs.view(7, 11, 13, -1).mean(), "4GB").largest_that_fits(100)


def test_three_traces_of_a_loss_over_pairs_give_a_fourth() -> None:
    traces = [trace_step(job(contrastive), size) for size in (8, 16, 64, 100)]
    line, parabola = TraceCurve.through(*traces[:2]), TraceCurve.through(*traces[:3])
    assert line is not None
    assert parabola is not None
    assert not line.agrees(traces[2])
    assert parabola.agrees(traces[3])
    assert parabola.at(100).peak_bytes == traces[3].peak_bytes


def test_a_series_draws_between_its_traces_alone() -> None:
    made = []

    def make(size):
        made.append(size)
        return trace_step(job(F.mse_loss), size)

    series = TraceSeries(make)
    for size in (2, 10, 7):
        series.at(size)
    assert made == [2, 10]
    assert series.at(11).peak_bytes == trace_step(job(F.mse_loss), 11).peak_bytes
    assert made == [2, 10, 11]


def test_a_curve_that_a_trace_contradicts_is_dropped() -> None:
    found = predictor(growing_at_40, "4GB")
    for size in (2, 30, 50):
        found.proven(size)
    # 45 lies between 30 and 50, where the law changes: only 50 is of its kind.
    assert found.trial(45) == found.trial_of(trace_step(job(growing_at_40), 45))


def test_a_batch_that_would_fill_the_hosts_memory_is_not_made() -> None:
    made = []

    def large(samples):
        made.append(samples)
        return torch.zeros(samples, 1 << 22), torch.zeros(samples, samples)

    batch = traceable_batch(job(F.mse_loss, batch=large), 5000)
    assert made == [2, 4]
    assert [tuple(leaf.shape) for leaf in batch] == [(5000, 1 << 22), (5000, 5000)]
    small = traceable_batch(job(F.mse_loss, batch=lambda n: (torch.zeros(n, 8), torch.ones(n))), 5000)
    assert not small[0].is_meta


def test_a_step_on_shapes_alone_takes_what_it_takes_on_values(monkeypatch) -> None:
    wide = job(
        F.mse_loss,
        model=partial(nn.Linear, 1 << 16, WIDTH),
        batch=lambda n: (torch.zeros(n, 1 << 16), torch.zeros(n, WIDTH)),
    )
    real = trace_step(wide, 64)
    monkeypatch.setattr("vramfit.prediction.tracing.host_batch._REAL_LIMIT_BYTES", 1 << 20)
    assert trace_step(wide, 64).storages == real.storages


@pytest.mark.parametrize("vram", ["600MB", "2GB"])
def test_the_largest_batch_of_a_cubic_law_fits_and_a_few_percent_more_do_not(vram) -> None:
    predicted = predictor(of_triplets, vram)
    largest = predicted.largest_that_fits(4096)
    assert predicted.trial(largest).verdict is Verdict.FITS
    assert predicted.proven(largest + max(2, largest // 20)).verdict is not Verdict.FITS
