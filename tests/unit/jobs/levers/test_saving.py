"""Levers that save memory at some cost: the same results, and as many bytes as the trace says."""

import copy
import inspect
import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch
from live_bytes import live_peak, optimizer
from torch import nn
from torch.nn import functional as F

from vramfit.cards import find_card
from vramfit.errors import UsageError
from vramfit.jobs import chunked_loss, eight_bit, offload
from vramfit.jobs.adapters import adaptable
from vramfit.jobs.job import Job
from vramfit.jobs.levers.apply import levers_that_may_save
from vramfit.jobs.levers.text import parse_levers
from vramfit.jobs.step import Step
from vramfit.prediction.lever_search import LeverSearch
from vramfit.prediction.predict import card_budget, predict
from vramfit.prediction.tracing.trace import trace_step
from vramfit.units import MemoryLimits

VOCABULARY = 4096


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, rows):
        return rows + self.narrow(F.gelu(self.wide(rows)))


class Network(nn.Module):
    """Blocks, with checkpointing of its own as the libraries have it."""

    def __init__(self, width=128):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(4))
        self.output = nn.Linear(width, VOCABULARY)
        self.checkpointing = False

    def set_grad_checkpointing(self, enable=True):
        self.checkpointing = enable

    def forward(self, tokens):
        rows = self.words(tokens)
        for block in self.blocks:
            again = self.checkpointing and torch.is_grad_enabled()
            rows = torch.utils.checkpoint.checkpoint(block, rows, use_reentrant=False) if again else block(rows)
        return self.output(rows)


def network():
    torch.manual_seed(3)
    return Network()


def samples(count):
    generator = torch.Generator().manual_seed(count)
    return tuple(torch.randint(VOCABULARY, (count,), generator=generator) for _ in range(2))


def make_job(levers="none", **changes):
    job = Job(
        model=network,
        batch=samples,
        loss=F.cross_entropy,
        optimizer=optimizer(lr=0.01, weight_decay=0.1),
        amp=None,
        levers=parse_levers(levers),
    )
    return replace(job, **changes)


def trained(job, count=48, steps=3):
    step = Step(job, "cpu")
    losses = [step.train(samples(count), count) for _ in range(steps)]
    return {"loss": losses, "model": step.model.state_dict(), "optimizer": step.optimizer.state_dict()["state"]}


@pytest.fixture
def small_parts(monkeypatch):
    """Limits that suit small networks: everything is offloaded, and a part of the loss is 16 tokens."""
    monkeypatch.setattr(offload, "MINIMUM_BYTES", 1 << 12)
    monkeypatch.setattr(chunked_loss, "_PART", 16 * VOCABULARY)


@pytest.mark.parametrize("levers", ["offload_activations", "optimizer_in_backward", "gradient_checkpointing"])
def test_the_same_results_bit_for_bit(levers, small_parts):
    torch.testing.assert_close(trained(make_job(levers)), trained(make_job()), rtol=0, atol=0)


def test_a_loss_in_parts_agrees_to_rounding(small_parts):
    # Adam's first steps divide gradients by their own size, so their rounding is not scaled down: plain descent.
    descent = optimizer(torch.optim.SGD, lr=0.1)
    job = make_job(optimizer=descent)
    levered = make_job("chunked_loss", optimizer=descent)
    torch.testing.assert_close(trained(levered), trained(job), rtol=1e-6, atol=1e-7)


def test_levers_together_are_as_exact_as_each(small_parts):
    three = "offload_activations,optimizer_in_backward,gradient_checkpointing"
    torch.testing.assert_close(trained(make_job(three)), trained(make_job()), rtol=0, atol=0)


@pytest.mark.parametrize(
    "levers",
    [
        "none",
        "offload_activations",
        "optimizer_in_backward",
        "gradient_checkpointing",
        "chunked_loss",
        "chunked_loss,gradient_checkpointing,optimizer_in_backward",
    ],
)
def test_a_real_step_takes_what_the_trace_says(levers, small_parts, monkeypatch):
    job = make_job(levers)
    real = live_peak(job, 512, monkeypatch)
    traced = trace_step(job, 512, validation=False).peak_bytes
    assert traced == pytest.approx(real, rel=0.02)


def test_each_lever_saves_of_such_a_job(small_parts):
    plain = trace_step(make_job(), 512, validation=False).peak_bytes
    for levers in ("offload_activations", "gradient_checkpointing", "chunked_loss"):
        assert trace_step(make_job(levers), 512, validation=False).peak_bytes < 0.95 * plain, levers
    few = trace_step(make_job(), 8, validation=False).peak_bytes
    assert trace_step(make_job("optimizer_in_backward"), 8, validation=False).peak_bytes < 0.85 * few


def test_offloading_takes_time_on_the_bus_and_checkpointing_less():
    times = {
        levers: predict(make_job(levers), micro_batch=4096, gpu="rtx3090").step_time_s
        for levers in ("none", "offload_activations", "gradient_checkpointing")
    }
    assert times["none"] < times["gradient_checkpointing"] < times["offload_activations"]


# -- offloading ---------------------------------------------------------------------------------------------------


def test_what_several_operations_keep_goes_to_the_host_once_and_weights_stay(monkeypatch, small_parts):
    sent = []
    to_host = offload.to_host
    monkeypatch.setattr(offload, "to_host", lambda tensor: sent.append(tensor.shape) or to_host(tensor))
    model = nn.ModuleList([nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)])
    model.forward = None
    first, second = model

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, rows):
            rows = rows.exp()
            return self.first(rows) + self.second(rows)

    twice = Twice()
    twice.forward = offload.Offloading(twice)
    copy.deepcopy(twice)(torch.randn(32, 64, requires_grad=True)).sum().backward()
    assert sent == [torch.Size([32, 64])]


def test_a_tensor_that_is_overwritten_later_comes_back_as_it_was_kept(small_parts):
    class Overwritten(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, rows):
            kept = self.layer(rows)
            with torch.no_grad():
                rows.zero_()
            return kept

    model = Overwritten()
    model.forward = offload.Offloading(model)
    rows = torch.ones(32, 64)
    model(rows).sum().backward()
    assert model.layer.weight.grad.eq(32).all()


def test_nothing_is_sent_away_where_nothing_is_kept(monkeypatch, small_parts):
    monkeypatch.setattr(offload, "to_host", None)
    step = Step(make_job("offload_activations"), "cpu")
    step.validate(samples(48))


# -- an optimizer in the backward pass ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_norm": 1.0}, "clipping"),
        ({"amp": "fp16"}, "gradient scaler"),
        ({"optimizer": {"words": optimizer(), "output": optimizer()}}, "several optimizers"),
    ],
)
def test_what_needs_all_gradients_at_once_is_refused(changes, said):
    with pytest.raises(UsageError, match=f"optimizer_in_backward drops each gradient .*{said}"):
        Step(make_job("optimizer_in_backward", **changes), "cpu")
    names = [lever.name for lever in levers_that_may_save(make_job(**changes), network())]
    assert "optimizer_in_backward" not in names


def test_a_batch_is_not_split_with_it():
    step = Step(make_job("optimizer_in_backward"), "cpu")
    with pytest.raises(UsageError, match="cannot accumulate: a batch of 8 of 'job' would be split into parts of 4"):
        step.train(samples(8), 4)


def test_settings_of_groups_hold_and_no_gradient_is_left():
    job = make_job("optimizer_in_backward", rate_scales=(("output", 0.0),), optimizer=optimizer(lr=0.01))
    step = Step(job, "cpu")
    before = copy.deepcopy(step.model.state_dict())
    step.train(samples(8), 8)
    after = step.model.state_dict()
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert torch.equal(after["output.weight"], before["output.weight"])
    assert not torch.equal(after["blocks.0.wide.weight"], before["blocks.0.wide.weight"])


# -- cross-entropy in parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_that_do_not_count_have_no_gradient_and_the_mean_is_over_the_others(dtype, small_parts):
    logits = torch.randn(50, VOCABULARY, dtype=dtype)
    targets = torch.randint(VOCABULARY, (50,))
    targets[::3] = -100
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, plain = chunked_loss.chunked_cross_entropy(ours, targets), F.cross_entropy(theirs.float(), targets)
    torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)
    (3 * loss).backward()
    (3 * plain).backward()
    # Each is rounded to bfloat16 once, of figures that differ in float32: by a last bit at most.
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5 if dtype is torch.float32 else 2**-7, atol=1e-8)
    assert ours.grad[::3].eq(0).all()


def own_loss(outputs, targets):
    return F.cross_entropy(outputs.float(), targets.flatten())


def test_cross_entropy_is_found_in_a_loss_of_ones_own():
    for loss in (F.cross_entropy, nn.CrossEntropyLoss(), own_loss, partial(own_loss)):
        assert chunked_loss.uses_cross_entropy(loss)
    assert not chunked_loss.uses_cross_entropy(F.mse_loss)
    logits, targets = torch.randn(40, 9), torch.randint(9, (40,))
    assert pickle.loads(pickle.dumps(chunked_loss.LossInParts(own_loss)))(logits, targets) == pytest.approx(
        float(own_loss(logits, targets)), rel=1e-6
    )


@pytest.mark.parametrize(
    "settings",
    [{"label_smoothing": 0.1}, {"reduction": "none"}, {"weight": torch.rand(9)}, {"ignore_index": 3}, {}],
)
def test_what_has_no_form_in_parts_is_torchs_own(settings, monkeypatch):
    logits, targets = torch.randn(40, 9), torch.randint(9, (40,))
    plain = F.cross_entropy(logits, targets, **settings)
    called = []
    monkeypatch.setattr(chunked_loss, "chunked_cross_entropy", lambda *_: called.append(1) or plain)
    with chunked_loss.InParts():
        torch.testing.assert_close(nn.CrossEntropyLoss(**settings)(logits, targets), plain, rtol=0, atol=0)
    assert bool(called) == (not settings)


def test_images_with_a_class_a_pixel_and_sums_are_as_torch_has_them():
    images, classes = torch.randn(2, 5, 3, 3), torch.randint(5, (2, 3, 3))
    logits, targets = torch.randn(40, 9), torch.randint(9, (40,))
    with chunked_loss.InParts():
        ours = F.cross_entropy(images, classes), F.cross_entropy(logits, targets, reduction="sum")
    theirs = F.cross_entropy(images, classes), F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


class WithLoss(Network):
    """Computes its loss itself, with torch's cross-entropy."""

    def forward(self, tokens, classes):
        return {"loss": F.cross_entropy(super().forward(tokens), classes)}


def test_a_network_that_computes_its_loss_does_it_in_parts(small_parts, monkeypatch):
    def network_with_loss():
        torch.manual_seed(3)
        return WithLoss()

    job = make_job("chunked_loss,offload_activations", model=network_with_loss, loss=None)
    plain = make_job(model=network_with_loss, loss=None)
    called, sent = [], []
    to_host, in_parts = offload.to_host, chunked_loss.chunked_cross_entropy
    monkeypatch.setattr(offload, "to_host", lambda one: sent.append(1) or to_host(one))
    monkeypatch.setattr(chunked_loss, "chunked_cross_entropy", lambda *all: called.append(1) or in_parts(*all))
    losses = trained(job, steps=1)["loss"]
    assert called
    assert sent, "the two levers wrap one forward"
    torch.testing.assert_close(losses, trained(plain, steps=1)["loss"], rtol=1e-6, atol=1e-6)
    assert list(inspect.signature(Step(job, "cpu").model.forward).parameters) == ["tokens", "classes"]


# -- checkpointing of a library's own -----------------------------------------------------------------------------


def test_a_network_without_checkpointing_is_sent_to_recompute():
    with pytest.raises(UsageError, match="has no gradient checkpointing of its own"):
        Step(make_job("gradient_checkpointing", model=partial(nn.Embedding, VOCABULARY, VOCABULARY)), "cpu")
    with pytest.raises(UsageError, match="use one of the two levers"):
        parse_levers("gradient_checkpointing,recompute=block")


# -- what changes the result --------------------------------------------------------------------------------------


def test_state_of_eight_bits_is_predicted_by_its_layout():
    """A byte an element and moment, a float32 a block of 256; small weights in float32, paged ones off the card."""
    sizes = [(128 * 512, 8), (128 * VOCABULARY, 2), (512, 4), (128, 4), (VOCABULARY, 1)]
    blocks = sum(2 * (n + 4 * -(-n // 256)) * times for n, times in sizes if n >= 4096)
    small = sum(2 * 4 * n * times for n, times in sizes if n < 4096)
    state = state_bytes(make_job("eight_bit_optimizer"))
    assert state == blocks + small
    paged = sum(2 * n * times for n, times in sizes if n >= 100_000)
    assert state_bytes(make_job("eight_bit_optimizer=paged")) == state - paged


def state_bytes(job):
    trace = trace_step(job, 2, validation=False)
    alive = set()
    for event in trace.events:
        alive.add(event) if event >= 0 else alive.discard(~event)
    return sum(trace.storages[one].size_bytes for one in alive if trace.storages[one].kind == "optimizer state")


def test_the_real_optimizer_of_eight_bits_keeps_as_much():
    pytest.importorskip("bitsandbytes")
    step = Step(make_job("eight_bit_optimizer"), "cpu")
    step.train(samples(8), 8)
    held = sum(
        value.numel() * value.element_size()
        for one in step.optimizer.state.values()
        for name, value in one.items()
        if isinstance(value, torch.Tensor) and not name.startswith("qmap")
    )
    assert held == state_bytes(make_job("eight_bit_optimizer"))


def test_an_optimizer_without_eight_bits_is_refused():
    rms = make_job("eight_bit_optimizer", optimizer=optimizer(torch.optim.RMSprop))
    with pytest.raises(UsageError, match="has no 8-bit RMSprop"):
        trace_step(rms, 2)
    assert pickle.loads(pickle.dumps(make_job("eight_bit_optimizer").optimizer)) is not None


def test_adapters_alone_learn():
    pytest.importorskip("peft")
    step = Step(make_job("lora=8"), "cpu")
    learning = {name for name, parameter in step.model.named_parameters() if parameter.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    step.train(samples(8), 8)
    full, adapted = (trace_step(make_job(levers), 8, validation=False).peak_bytes for levers in ("none", "lora=8"))
    assert adapted < 0.5 * full


def test_adapters_go_on_linear_layers():
    assert len(adaptable(network())) == 9


def test_the_search_is_offered_what_suits_the_job(monkeypatch):
    names = [lever.name for lever in levers_that_may_save(make_job(), network())]
    assert names[:4] == ["optimizer_in_backward", "chunked_loss", "gradient_checkpointing", "offload_activations"]
    assert "eight_bit_optimizer" not in names, "a million weights"
    monkeypatch.setattr(eight_bit, "MANY", 1_000_000)
    assert "eight_bit_optimizer" in [lever.name for lever in levers_that_may_save(make_job(), network())]
    used = [lever.name for lever in levers_that_may_save(make_job("recompute=block"), network())]
    assert "gradient_checkpointing" not in used


def search_of(job):
    card = find_card("rtx3090")
    return LeverSearch(job, card, card_budget(card, MemoryLimits.parse(vram="2GB")))


def test_the_search_tries_each_and_leaves_out_what_the_network_does_not_take():
    class Unwilling(Network):
        def set_grad_checkpointing(self, enable=True):
            raise AssertionError("not here")

    names = [fitted.levers[-1].name for fitted in search_of(make_job(model=Unwilling)).saving(64)]
    assert {"optimizer_in_backward", "chunked_loss", "offload_activations"} <= set(names)
    assert "gradient_checkpointing" not in names


def test_levers_taken_together_are_those_that_recomputation_is_planned_beside():
    together = search_of(make_job()).together(64)
    names = {lever.name for lever in together.levers}
    assert {"optimizer_in_backward", "chunked_loss"} <= names
    assert not {"offload_activations", "gradient_checkpointing", "eight_bit_optimizer"} & names
    with pytest.raises(UsageError, match="whatever is sent away"):
        parse_levers("offload_activations,recompute=block")
