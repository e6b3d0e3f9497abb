"""Recomputation changes where memory goes, and nothing else."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit.errors import UsageError
from vramfit.jobs.job import Job
from vramfit.jobs.levers.text import parse_levers
from vramfit.jobs.recompute import find_recomputable, frozen_statistics, recompute, recomputed
from vramfit.jobs.step import Step
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions

OPTIONS = LandmarkJobOptions(model="hrnet_w18_small", image_size=(64, 64), landmarks=4, amp=None, learning_rate=1e-3)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width, momentum=None)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, value):
        return self.drop(self.act(self.norm(self.conv(value)))) + value


class Plain(nn.Module):
    """Convolution straight into an activation in place, as in VGG."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, value):
        return self.act(self.conv(value))


class InPlace(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, value):
        return self.conv(value.mul_(2))


def network(kind=Block):
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(kind(4), kind(4)), nn.Conv2d(4, 2, 1))


def samples(count):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.randn(count, 2, 8, 8, generator=generator)


def make_job(kind=Block, levers=""):
    return Job(
        model=partial(network, kind),
        batch=samples,
        loss=F.mse_loss,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        amp=None,
        levers=parse_levers(levers),
    )


def keep_gradient(gradients, name, owner):
    gradients[name] = owner.grad.clone()


def run(job, steps=5, micro_batch=2):
    """Losses, last gradients and final state of a few steps; the same random numbers every time."""
    torch.manual_seed(11)
    step, gradients = Step(job, "cpu"), {}
    for name, parameter in step.model.named_parameters():
        parameter.register_post_accumulate_grad_hook(partial(keep_gradient, gradients, name))
    losses = [step.train(job.batch(4 if number % 2 else 3), micro_batch) for number in range(steps)]
    return {"loss": losses, "gradients": gradients, "state": step.model.state_dict()}


@pytest.fixture(scope="module")
def plain_landmarks():
    return run(landmark_job(OPTIONS))


@pytest.mark.parametrize("setting", ["selective", "block", "module"])
def test_hrnet_learns_bit_for_bit_the_same(setting, plain_landmarks):
    job = landmark_job(replace(OPTIONS, levers=parse_levers(f"recompute={setting}")))
    assert recomputed(Step(job, "cpu").model)
    torch.testing.assert_close(run(job), plain_landmarks, rtol=0, atol=0)


def test_every_module_may_choose_for_itself(plain_landmarks):
    chosen = (
        "recompute=selective@backbone.stage2.0,recompute=block@backbone.stage3.0.branches.0.0+head,"
        "recompute=module@backbone.stage4.0"
    )
    job = landmark_job(replace(OPTIONS, levers=parse_levers(chosen)))
    names = ("backbone.stage2.0", "backbone.stage3.0.branches.0.0", "backbone.stage4.0", "head")
    assert set(recomputed(Step(job, "cpu").model)) == set(names)
    torch.testing.assert_close(run(job), plain_landmarks, rtol=0, atol=0)


def test_in_bfloat16_too():
    job = landmark_job(replace(OPTIONS, amp="bf16"))
    plain = run(job, steps=2)
    for setting in ("selective", "module"):
        again = run(replace(job, levers=parse_levers(f"recompute={setting}")), steps=2)
        torch.testing.assert_close(again, plain, rtol=0, atol=0)


@pytest.mark.parametrize("setting", ["selective", "block"])
@pytest.mark.parametrize("kind", [Block, Plain])
def test_dropout_cumulative_statistics_and_activations_in_place(kind, setting):
    torch.testing.assert_close(run(make_job(kind, f"recompute={setting}")), run(make_job(kind)), rtol=0, atol=0)


def test_statistics_that_moved_twice_would_be_seen(monkeypatch):
    plain = run(make_job())["state"]
    monkeypatch.setattr("vramfit.jobs.recompute.frozen_statistics", lambda norms: frozen_statistics([]))
    twice = run(make_job(levers="recompute=block"))["state"]
    assert twice["1.0.norm.num_batches_tracked"] > plain["1.0.norm.num_batches_tracked"]


def test_frozen_statistics_come_back_after_an_error():
    norm = nn.BatchNorm2d(3, momentum=0.25)
    with pytest.raises(RuntimeError), frozen_statistics([norm]):
        norm(torch.randn(2, 5, 4, 4))
    assert (norm.momentum, int(norm.num_batches_tracked)) == (0.25, 0)
    torch.testing.assert_close(norm.running_mean, torch.zeros(3))


def test_a_copy_of_the_network_recomputes_with_its_own_weights():
    model = network()
    recompute(model, ["1.0"], selective=False)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(samples(2)[0]).abs().max() == 0
    assert twin[1][0].forward.module is twin[1][0]
    assert list(twin.state_dict()) == list(network().state_dict())


def test_nothing_is_recomputed_without_gradients(monkeypatch):
    model = network()
    recompute(model, ["1.0", "1.1"], selective=False)
    monkeypatch.setattr("vramfit.jobs.recompute.checkpoint", None)
    with torch.no_grad():
        assert model(samples(2)[0]).shape == (2, 2, 8, 8)


def test_a_module_that_overwrites_its_input_is_refused():
    with pytest.raises(UsageError, match=r"1\.0 cannot be recomputed: its input is overwritten by it"):
        run(make_job(InPlace, "recompute=block"))


class Pair(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, values):
        return self.conv(values[0]) * values[1]


def test_an_input_that_is_overwritten_afterwards_is_refused():
    model = network(Pair)
    recompute(model, ["1.0"], selective=False)
    values = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)]
    out = model[1][0](values)
    values[1].add_(1)
    with pytest.raises(UsageError, match="its input is overwritten after it"):
        out.sum().backward()


@pytest.mark.parametrize(
    ("levers", "says"),
    [
        ("recompute=block@1.7", "has no module '1.7'"),
        ("recompute=block@1.0+1", "1 and 1.0 cannot both be recomputed"),
        ("recompute=block@1.0,recompute=module@1.0", "1.0 and 1.0 cannot both"),
    ],
)
def test_modules_that_make_no_sense_are_refused(levers, says):
    with pytest.raises(UsageError, match=says):
        Step(make_job(levers=levers), "cpu")


def test_synchronised_batchnorm_is_refused():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(network())
    with pytest.raises(UsageError, match="SyncBatchNorm"):
        recompute(model, ["1.0"], selective=False)


def test_hrnet_blocks_and_modules_are_found():
    with torch.device("meta"):
        found = find_recomputable(landmark_job(LandmarkJobOptions()).model())
    modules = "stage2.0 stage3.0 stage3.1 stage3.2 stage3.3 stage4.0 stage4.1 stage4.2"
    assert found.modules == tuple(f"backbone.{name}" for name in modules.split())
    residual = [name for name in found.blocks if ".branches." in name or ".layer1." in name]
    assert len(residual) == 4 + 8 + 4 * 12 + 3 * 16
    assert "head" in found.blocks
    outside = set(found.of_setting("module")) - set(found.modules)
    assert {"head", "backbone.layer1.0"} <= outside
    assert not any("stage" in name for name in outside)


@pytest.mark.parametrize(("name", "blocks", "modules"), [("resnet18", 8, 0), ("vit_tiny_patch16_224", 12, 0)])
def test_other_families_are_found_by_their_structure(name, blocks, modules):
    import timm

    with torch.device("meta"):
        found = find_recomputable(timm.create_model(name))
    assert (len(found.blocks), len(found.modules)) == (blocks, modules)


def test_a_chain_of_one_block_is_offered_once():
    def block():
        return nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))

    found = find_recomputable(nn.Sequential(nn.Sequential(block()), nn.Sequential(block(), block())))
    assert found.chains == ("1",)
    assert set(found.blocks) >= {"0.0", "1.0", "1.1"}
