"""The probe on scripted backends: what it tries, what it chooses, and what it says."""

from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from made_records import make_trial
from scripted_card import ScriptedCard, measured_backend
from torch import nn

import vramfit
from vramfit.errors import NothingFits, NotTraceable, NoUsableGpu, UsageError, VramfitError
from vramfit.jobs.job import Job, job_key
from vramfit.measure import backend as backend_module
from vramfit.measure.backend import MeasuredBackend
from vramfit.measure.budget import read_budget
from vramfit.probe.backend import PredictedBackend, _guesser
from vramfit.probe.fit import run_probe, with_free_levers
from vramfit.probe.probe import Probe
from vramfit.probe.request import MemoryLimits, ProbeRequest
from vramfit.records import Budget, Lever, Machine, Schedule
from vramfit.report.table import remarks
from vramfit.units import GIB

CHANNELS_LAST = Lever(name="channels_last")


@dataclass
class ScriptedBackend:
    card: ScriptedCard
    guessed: int | None = None
    source: str = "measured"
    machine: Machine = field(default_factory=Machine)
    notes: list = field(default_factory=list)

    def __post_init__(self):
        self.budget = read_budget(self.card)
        self.can_spill = self.card.can_spill

    def trial(self, micro_batch):
        return self.card.trial(micro_batch, self.budget)

    def reviewed(self, trials):
        return trials

    def guess(self, maximum):
        return self.guessed


def probe(card, guessed=None, **wanted):
    return Probe(ScriptedBackend(card, guessed), ProbeRequest(**wanted), lambda _: None)


def test_the_table_runs_from_one_to_one_past_and_every_row_was_measured():
    under_way = probe(ScriptedCard(), guessed=6, objective="fastest")
    plan = under_way.plan()
    assert [trial.micro_batch for trial in under_way._latest()] == list(range(1, 9))
    assert plan.micro_batch == 6
    assert plan.reason == "batch 6: 7 fits too, but is only 1% faster."
    assert under_way.backend.card.ooms == 1


def test_largest_costs_a_handful_of_trials():
    under_way = probe(ScriptedCard(), guessed=7, objective="largest")
    assert under_way.plan().reason == "batch 7: 8 runs out of memory."
    assert len(under_way.trials) <= 4


def test_fastest_is_not_always_largest():
    card = ScriptedCard(seconds=lambda n: 0.1 * n if n < 5 else 0.3 * n)
    assert probe(card, objective="fastest").plan().micro_batch == 1
    assert probe(card, objective="largest").plan().micro_batch == 7


def test_a_users_list_is_tried_in_order_and_the_first_that_fits_is_taken():
    under_way = probe(ScriptedCard(per_image_bytes=int(1.3 * GIB)), batch_sizes=(6, 5, 4))
    assert under_way.plan().micro_batch == 5
    assert [trial.micro_batch for trial in under_way.trials] == [6, 5]
    with pytest.raises(NothingFits, match=r"No batch of 9, 8 fits 8\.00 GiB"):
        probe(ScriptedCard(), batch_sizes=(9, 8)).plan()


def test_the_data_set_and_the_effective_batch_are_limits():
    small = probe(ScriptedCard(), guessed=7, schedule=Schedule(images=3))
    assert small.plan().micro_batch <= 3
    assert max(small.backend.card.sizes) == 3


def test_an_effective_batch_is_split_into_a_size_that_was_run():
    under_way = probe(ScriptedCard(), objective="largest", effective_batch=9)
    plan = under_way.plan(batch_norm=True)
    assert (plan.micro_batch, plan.accumulation_steps, plan.effective_batch) == (5, 2, 9)
    assert plan.last_micro_batch == 4
    assert plan.micro_batch in under_way.backend.card.sizes
    assert "5 and a last one of 4" in plan.notes[0]
    assert "BatchNorm sees micro-batches of 5" in plan.notes[1]


def test_nothing_fits_and_every_trial_was_told():
    told = []
    under_way = Probe(ScriptedBackend(ScriptedCard(fixed_bytes=8 * GIB), 4), ProbeRequest(), told.append)
    with pytest.raises(NothingFits, match=r"Not even batch 1 fits 8\.00 GiB"):
        under_way.plan()
    assert [trial.micro_batch for trial in told] == under_way.backend.card.sizes
    assert told[-1].micro_batch == 1


def test_a_child_killed_once_costs_one_trial():
    @dataclass
    class KilledOnce(ScriptedBackend):
        def trial(self, micro_batch):
            self.card.killed_at = (7,) if 7 not in self.card.sizes else ()
            return super().trial(micro_batch)

    under_way = Probe(KilledOnce(ScriptedCard(), 7), ProbeRequest(objective="largest"), lambda _: None)
    assert under_way.plan().micro_batch == 7
    assert under_way.backend.card.sizes.count(7) == 2


def test_a_size_that_is_always_killed_does_not_fit():
    under_way = probe(ScriptedCard(killed_at=(5,)), guessed=7, objective="largest")
    assert under_way.plan().micro_batch in (4, 7)
    with pytest.raises(VramfitError, match="Batch 1 could not be tried"):
        probe(ScriptedCard(killed_at=tuple(range(1, 20))), guessed=7).plan()


def test_memory_that_does_not_grow_evenly_is_said():
    card = ScriptedCard(extra=lambda n: 7 * GIB if n == 3 else 0)
    under_way = probe(card, guessed=7, objective="fastest")
    assert under_way.plan().micro_batch == 6
    assert under_way.backend.notes == ["Memory does not grow evenly here: batch 7 fits and 3 does not."]


def test_where_nothing_spills_no_trial_is_spent_on_it():
    under_way = probe(ScriptedCard(), guessed=7, objective="largest")
    under_way.plan()
    assert min(trial.micro_batch for trial in under_way.trials) == 6


def test_a_predicted_table_stops_one_past_the_largest_that_fits():
    predictor = SimpleNamespace(
        trial=partial(make_trial, budget_gib=49), largest_that_fits=lambda _: 48, holds=lambda _: True
    )
    backend = PredictedBackend(predictor, Budget(total_bytes=49 * GIB), Machine(torch="2.15.0"))
    tried = []
    under_way = Probe(backend, ProbeRequest(objective="largest"), lambda trial: tried.append(trial.micro_batch))
    assert under_way.plan().reason.startswith("batch 48: 49 exceeds")
    assert sorted(tried) == [1, 2, 4, 8, 16, 32, 48, 49]
    assert max(trial.micro_batch for trial in under_way.trials) == 49


def test_a_predicted_table_that_ends_at_the_data_set_says_so_where_a_smaller_batch_is_as_fast():
    predictor = SimpleNamespace(
        trial=lambda size: make_trial(size, step_time_s=0.01 * size),
        largest_that_fits=lambda most: most,
        holds=lambda _: 1,
    )
    backend = PredictedBackend(predictor, Budget(total_bytes=49 * GIB), Machine(torch="2.15.0"))
    plan = Probe(backend, ProbeRequest(schedule=Schedule(images=5)), lambda _: None).plan()
    assert plan.micro_batch == 1
    assert plan.notes[-1] == "The table ends at batch 5: it is the whole data set, an epoch has 5 images."


def test_a_card_that_cannot_be_predicted_is_searched_without(monkeypatch):
    def refuse(maximum):
        raise NotTraceable("aten::nonzero in line 7")

    backend = measured_backend(ScriptedCard(), monkeypatch)
    backend.predicted = refuse
    assert backend.guess(100) is None
    assert backend.notes == ["Searched without a prediction: aten::nonzero in line 7"]


class Predictor:
    """Takes 0.5 GiB and 1 GiB an image in the middle of its range, 10 % more at the end of it; fits 8 GiB for sure."""

    def __init__(self, *_):
        pass

    def trial(self, size):
        return SimpleNamespace(device_used_bytes=int((0.5 + size) * GIB))

    def largest_that_fits(self, maximum):
        return min(maximum, 6)


def test_the_search_begins_from_the_likeliest_size_and_not_from_the_safest(monkeypatch):
    monkeypatch.setattr("vramfit.prediction.predict.Predictor", Predictor)
    monkeypatch.setattr("vramfit.probe.backend.find_card", lambda _, total_bytes: None)
    card = ScriptedCard()
    assert _guesser(None, card, read_budget(card), ProbeRequest())(100) == 7
    assert _guesser(None, card, read_budget(card), ProbeRequest())(6) == 6
    assert _guesser(None, card, read_budget(card, MemoryLimits.parse(vram="20GB")), ProbeRequest())(1) == 1


def batch(size):
    return torch.randn(size, 8), torch.randn(size, 1)


def small_job():
    return Job(
        model=partial(nn.Linear, 8, 1),
        batch=batch,
        loss=nn.functional.mse_loss,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        amp=None,
        name="small",
    )


def test_fit_predicts_for_a_named_card_and_the_profile_loads_back():
    trials = []
    profile = vramfit.fit(
        small_job(),
        gpu="rtx3070ti",
        vram="4GB",
        objective="largest",
        schedule=Schedule(images=6),
        on_trial=trials.append,
    )
    assert profile.source == "predicted"
    assert profile.plan.micro_batch == 6
    assert profile.plan.reason == "batch 6: it is the whole data set, an epoch has 6 images."
    assert profile.budget.budget_bytes == 4 * GIB
    assert profile.job.name == "small"
    assert [trial.micro_batch for trial in profile.trials] == list(range(1, 7))
    assert {trial.micro_batch for trial in trials} == set(range(1, 7))
    assert vramfit.Profile.from_json(profile.to_json()) == profile


def test_a_card_without_bf16_is_told_of_below_the_table():
    asked = {"batch_sizes": [2], "schedule": Schedule(images=6)}
    profile = vramfit.fit(replace(small_job(), amp="bf16"), gpu="t4", **asked)
    assert any("T4 (compute capability 7.5) has no bf16" in note for note in profile.notes)
    levered = replace(small_job(), levers=(Lever(name="amp", setting="bf16"),))
    assert any("has no bf16" in note for note in vramfit.fit(levered, gpu="t4", **asked).notes)
    assert vramfit.fit(replace(small_job(), amp="bf16"), gpu="rtx3070ti", **asked).notes == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "guess"},
        {"mode": "measure", "gpu": "rtx3090"},
        {"batch_sizes": []},
        {"batch_sizes": [4, 0]},
        {"effective_batch": 0},
        {"effective_batch": 4, "batch_sizes": [6, 5]},
        {"vram": "8 bananas"},
        {"gpu": "rtx9999"},
    ],
)
def test_arguments_that_make_no_sense(wrong):
    with pytest.raises(UsageError):
        vramfit.fit(small_job(), **wrong)


def conv_job(**changes):
    job = Job(
        model=partial(nn.Conv2d, 1, 1, 3),
        batch=batch,
        loss=nn.functional.mse_loss,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        amp=None,
    )
    return replace(job, **changes)


def ordered(monkeypatch, nhwc, job=None, **known):
    """The profile of a measured probe, and the levers of each trial; `nhwc` is the card with channels_last."""
    tried = []

    def measure(source, size, budget, **_):
        levers = (source if isinstance(source, Job) else source()).levers
        tried.append(levers)
        card = nhwc if CHANNELS_LAST in levers else ScriptedCard()
        return card.trial(size, budget)

    monkeypatch.setattr(backend_module, "measure_trial", measure)
    job, card = job or conv_job(), ScriptedCard()
    request = ProbeRequest(objective="largest", schedule=Schedule(images=20))
    backend = MeasuredBackend(job, card, read_budget(card), request.schedule, lambda _: 5)
    return Probe(backend, request, lambda _: None, **known).profile(job), tried


def test_channels_last_is_used_where_it_was_measured_to_be_faster(monkeypatch):
    quick = ScriptedCard(seconds=lambda n: 0.015 * n, per_image_bytes=GIB // 2)
    profile, tried = ordered(monkeypatch, quick)
    assert profile.plan.levers == (CHANNELS_LAST,)
    assert profile.plan.notes[-1] == (
        "channels_last: batch 7 takes 105 ms a step with it and 150 ms without; the plan uses it."
    )
    assert tried.count((CHANNELS_LAST,)) == 1
    # The row of the plan is the one that it trains with, and the profile is for a job with the lever.
    assert profile.trial(7).step_time_s == pytest.approx(0.105)
    assert profile.job == job_key(conv_job(levers=(CHANNELS_LAST,)))


@pytest.mark.parametrize(
    ("nhwc", "says"),
    [
        (ScriptedCard(seconds=lambda n: 0.0099 + 0.02 * n), "takes 150 ms a step with it and 150 ms without; left off"),
        (ScriptedCard(per_image_bytes=2 * GIB, seconds=lambda n: 0.001), "does not fit with it; left off"),
    ],
)
def test_channels_last_is_left_off_where_it_is_no_faster_or_does_not_fit(monkeypatch, nhwc, says):
    profile, _ = ordered(monkeypatch, nhwc)
    assert profile.plan.levers == ()
    assert says in profile.plan.notes[-1]
    assert profile.trial(7).step_time_s == pytest.approx(0.15)


@pytest.mark.parametrize(
    "asked",
    [
        {"channels_last": True},
        {"levers": (Lever(name="channels_last", setting="off"),)},
        {"model": partial(nn.Linear, 8, 1)},
    ],
)
def test_a_memory_order_that_was_asked_for_or_means_nothing_is_not_tried(monkeypatch, asked):
    profile, tried = ordered(monkeypatch, ScriptedCard(seconds=lambda n: 0.001), conv_job(**asked))
    assert profile.plan.levers == asked.get("levers", ())
    assert (CHANNELS_LAST,) not in tried


def test_a_memory_order_that_was_only_predicted_is_measured_both_ways(monkeypatch):
    predicted, slow = conv_job(levers=(CHANNELS_LAST,)), ScriptedCard(seconds=lambda n: 0.03 * n)
    profile, _ = ordered(monkeypatch, slow, predicted, predicted_levers=frozenset({"channels_last"}))
    assert profile.plan.levers == ()
    assert profile.plan.notes[-1].endswith("takes 210 ms a step with it and 150 ms without; left off.")
    assert (profile.trial(7).step_time_s, profile.job) == (pytest.approx(0.15), job_key(conv_job()))
    quick = ScriptedCard(seconds=lambda n: 0.01 * n)
    profile, _ = ordered(monkeypatch, quick, predicted, predicted_levers=frozenset({"channels_last"}))
    assert profile.plan.levers == (CHANNELS_LAST,)
    assert profile.trial(7).step_time_s == pytest.approx(0.07)


def test_a_prediction_does_not_judge_the_memory_order():
    profile = vramfit.fit(small_job(), gpu="rtx3070ti", vram="4GB", batch_sizes=[2])
    assert not any("channels_last" in note for note in profile.plan.notes)


def test_without_a_card_and_without_a_name_the_profile_says_for_which_card_it_is(monkeypatch):
    def no_device():
        raise NoUsableGpu("none")

    monkeypatch.setattr("vramfit.probe.backend.local_device", no_device)
    profile = vramfit.fit(small_job(), vram="8GB", schedule=Schedule(images=2))
    assert "No GPU is here and none was named: predicted for the RTX 3070 Ti." in profile.notes


@pytest.mark.parametrize("size", [8, 0, 8 * 1024])
def test_a_memory_size_of_a_few_bytes_is_refused(size):
    with pytest.raises(UsageError, match="write '8GB'"):
        vramfit.fit(small_job(), vram=size, gpu="rtx3070ti")


def test_a_network_in_place_of_its_maker_is_refused():
    with pytest.raises(UsageError, match="write model=lambda"):
        replace(small_job(), model=nn.Linear(8, 1))


def upsampling_job() -> Job:
    return replace(
        small_job(),
        model=lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Upsample(scale_factor=2), nn.Flatten(), nn.LazyLinear(1)
        ),
        batch=lambda n: (torch.zeros(n, 3, 8, 8), torch.zeros(n, 1)),
        amp="fp16",
    )


def test_levers_that_cost_nothing_are_used_where_they_are_asked_for():
    request = ProbeRequest(gpu="rtx3070ti", batch_sizes=(2,), free_levers=True)
    profile = run_probe(upsampling_job(), request)
    used = {lever.name for lever in profile.plan.levers}
    assert {"half_upsample", "fused_optimizer"} <= used
    assert used <= {"half_upsample", "fused_optimizer", "expandable_segments", "channels_last"}
    assert run_probe(upsampling_job(), replace(request, free_levers=False)).plan.levers == ()
    assert any("--levers none leaves them out" in line for line in remarks(profile))


def test_an_optimizer_that_wants_particular_parameters_is_no_reason_to_fail():
    def choosy(parameters):
        first, *_, last = [one for one in parameters if one.dim() > 1]
        return torch.optim.AdamW([first, last], lr=0.1)

    job = replace(upsampling_job(), optimizer=choosy)
    levers = with_free_levers(job, ProbeRequest(gpu="rtx3070ti", free_levers=True)).levers
    assert "fused_optimizer" not in {lever.name for lever in levers}
