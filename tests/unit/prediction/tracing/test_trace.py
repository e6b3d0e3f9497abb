import gc
from functools import partial
from importlib import import_module

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vramfit.choices import ValuePolicy
from vramfit.errors import NotTraceable
from vramfit.jobs.job import Job
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.rescale import AffineTrace

WIDTH = 64


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.ReLU(), nn.Linear(WIDTH, 1, bias=False))


def batch(samples):
    return torch.zeros(samples, WIDTH), torch.zeros(samples, 1)


def job(**changes) -> Job:
    settings = {"model": network, "batch": batch, "loss": F.mse_loss, "optimizer": torch.optim.AdamW, "amp": None}
    return Job(**{**settings, **changes})


def held(trace: Trace, kind: str) -> int:
    """Bytes of a kind alive at the end of the trace."""
    alive = set()
    for event in trace.events:
        alive.add(event) if event >= 0 else alive.discard(~event)
    return sum(trace.storages[number].size_bytes for number in alive if trace.storages[number].kind == kind)


def weights_bytes() -> int:
    return 4 * (WIDTH * WIDTH + WIDTH)


def test_parameters_and_both_moments_of_adam_stay() -> None:
    trace = trace_step(job(), 2)
    assert held(trace, "parameter") == weights_bytes()
    assert held(trace, "optimizer state") == 2 * weights_bytes()
    assert held(trace, "gradient") == 0
    assert held(trace, "activation") == 0


def test_fused_adam_keeps_its_counters_on_the_card_and_allocates_no_temporaries() -> None:
    trace = trace_step(job(optimizer=partial(torch.optim.AdamW, fused=True)), 2)
    counters = 2 * 4
    assert held(trace, "optimizer state") == 2 * weights_bytes() + counters
    assert not [s for s in trace.storages if s.phase == "optimizer" and s.kind == "temporary"]


def test_foreach_is_what_a_card_would_choose() -> None:
    operations = {operation.name for operation in trace_step(job(), 2).operations}
    assert any(name.startswith("_foreach") for name in operations)


def test_every_storage_is_freed_once_after_it_was_allocated() -> None:
    trace = trace_step(job(amp="fp16", clip_norm=1.0, ema_decay=0.9), 2)
    alive: set[int] = set()
    for event in trace.events:
        if event >= 0:
            assert event not in alive
            alive.add(event)
        else:
            alive.remove(~event)


def test_optimizer_state_appears_in_the_first_step() -> None:
    trace = trace_step(job(), 2)
    bytes_held = trace.allocated_bytes()
    before, after = (bytes_held[trace.marks[name] - 1] for name in ("step 1", "step 2"))
    assert after - before == 2 * weights_bytes()


def test_average_is_one_more_copy() -> None:
    assert held(trace_step(job(ema_decay=0.9), 2), "average") == weights_bytes()


def test_half_precision_casts_weights_once_a_step_and_drops_them() -> None:
    trace = trace_step(job(amp="fp16"), 2, steps=1, validation=False)
    casts = [s for s in trace.storages if s.kind == "cast weight"]
    assert sum(s.size_bytes for s in casts) == weights_bytes() // 2
    assert held(trace, "cast weight") == 0


def test_accumulated_batches_are_moved_part_by_part() -> None:
    trace = trace_step(job(), 3, steps=1, validation=False)
    assert [s.size_bytes for s in trace.storages if s.kind == "input"] == [3 * WIDTH * 4, 3 * 4]


def test_line_through_two_batches_meets_a_third_traced_directly() -> None:
    traced = [trace_step(job(amp="fp16", clip_norm=1.0), micro_batch) for micro_batch in (2, 3, 7)]
    line = AffineTrace.through(traced[0], traced[1])
    assert line is not None
    drawn = line.at(7)
    assert drawn.events == traced[2].events
    assert [s.size_bytes for s in drawn.storages] == [s.size_bytes for s in traced[2].storages]
    assert [o.flops for o in drawn.operations] == [o.flops for o in traced[2].operations]


class Branching(nn.Module):
    """Does more for a batch of three: no line goes through its traces."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)

    def forward(self, values):
        return self.layer(values.tanh() if len(values) == 3 else values)


def test_no_line_where_operations_depend_on_the_batch() -> None:
    branching = job(model=Branching)
    assert AffineTrace.through(trace_step(branching, 2), trace_step(branching, 3)) is None


class Reading(nn.Module):
    def __init__(self, read) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)
        self.read = read

    def forward(self, values):
        self.read(values)
        return self.layer(values)


@pytest.mark.parametrize(
    ("read", "named"),
    [
        (lambda values: values.sum().item(), "_local_scalar_dense"),
        (lambda values: values[values > 0], "nonzero"),
        (lambda values: values.unique(), "unique"),
        (lambda values: values.numpy(), "numpy"),
        (lambda values: values.tolist(), "tolist"),
    ],
)
def test_reading_values_names_the_operation_and_the_line(read, named) -> None:
    import_module("torch._meta_registrations")  # as much else does; its kernel of `item` fails in words of its own

    with pytest.raises(NotTraceable, match=named) as caught:
        trace_step(job(model=partial(Reading, read)), 2, policy=ValuePolicy(strict=True))
    assert "test_trace.py:" in str(caught.value)


def test_what_fails_in_the_step_itself_is_put_down_to_what_the_job_gives() -> None:
    with pytest.raises(NotTraceable, match=r"network_call\.py:\d+ .*a tensor 2x64: .*; change what the job gives"):
        trace_step(job(model=lambda: nn.Linear(WIDTH + 1, 1)), 2)


class Settings:
    """Looks its attributes up itself, as configurations of transformers do."""

    def __getattr__(self, name: str) -> object:
        raise AttributeError(f"\nSettings has no {name}\n  and more lines")


def test_an_error_of_a_network_is_said_with_the_line_that_asked() -> None:
    def read(_: torch.Tensor) -> object:
        return Settings().start_token

    with pytest.raises(NotTraceable) as caught:
        trace_step(job(model=partial(Reading, read)), 2)
    said = str(caught.value)
    assert "`return Settings().start_token`" in said
    assert "AttributeError: Settings has no start_token; mend that line" in said


def test_random_state_and_torch_are_left_as_they_were() -> None:
    state = torch.get_rng_state()
    deepcopy, numpy = torch.Tensor.__deepcopy__, torch.Tensor.numpy
    trace_step(job(amp="fp16"), 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.Tensor.__deepcopy__, torch.Tensor.numpy) == (deepcopy, numpy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.exp(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_operations_know_their_module_in_both_passes() -> None:
    trace = trace_step(job(), 2, steps=1, validation=False)
    products = [(o.phase, o.module) for o in trace.operations if o.name in ("mm", "addmm")]
    assert products[:2] == [("forward", "0"), ("forward", "2")]
    assert {module for phase, module in products if phase == "backward"} == {"0", "2"}


def test_channels_last_reaches_the_convolutions() -> None:
    def convolution() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 1))

    def images(samples):
        return torch.zeros(samples, 4, 8, 8), torch.zeros(samples, 1)

    for wanted in (False, True):
        trace = trace_step(job(model=convolution, batch=images, channels_last=wanted), 2)
        found = {o.convolution.channels_last for o in trace.operations if o.convolution and o.phase == "forward"}
        assert found == {wanted}


def test_another_memory_order_leaves_weights_what_they_are() -> None:
    def convolution() -> nn.Module:
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 1))

    def images(samples):
        return torch.zeros(samples, 4, 8, 8), torch.zeros(samples, 1)

    plain, ordered = (
        trace_step(job(model=convolution, batch=images, amp="fp16", channels_last=order), 2) for order in (False, True)
    )
    for kind in ("parameter", "buffer"):
        assert held(ordered, kind) == held(plain, kind) > 0
    casts = [
        [(s.size_bytes, s.module) for s in trace.storages if s.kind == "cast weight"] for trace in (plain, ordered)
    ]
    assert casts[0] == casts[1] != []


def test_nothing_is_added_once_the_trace_is_done() -> None:
    trace = trace_step(job(), 2)
    events = list(trace.events)
    gc.collect()
    assert trace.events == events
    assert len(events) == trace.marks["end"]


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (
            lambda layer, x: torch.cond(x.sum() > 0, layer, lambda y: layer(2 * y), (x,)),
            "torch's cond cannot .* own if or",
        ),
        (lambda layer, x: layer(x).relu().to_sparse_csr() @ x.T, r"compressed sparse tensor .* give it as COO"),
    ],
)
def test_what_torch_has_and_no_trace_follows_is_refused_in_words(forward, said):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, values):
            return forward(self.layer, values)

    job = Job(
        model=Own,
        batch=lambda n: (torch.zeros(n, 8), torch.zeros(n, dtype=torch.long)),
        loss=nn.functional.cross_entropy,
        optimizer=torch.optim.SGD,
        amp=None,
    )
    with pytest.raises(NotTraceable, match=said):
        trace_step(job, 4)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_a_scripted_network_is_traced_as_the_one_that_was_scripted():
    def plain():
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))

    def job(model):
        return Job(
            model=model,
            batch=lambda n: (torch.zeros(n, 8), torch.zeros(n, dtype=torch.long)),
            loss=nn.functional.cross_entropy,
            optimizer=torch.optim.SGD,
            amp=None,
        )

    scripted, usual = trace_step(job(lambda: torch.jit.script(plain())), 64), trace_step(job(plain), 64)
    # The interpreter of a script holds the hidden layer's values until the network is through.
    assert usual.peak_bytes <= scripted.peak_bytes <= usual.peak_bytes + 64 * 32 * 4
