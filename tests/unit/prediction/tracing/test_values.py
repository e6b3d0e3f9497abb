"""What a traced step is told of values: the sample's own, else what is assumed, and never memory that is not there."""

import copy
import pickle
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.choices import ValuePolicy
from vramfit.errors import NotTraceable
from vramfit.jobs.job import Job
from vramfit.prediction.predict import predict
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.probe.fit import fit
from vramfit.records import Trial
from vramfit.report.table import remarks

WIDTH = 8


class Touching(nn.Module):
    """Does something with what its layer computes, which no trace knows."""

    def __init__(self, touch: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.touch = touch

    def forward(self, values: Tensor) -> Tensor:
        outputs = self.layer(values)
        self.touch(outputs)
        return outputs


def batch(samples: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(samples, WIDTH), torch.arange(samples) % WIDTH


def traced(touch: Callable[[Tensor], object], *, loss=F.cross_entropy, samples=4, **options) -> Trace:
    job = Job(model=partial(Touching, touch), batch=batch, loss=loss, optimizer=torch.optim.SGD, amp=None)
    return trace_step(job, samples, **options)


def seen(touch: Callable[[Tensor], object], **options) -> object:
    """What the network saw in its first forward pass."""
    found: list[object] = []
    traced(lambda values: found.append(touch(values)), **options)
    return found[0]


def run_compiled(values: Tensor) -> Tensor:
    compiled: Tensor = torch.jit.trace(nn.Linear(WIDTH, WIDTH), torch.zeros(2, WIDTH))(values)
    return compiled


def nothing(values: Tensor) -> None:
    del values


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize(
    "touch",
    [
        print,
        repr,
        "{}".format,
        lambda x: f"{x.mean():.3f}",
        lambda x: x.tolist(),
        lambda x: x.detach().numpy(),
        lambda x: np.asarray(x.detach()),
        lambda x: x.detach().cpu().numpy(),
        lambda x: x.data_ptr(),
        lambda x: x.untyped_storage()[0],
        lambda x: x.untyped_storage().data_ptr(),
        lambda x: bytes(x.detach().untyped_storage()),
        lambda x: pickle.dumps(x.detach()),
        lambda x: copy.deepcopy(x.detach()),
        lambda x: torch.utils.dlpack.to_dlpack(x.detach()),
        lambda x: x.detach().clone().share_memory_(),
        lambda x: x.detach().pin_memory(),
        lambda x: torch.tensor([x.mean(), x.sum()]),
        lambda x: torch.testing.assert_close(x, x),
        run_compiled,
    ],
)
def test_no_way_of_touching_a_tensor_ends_the_process(touch) -> None:
    assert traced(touch).peak_bytes > 0


def test_memory_that_is_read_behind_the_tracer_is_zeros() -> None:
    import ctypes

    def read(values: Tensor) -> list[float]:
        return list((ctypes.c_float * values.numel()).from_address(values.data_ptr()))

    assert seen(read) == [0.0] * (4 * WIDTH)


@pytest.mark.parametrize(
    ("flag", "answer"),
    [
        (lambda x: bool(torch.isfinite(x).all()), True),
        (lambda x: bool(torch.isnan(x).any()), False),
        (lambda x: bool((x != x).any()), False),
        (lambda x: bool(torch.isinf(x).any()), False),
        (lambda x: bool(torch.isnan(x.sum())), False),
        (lambda x: bool((x > 0).any()), True),
        (lambda x: bool(x.abs().max() > 100), False),
        (lambda x: x.mean().item() == 0, False),
        (lambda x: torch.equal(x, x + 1), True),
    ],
)
def test_flags_answer_as_in_a_healthy_run(flag, answer) -> None:
    assert seen(flag) is answer


@pytest.mark.parametrize(
    ("count", "most"),
    [
        (lambda x: len(x[x > 0]), 4 * WIDTH),
        (lambda x: len(x[x[:, 0] > 0]), 4),
        (lambda x: len((x > 0).nonzero()), 4 * WIDTH),
        (lambda x: len(torch.where(x > 0)[0]), 4 * WIDTH),
        (lambda x: len(x.masked_select(x > 0)), 4 * WIDTH),
        (lambda x: int((x > 0).sum()), 4 * WIDTH),
        (lambda x: (x > 0).sum(1).tolist(), [WIDTH] * 4),
        (lambda x: ((x > 0).long() + 1).max().item(), 2),
        (lambda x: len(torch.repeat_interleave(x, (x[:, 0] > 0).long(), dim=0)), 4),
        (lambda x: int((x > 0).cumsum(1).max()), WIDTH),
        (lambda x: len(x.unique()), 4 * WIDTH),
        (lambda x: len(x[: x[:, 0].argmax() + 1]), 4),
        (lambda x: len(~torch.isnan(x).flatten().nonzero()), 0),
        (lambda x: x[0].topk(3).indices.tolist(), [0, 1, 2]),
        (lambda x: int(x[:, 0].long().clamp(1, 9).max()), 9),
        (lambda x: int(x[:, 0].long().clamp(max=7).max()), 7),
        (lambda x: int(torch.bucketize(x[0], torch.arange(5.0, device=x.device)).max()), 5),
    ],
)
def test_counts_are_the_most_that_there_can_be(count, most) -> None:
    assert seen(count) == most


@pytest.mark.parametrize("choose", [lambda x: x.topk(2).indices, lambda x: x.argmax(-1), lambda x: x.max(-1).indices])
def test_many_searches_find_every_place_and_the_one_that_is_found_most_often_is_found_by_nearly_all(choose) -> None:
    found = seen(lambda outputs: F.one_hot(choose(outputs), WIDTH).flatten(0, -2).sum(0).tolist(), samples=40)
    assert min(found) > 0
    assert max(found) >= 40 - WIDTH


def test_a_full_sort_leaves_the_order_and_a_clamped_activation_is_not_known() -> None:
    assert seen(lambda x: x.argsort(-1).tolist()) == [list(range(WIDTH))] * 4
    assert not traced(lambda x: x.clamp(0, 3) * 2).assumptions


def test_counts_of_the_samples_own_targets_are_the_samples() -> None:
    kept = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        chosen = targets != 1
        kept.append((int(chosen.sum()), len(outputs[chosen]), targets.bincount().tolist()))
        return F.cross_entropy(outputs[chosen], targets[chosen])

    trace = traced(nothing, loss=loss)
    assert kept[0] == (3, 3, [1, 1, 1, 1])
    assert any("sizes are those of the sample batch" in said for said in trace.assumptions)


def test_what_is_written_into_is_followed() -> None:
    def count(values: Tensor) -> tuple[int, int]:
        flags = torch.zeros(6, dtype=torch.bool, device=values.device)
        flags[2:4] = True
        known = int(flags.sum())
        flags[0] = values.sum() > values.mean() * 3
        return known, int(flags.sum())

    known, after = seen(count)
    assert known == 2
    assert after in (2, 6)  # its first element is unknown: as it was, or like any mask


def test_a_factory_without_a_device_makes_a_host_tensor() -> None:
    trace = traced(lambda x: [torch.arange(3).tolist(), torch.randint(2, (1,)).item(), torch.rand(2) < 0.5])
    assert trace.assumptions == []
    plain = traced(nothing)
    assert len(trace.storages) == len(plain.storages)


def test_a_factory_with_a_device_makes_a_tensor_on_the_card() -> None:
    trace = traced(lambda x: torch.zeros(1000, device=x.device))
    assert any(storage.size_bytes == 4000 for storage in trace.storages)


def test_moving_a_host_tensor_takes_memory_of_the_card() -> None:
    moved = [
        lambda x: torch.ones(1000).to(x.device),
        lambda x: torch.ones(1000).to(x),
        lambda x: torch.ones(1000).type_as(x),
        lambda x: torch.tensor([1.0] * 1000, device=x.device),
        lambda x: torch.ones(1000).cuda(),
    ]
    for move in moved:
        assert any(storage.size_bytes == 4000 for storage in traced(move).storages)


def test_assumptions_name_the_line_that_relies_on_them_once() -> None:
    trace = traced(lambda x: x[x > 0])
    assert len(trace.assumptions) == 1
    assert trace.assumptions[0].startswith("test_values.py:")
    assert trace.assumptions[0].endswith(": a mask keeps everything")


def test_nothing_is_assumed_where_nothing_is_read() -> None:
    assert traced(nothing).assumptions == []


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.cpu()])
def test_strict_refuses_what_would_be_assumed(read) -> None:
    with pytest.raises(NotTraceable, match=r"test_values\.py:\d+ .*needs values that only a card has"):
        traced(lambda x: read(x.detach()), policy=ValuePolicy(strict=True))


def test_real_values_make_counts_real() -> None:
    def count(values: Tensor) -> int:
        return len(values[values > 0])

    many = seen(count, samples=64, policy=ValuePolicy(real=True))
    assert 0 < many < 64 * WIDTH
    assert seen(count, samples=64) == 64 * WIDTH


class Scheduled(nn.Module):
    """Keeps a schedule as a plain attribute, which `Module.to` does not move, and reads it as it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = torch.linspace(0, 0.5, 3)
        self.layers = nn.ModuleList(nn.Dropout(rate) for rate in self.rates.tolist())
        self.table = [torch.zeros(1 << 20)]
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, values: Tensor) -> Tensor:
        return self.layer(values) * self.rates.to(values.device)[1] + self.table[0].to(values.device)[0]


def test_plain_tensor_attributes_stay_on_the_host_until_they_are_moved() -> None:
    job = Job(model=Scheduled, batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)
    trace = trace_step(job, 4)
    assert sum(storage.size_bytes == 4 << 20 for storage in trace.storages) == 3  # a copy a pass: two steps, validation


def test_traces_are_repeatable_whatever_is_drawn() -> None:
    def draw(values: Tensor) -> Tensor:
        return values[torch.rand(values.shape[0], device=values.device) < 0.5]

    first, second = traced(draw, samples=50), traced(draw, samples=50)
    assert [storage.size_bytes for storage in first.storages] == [storage.size_bytes for storage in second.storages]


class Otherwise(Touching):
    """Answers in validation what its training loss does not take."""

    def forward(self, values: Tensor) -> Tensor:
        outputs = super().forward(values)
        return outputs if self.training else [outputs]


def job(network: Callable[[], nn.Module]) -> Job:
    return Job(model=network, batch=batch, loss=F.cross_entropy, optimizer=torch.optim.SGD, amp=None)


def test_validation_that_fails_is_said_and_training_is_traced() -> None:
    trace = trace_step(job(partial(Otherwise, nothing)), 4)
    assert trace.marks["step 2"] < trace.marks["validation"] < trace.marks["end"]
    assert len(trace.assumptions) == 1
    assert "validation is traced up to here, where it fails (" in trace.assumptions[0]


def test_a_predicted_trial_lists_what_was_assumed_and_strict_refuses() -> None:
    masked = job(partial(Touching, lambda x: x[x > 0]))
    trial = predict(masked, micro_batch=4, gpu="rtx3090")
    assert [said.partition(": ")[2] for said in trial.assumptions] == ["a mask keeps everything"]
    assert Trial.model_validate_json(trial.model_dump_json()).assumptions == trial.assumptions
    with pytest.raises(NotTraceable):
        predict(masked, micro_batch=4, gpu="rtx3090", strict=True)
    real = predict(masked, micro_batch=4, gpu="rtx3090", real_values=True)
    assert [said.partition(": ")[2] for said in real.assumptions] == ["sizes are those of the sample batch"]


def test_a_profile_says_in_one_line_what_was_assumed() -> None:
    profile = fit(job(partial(Touching, lambda x: x[x > 0])), gpu="rtx3090", batch_sizes=[4])
    said = [line for line in remarks(profile) if line.startswith("Assumed")]
    assert len(said) == 1
    assert "a mask keeps everything (test_values.py:" in said[0]


def test_nms_keeps_every_box_in_order_and_what_is_indexed_by_it_is_known() -> None:
    ops = pytest.importorskip("torchvision.ops")

    def kept(values: Tensor) -> tuple[list[int], list[int]]:
        found = ops.nms(values.detach()[:, :4], values.detach()[:, 0], 0.5)
        levels = torch.arange(4, device=values.device)
        return levels[found].tolist(), levels[values[:, 0] > 0].tolist()

    assert seen(kept) == ([0, 1, 2, 3], [0, 1, 2, 3])


def positives(outputs: Tensor) -> Tensor:
    """As a detector finds them among what it proposes and its targets."""
    from torchvision.ops import box_iou

    targets = torch.tensor([[0.0, 0, 4, 4], [2, 2, 8, 8]]).to(outputs.device)
    joined = torch.cat([outputs[:, :4].detach(), targets])
    return (box_iou(targets, joined).amax(0) > 0.5).nonzero()


def test_every_other_box_that_is_proposed_is_positive_beside_the_targets() -> None:
    assert seen(lambda outputs: positives(outputs).flatten().tolist(), samples=6) == [0, 2, 4, 6, 7]
    assert any("every other box proposed on the card matches" in line for line in traced(positives).assumptions)


def test_a_detector_s_sampler_finds_as_many_positive_and_negative_boxes_as_it_takes_at_most() -> None:
    utils = pytest.importorskip("torchvision.models.detection._utils")
    sampler = utils.BalancedPositiveNegativeSampler(batch_size_per_image=16, positive_fraction=0.25)

    def sampled(outputs: Tensor) -> list[int]:
        labels = torch.zeros(len(outputs) + 2, dtype=torch.int64, device=outputs.device)
        labels[positives(outputs)] = 1
        return [int(chosen[0].sum()) for chosen in sampler([labels])]

    assert seen(sampled, samples=64) == [4, 12]


def test_an_assumption_is_told_with_the_line_of_the_library_that_relies_on_it() -> None:
    from torchvision.ops import remove_small_boxes

    lines = traced(lambda outputs: remove_small_boxes(outputs[:, :4], 1.0)).assumptions
    assert [line.partition(":")[0] for line in lines] == ["boxes.py"]


def test_unknown_numbers_beside_known_ones_that_are_no_boxes_stay_unknown() -> None:
    assert len(seen(lambda outputs: (torch.cat([outputs[:, :3], outputs.new_zeros(2, 3)]) > 0).nonzero())) == 18


def test_no_layer_is_dropped_by_a_number_drawn_on_the_host() -> None:
    assert seen(lambda _: [bool(torch.rand([]) < 0.9), float(torch.rand(1)) > 0.999]) == [False, True]
    assert len(set(seen(lambda _: torch.rand(3).tolist()))) == 3


def test_that_no_layer_is_dropped_is_said_with_its_line() -> None:
    lines = traced(lambda _: float(torch.rand([])) < 0.9).assumptions
    assert [line.partition(": ")[2] for line in lines] == ["no layer is dropped at random"]
    assert lines[0].startswith("test_values.py:")
    assert not traced(lambda _: torch.rand(3).tolist()).assumptions
