"""A loop of one's own survives running out of memory at any operation."""

import gc

import pytest
import small_runs as small
import torch
from faults import FaultAt
from torch import nn

import vramfit
from vramfit.errors import OutOfMemory, UsageError

# Operation 0 counts the samples, on the host.
SAMPLE = [*range(1, 40, 5), *range(41, 200, 9)]


def trained(k=None, *, optimizer=small.adamw, weight=None, network=small.network):
    torch.manual_seed(0)
    model = network()
    told = {} if weight is None else {"weight": weight}
    step = vramfit.recovering(model, optimizer(model.parameters()), clip_norm=1.0, **told)
    struck = False
    for number in range(3):
        x, y = small.batch(8)
        if number == 1 and k is not None:
            with FaultAt(k) as fault:
                step({"x": x, "y": y}, lambda part: small.squared_error(model(part["x"]), part["y"]))
            struck = fault.struck
        else:
            step({"x": x, "y": y}, lambda part: small.squared_error(model(part["x"]), part["y"]))
    return model, step, struck


@pytest.mark.parametrize("optimizer", [small.sgd, small.adamw])
def test_a_fault_at_any_operation_changes_no_weight(optimizer):
    gc.collect()
    gc.freeze()
    clean, _, _ = trained(optimizer=optimizer)
    phases = set()
    for k in SAMPLE:
        model, step, struck = trained(k, optimizer=optimizer)
        if struck:
            assert len(step.events) == 1
            assert step.micro_batch == 4
            phases.add(step.events[0].phase)
            assert small.difference(list(model.state_dict().values()), list(clean.state_dict().values())) < 1e-12, k
    assert phases == {"forward", "backward", "optimizer"}


def test_buffers_and_random_states_are_put_back():
    def after(fault):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(small.FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).double()
        step = vramfit.recovering(model, small.sgd(model.parameters()))
        calls = []

        def loss(part):
            outputs = model(part[0])
            drawn = torch.rand(())
            calls.append((len(part[0]), drawn.item(), model[1].num_batches_tracked.item()))
            if fault and len(calls) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return small.squared_error(outputs, part[1])

        step(small.batch(8), loss)
        return calls

    (_, drawn, _), *again = after(fault=True)
    assert [size for size, _, _ in again] == [4, 4]
    assert [again[0][1], again[0][2]] == [drawn, 1]


def test_parts_weigh_by_what_the_mean_is_over():
    x, y = small.batch(8)
    valid = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0], dtype=torch.float64)[:, None]

    def gradient_after(fault):
        torch.manual_seed(0)
        model = small.network()
        step = vramfit.recovering(
            model, torch.optim.SGD(model.parameters(), lr=1.0), weight=lambda part: part[2].sum().item()
        )
        struck = [fault]

        def loss(part):
            if struck.pop() if struck else False:
                raise RuntimeError("CUDA error: out of memory")
            return ((model(part[0]) - part[1]) ** 2 * part[2]).sum() / part[2].sum()

        value = step((x, y, valid), loss)
        return list(model.state_dict().values()), value

    (clean, mean), (again, mean_again) = gradient_after(fault=False), gradient_after(fault=True)
    assert small.difference(clean, again) < 1e-12
    assert mean_again.item() == pytest.approx(mean.item(), rel=1e-6)


def test_one_sample_that_does_not_fit_is_said_and_other_errors_pass():
    model = small.network()
    step = vramfit.recovering(model, small.sgd(model.parameters()))

    def full(part):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def wrong(part):
        raise ValueError("mine")

    with pytest.raises(OutOfMemory, match="micro-batch of 1"):
        step(small.batch(4), full)
    with pytest.raises(ValueError, match="mine"):
        step(small.batch(4), wrong)


def test_nothing_that_learns_is_refused():
    model = small.network().requires_grad_(False)
    with pytest.raises(UsageError, match="no parameters that learn"):
        vramfit.recovering(model, small.sgd([nn.Parameter(torch.zeros(1))]))


def test_parts_without_anything_to_weigh_count_their_samples():
    model = small.network()
    step = vramfit.recovering(model, small.sgd(model.parameters()), weight=lambda part: 0)
    calls = []

    def loss(part):
        calls.append(len(part[0]))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return small.squared_error(model(part[0]), part[1])

    assert step(small.batch(4), loss).isfinite()
    assert calls == [4, 2, 2]


@pytest.mark.parametrize("ignored", [slice(0, 4), slice(4, 8), slice(2, 6)])
def test_a_part_without_anything_to_weigh_is_left_out(ignored):
    """Its masked mean is 0/0, and NaN times a share of 0 is NaN."""
    mask = torch.ones(8, dtype=torch.float64)
    mask[ignored] = 0

    def weights(limit):
        torch.manual_seed(0)
        model = small.network()
        step = vramfit.recovering(model, small.sgd(model.parameters()), weight=lambda part: float(part[2].sum()))

        def loss(part):
            x, y, known = part
            if len(x) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return ((model(x) - y).pow(2).flatten(1).mean(1) * known).sum() / known.sum()

        mean = step((*small.batch(8), mask), loss)
        return [mean, *model.state_dict().values()]

    whole = weights(limit=8)
    assert all(value.isfinite().all() for value in whole)
    assert small.difference(weights(limit=2), whole) < 1e-12
