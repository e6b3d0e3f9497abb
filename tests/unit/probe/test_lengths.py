"""What fits at each length, predicted for a card that is not here, and measured on a scripted one."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from made_lengths import skewed_lengths
from scripted_card import ScriptedCard, hungry_job
from torch import nn

import vramfit
from vramfit.errors import NothingFits, UsageError
from vramfit.jobs.axis import at_length
from vramfit.jobs.job import Job
from vramfit.measure import backend as measured
from vramfit.plan.lengths import Lengths
from vramfit.probe import backend
from vramfit.probe.lengths import LengthRequest, fit_lengths, prove_lengths
from vramfit.probe.longest import LongestSearch
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.records import Verdict
from vramfit.units import GIB, KIB


class Attention(nn.Module):
    """Attention that keeps its scores, so that memory grows with the square of the length."""

    def __init__(self, positions=400):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(positions, 32))
        self.mix = nn.Linear(32, 32)

    def forward(self, rows):
        rows = self.mix(rows + self.positions[: rows.shape[1]].reshape(1, rows.shape[1], 32))
        return (rows @ rows.transpose(1, 2)).softmax(-1) @ rows


def batch(samples, tokens=16):
    return torch.zeros(samples, tokens, 32), torch.zeros(samples, tokens, 32)


JOB = Job(
    model=Attention,
    batch=batch,
    loss=nn.functional.mse_loss,
    optimizer=partial(torch.optim.SGD, lr=0.1),
    amp=None,
    name="attention",
)


def test_each_batch_fits_and_one_more_does_not():
    plan = fit_lengths(JOB, axis="tokens", lengths=skewed_lengths(500, 256), gpu="rtx3060", vram="600MB", buckets=2)
    assert [one.length for one in plan.proven][-1] == (256,)
    assert plan.counted
    for one in plan.proven:
        sized = at_length(JOB, "tokens", one.length)
        assert one.trial.verdict == "fits"
        most = min(500, one.trial.micro_batch + 1)
        beyond = vramfit.predict(sized, micro_batch=most, gpu="rtx3060", vram="600MB")
        assert (beyond.verdict != "fits") == (most > one.trial.micro_batch)
    assert sum(one.samples for one in plan.proven) == 500


def test_attention_costs_more_than_its_tokens():
    plan = fit_lengths(JOB, axis="tokens", lengths="100:400:300", gpu="rtx3060", vram="2GB", buckets=2)
    short, long = plan.proven
    assert long.tokens < 0.7 * short.tokens
    assert not plan.counted


def test_samples_that_do_not_fit_even_alone_are_named():
    with pytest.raises(NothingFits, match=r"Samples of tokens 300 are too long: .* leave the longest out"):
        fit_lengths(JOB, axis="tokens", lengths="300:300", gpu="rtx3060", vram="300MB")
    with pytest.raises(UsageError, match="buckets is 0"):
        fit_lengths(JOB, axis="tokens", lengths=[3], gpu="rtx3060", buckets=0)


def search(job, batch_size, vram, multiple=8):
    request = ProbeRequest(limits=MemoryLimits.parse(vram=vram), gpu="rtx3060")
    return LongestSearch(partial(at_length, job, "tokens"), "tokens", batch_size, request, multiple, lambda *_: None)


def test_the_longest_samples_of_a_batch():
    found = search(replace(JOB, model=partial(Attention, 100_000)), 64, "1GB").run()
    fitting = [length for length, trial in found if trial.verdict == "fits"]
    longer = (fitting[-1][0] + 8,)
    assert dict(found)[longer].verdict != "fits"
    assert all(length < longer for length in fitting)


def test_the_networks_own_limit_ends_the_search_and_is_told():
    one = search(JOB, 2, "4GB")
    assert max(length for length, trial in one.run() if trial.verdict == "fits") == (400,)
    assert one.notes[0].startswith("Samples of 408 are refused: the step of 'attention' cannot be traced")


def test_a_batch_that_no_length_fits_is_refused():
    with pytest.raises(NothingFits, match=r"Batch 1000000 does not fit in .* even with samples of 8: it"):
        search(JOB, 1_000_000, "1GB").run()


def test_between_lengths_that_are_searched_one_trial_proves_a_batch_near_the_largest(monkeypatch):
    card = ScriptedCard(capacity_bytes=8 * GIB)

    def trial(job, size, budget, **_):
        card.per_image_bytes = 48 * KIB * cost(job.batch.keywords["tokens"])
        return card.trial(size, budget)

    def cost(tokens):
        return tokens + tokens * tokens // 64

    monkeypatch.setattr(measured, "measure_trial", trial)
    monkeypatch.setattr(backend, "local_device", lambda: card)
    tried = []
    job = replace(hungry_job(card), batch=lambda samples, tokens=4: batch(samples, tokens))
    asked = LengthRequest(axis="tokens", lengths=Lengths.of(skewed_lengths(5000, 512)), buckets=20)
    plan = prove_lengths(
        partial(at_length, job, "tokens"), asked, ProbeRequest(), lambda length, one: tried.append(length)
    )
    assert len(plan.proven) == 20
    for one in plan.proven:
        trial(at_length(job, "tokens", one.length), 1, plan.budget)
        largest = min(5000, card.true_limit)
        assert 0.95 * largest - 1 <= one.trial.micro_batch <= largest, one.length
    assert sum(tried.count(one.length) <= 2 for one in plan.proven) >= 14


def test_between_lengths_a_batch_that_is_slow_by_spilling_is_no_answer(monkeypatch):
    """A driver that lends system memory: at two lengths less fits than their neighbours suggest, and time tells."""
    card = ScriptedCard(capacity_bytes=8 * GIB, spills=True)

    def limit(tokens):
        return 4000 // tokens // (1 if tokens in (80, 10) else 3)

    def trial(job, size, budget, **_):
        tokens = job.batch.keywords["tokens"]
        one = card.trial(1, budget)
        slow = 1 if size <= limit(tokens) else 8
        verdict = "fits" if size <= 2 * (4000 // tokens) else "oom"
        return one.model_copy(
            update={"micro_batch": size, "verdict": Verdict(verdict), "step_time_s": 0.01 * size * slow}
        )

    monkeypatch.setattr(measured, "measure_trial", trial)
    monkeypatch.setattr(backend, "local_device", lambda: card)
    job = replace(hungry_job(card), batch=lambda samples, tokens=4: batch(samples, tokens))
    asked = LengthRequest(axis="tokens", lengths=Lengths.of([*range(10, 90, 10)] * 900), buckets=8)
    plan = prove_lengths(partial(at_length, job, "tokens"), asked, ProbeRequest())
    assert len(plan.proven) == 8
    for one in plan.proven:
        assert one.trial.verdict is Verdict.FITS
        assert one.trial.micro_batch <= limit(one.length[0]), one.length


def test_on_a_card_each_length_is_measured(monkeypatch):
    """The largest batch by the card's own arithmetic, and the card is asked about no length but the chosen ones."""
    card = ScriptedCard(capacity_bytes=8 * GIB, per_image_bytes=0)

    def trial(job, size, budget, **_):
        tokens = job.batch.keywords["tokens"]
        card.per_image_bytes = 256 * KIB * (tokens + tokens * tokens // 64)
        return card.trial(size, budget)

    monkeypatch.setattr(measured, "measure_trial", trial)
    monkeypatch.setattr(backend, "local_device", lambda: card)
    job = replace(hungry_job(card), batch=lambda samples, tokens=4: batch(samples, tokens))
    asked = LengthRequest(axis="tokens", lengths=Lengths.of([20, 60, 60, 200]), buckets=3)
    plan = prove_lengths(partial(at_length, job, "tokens"), asked, ProbeRequest())
    assert plan.source == "measured"
    for one in plan.proven:
        trial(at_length(job, "tokens", one.length), 1, plan.budget)
        assert one.trial.micro_batch == min(4, card.true_limit)
