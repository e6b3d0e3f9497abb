"""A network that several cards share: what a rank holds, what it learns, and what is refused."""

from dataclasses import replace

import pytest
import torch
from sharded_ranks import LEVERS, RANKS, SAMPLES, WIDTH, make_job, rows, run_sharded, trained

from vramfit.errors import UsageError
from vramfit.jobs.levers.text import parse_levers
from vramfit.jobs.step import Step
from vramfit.prediction.overheads import NCCL_BYTES
from vramfit.prediction.predict import predict
from vramfit.prediction.tracing.trace import trace_step
from vramfit.probe.fit import fit, levers_for
from vramfit.probe.request import ProbeRequest
from vramfit.training.run_options import RunOptions, refuse_communicating

pytestmark = pytest.mark.usefixtures("warm_module")
FLOAT = 4

AUTO = ProbeRequest(gpu="rtx3060", choose_levers=True)


def sharded(setting="on", cards=RANKS, **options):
    return make_job(levers=parse_levers(f"fsdp={setting}"), cards=cards, **options)


def with_buckets(setting="on", cards=RANKS):
    return make_job(levers=parse_levers(f"ddp={setting}"), cards=cards)


def make_and_trace(levers):
    return trace_step(make_job(levers=parse_levers(levers), cards=RANKS), 4)


def shares(cards):
    """Bytes of a rank's part of each weight: cut along its first dimension, and filled up."""
    shapes = [tuple(value.shape) for value in make_job().model().parameters()]
    return [-(-shape[0] // cards) * (shape[1] if len(shape) > 1 else 1) * FLOAT for shape in shapes]


def of_kind(trace, kind):
    return sorted(one.size_bytes for one in trace.storages if one.kind == kind and one.phase != "setup")


@pytest.mark.parametrize("cards", [2, 3, 8])
def test_a_rank_holds_its_share_of_weights_and_moments_filled_up(cards):
    trace = trace_step(sharded(cards=cards), 4)
    held = sorted(one.size_bytes for one in trace.storages if one.kind == "parameter" and one.op == "new_zeros")
    assert held == sorted(shares(cards))
    assert of_kind(trace, "optimizer state") == sorted(2 * shares(cards))


def test_gradients_are_parts_of_what_is_scattered_of_a_block():
    trace = trace_step(sharded(), 4)
    blocks = 4
    groups = of_kind(trace, "gradient")
    assert len(groups) == 2 * (blocks + 1)  # two steps, and what is in no block
    assert sum(groups) == 2 * sum(shares(RANKS))


def test_one_block_is_whole_at_a_time_unless_they_are_kept():
    """In the forward pass of the second step, of the weights that are gathered."""

    def whole(setting):
        trace, held, most = trace_step(sharded(setting), 4), 0, 0
        for event in trace.events:
            one = trace.storages[event if event >= 0 else ~event]
            if one.op == "all_gather":
                held += one.size_bytes if event >= 0 else -one.size_bytes
                most = max(most, held)
        return most

    block = 2 * 4 * WIDTH * WIDTH + 5 * WIDTH + 7 * FLOAT  # a weight of 33 rows is filled up to 34
    everything = sum(shares(RANKS)) * RANKS
    assert whole("keep") == everything
    assert block * FLOAT < whole("on") < everything - block * FLOAT


def test_two_ranks_learn_what_one_learns_of_all_samples(tmp_path):
    losses, alone = trained(make_job(clip_norm=0.5), rows(SAMPLES))
    ranks = run_sharded(tmp_path)
    for lever in LEVERS:
        found = [rank[lever] for rank in ranks]
        means = torch.tensor([one["losses"] for one in found]).mean(0)
        torch.testing.assert_close(means, torch.tensor(losses), rtol=1e-5, atol=1e-6)
        for one in found:
            torch.testing.assert_close(one["weights"], dict(alone.model.state_dict()), rtol=1e-4, atol=1e-5)
            assert one["held"] * FLOAT == sum(shares(RANKS if lever.startswith("fsdp") else 1))


def test_modules_that_are_named_are_gathered_in_place_of_blocks():
    """Of three modules, each in two steps; the last is what is in none of them."""
    named = make_job(levers=parse_levers("fsdp=on@1.0+1.1"), cards=RANKS)
    assert len(of_kind(trace_step(named, 4), "gradient")) == 2 * 3


def test_half_precision_is_gathered_where_it_is_asked_for():
    job = sharded("half", amp="bf16")
    gathered = [one.size_bytes for one in trace_step(job, 4).storages if one.op == "all_gather"]
    whole = [one.size_bytes for one in trace_step(replace(job, levers=parse_levers("fsdp")), 4).storages]
    assert sum(gathered) > 0
    assert max(gathered) * 2 in whole


def test_a_rank_takes_less_and_nccl_widens_its_band():
    alone = predict(make_job(), micro_batch=4, gpu="rtx3090")
    many = predict(make_job(cards=4), micro_batch=4, gpu="rtx3090")
    assert many.peak_allocated_bytes == alone.peak_allocated_bytes
    assert many.device_used_band_bytes[1] == alone.device_used_band_bytes[1] + NCCL_BYTES[1]
    parts = trace_step(sharded(cards=4), 4).peak_bytes
    assert parts < trace_step(make_job(), 4).peak_bytes


def test_a_plan_divides_its_batch_over_the_cards_and_says_what_each_takes():
    profile = fit(sharded(cards=4), gpu="rtx3090", effective_batch=64, objective="largest")
    assert (profile.plan.micro_batch, profile.plan.world_size, profile.plan.effective_batch) == (16, 4, 64)
    assert any("NCCL takes 110 MiB to 688 MiB" in note and "what FSDP2 gathers" in note for note in profile.notes)
    many = fit(with_buckets(), gpu="rtx3090", batch_sizes=[4])
    assert any("What each of 2 cards takes: whole weights and buckets of gradients" in note for note in many.notes)
    assert not any("NCCL" in note for note in fit(make_job(), gpu="rtx3090", batch_sizes=[4]).notes)


def test_ddp_holds_buckets_as_large_as_all_gradients_beside_them_or_in_their_place():
    gradients, plain = sum(shares(1)), trace_step(make_job(), 4)
    buckets, views = (trace_step(with_buckets(setting), 4) for setting in ("on", "views"))
    for trace in (buckets, views):
        made = trace.allocated_bytes()[trace.marks["step 1"] - 1] - plain.allocated_bytes()[plain.marks["step 1"] - 1]
        assert made == gradients
    assert buckets.peak_bytes == plain.peak_bytes + gradients
    assert views.peak_bytes == plain.peak_bytes


def test_streams_of_their_own_take_from_pools_of_their_own():
    trace = trace_step(sharded(), 4)
    assert {one.stream for one in trace.storages} > {0}
    assert {one.stream for one in trace.storages if one.kind in ("activation", "optimizer state")} == {0}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Step(sharded(), "cpu"), r"fsdp is of several cards.*--cards 2"),
        (lambda: trace_step(sharded(cards=1), 4), r"fsdp is of several cards"),
        (lambda: trace_step(sharded(ema_decay=0.9), 4), r"leave the EMA \(ema_decay\) out"),
        (lambda: trace_step(sharded(channels_last=True), 4), r"use one of the two"),
        (lambda: trace_step(sharded("half"), 4), r"amp is None; use fsdp=on"),
        (lambda: trace_step(make_job(levers=parse_levers("fsdp=on@7"), cards=2), 4), r"no module '7' to shard"),
        (
            lambda: trace_step(make_job(levers=parse_levers("fsdp=on@1.0,fsdp=keep@1.1"), cards=2), 4),
            r"given twice; name all modules in one",
        ),
        (lambda: make_job(cards=0), r"cards is 0; use 1 or more"),
        (lambda: fit(make_job(cards=2), mode="measure"), r"tries one card, and 2 share the job"),
        (lambda: levers_for(make_job(cards=2), AUTO), r"of one card, and 2 share the job \(--cards\); name the levers"),
        (lambda: RunOptions(levers="fsdp"), r"vramfit probe --cards N --levers fsdp.*leave fsdp out"),
        (lambda: refuse_communicating(sharded().levers), r"averages gradients itself.*leave fsdp out"),
        (lambda: trace_step(with_buckets(cards=1), 4), r"ddp is of several cards.*--cards 2"),
        (lambda: make_and_trace("fsdp,ddp"), r"use one of the two levers"),
    ],
)
def test_what_cannot_be_shared_is_refused_in_a_sentence(make, words):
    with pytest.raises(UsageError, match=words):
        make()
