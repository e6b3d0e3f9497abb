"""The one record of a probe's question: its defaults, what it refuses, and that it alone decides what is asked."""

from dataclasses import FrozenInstanceError, replace
from inspect import signature

import pytest
import small_runs as small
from scripted_card import ScriptedCard

import vramfit
from vramfit.cli.probe import probe
from vramfit.cli.probe_request import schedule_of
from vramfit.errors import NoUsableGpu, UsageError
from vramfit.measure.budget import read_budget
from vramfit.prediction.frontier import Frontier, FrontierRow
from vramfit.probe import fit as fitting
from vramfit.probe.backend import card_here
from vramfit.probe.request import MOST_UNASKED, MemoryLimits, ProbeRequest
from vramfit.records import Schedule
from vramfit.units import GIB, MIB


def test_a_request_cannot_change():
    with pytest.raises(FrozenInstanceError):
        ProbeRequest().gpu = "t4"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mode": "guess"}, "mode is 'guess'; use auto, measure or predict."),
        ({"mode": "measure", "gpu": "t4"}, "gpu (--gpu) 't4' is always predicted; leave one of them out."),
        ({"batch_sizes": ()}, "batch_sizes needs at least one size"),
        ({"batch_sizes": (4, 0)}, "each 1 or more"),
        ({"batch_sizes": (6, 5), "effective_batch": 4}, "name one of 4 or less."),
        ({"batch_sizes": (6, 5), "choose_levers": True}, "name it with --batch-size in place of --batch-sizes."),
        ({"effective_batch": 0}, "effective_batch is 0; use 1 or more."),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wrong, says):
    with pytest.raises(UsageError) as refused:
        ProbeRequest(**wrong)
    assert says in str(refused.value)


def test_a_change_is_checked_as_the_request_was():
    with pytest.raises(UsageError, match="always predicted"):
        replace(ProbeRequest(mode="measure"), gpu="t4")


@pytest.mark.parametrize(("effective", "most"), [(None, 700), (6, 6), (900, 700)])
def test_no_micro_batch_is_larger_than_the_data_or_the_effective_batch(effective, most):
    assert ProbeRequest(effective_batch=effective).maximum == most


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"vram": "8 bananas"}, "vram: '8 bananas' is not a memory size"),
        ({"reserve": "much"}, "reserve: 'much' is not a memory size"),
        ({"vram": 8}, "vram is 8 bytes"),
        ({"reserve": 0}, "reserve is 0 bytes"),
    ],
)
def test_a_limit_that_is_none_is_refused_by_name(wrong, says):
    with pytest.raises(UsageError, match=says):
        MemoryLimits.parse(**wrong)


def test_limits_reach_the_budget():
    limits = MemoryLimits.parse(vram="7GB", reserve=600 * MIB)
    budget = read_budget(ScriptedCard(), limits)
    assert (budget.requested_bytes, budget.reserve_bytes) == (7 * GIB, 600 * MIB)
    assert limits.or_vram(4 * GIB) == limits
    assert MemoryLimits().or_vram(4 * GIB) == MemoryLimits(vram_bytes=4 * GIB)


@pytest.mark.parametrize("face", [vramfit.fit, probe])
def test_the_defaults_of_python_and_the_command_line_are_those_of_the_request(face):
    """Also where they are one object: a default that is spelled again would pass until one of the two changes."""
    request = ProbeRequest()
    given = {name: parameter.default for name, parameter in signature(face).parameters.items()}
    for name in ("mode", "gpu", "objective", "effective_batch", "batch_sizes", "fresh"):
        assert given.get(name, getattr(request, name)) == getattr(request, name)
    for name in ("images", "epochs"):  # None where nothing is said
        assert given.get(name) in (None, getattr(request.schedule, name))
    assert schedule_of(None, None, is_known=True) == request.schedule


@pytest.mark.parametrize(
    ("images", "epochs", "is_known", "expected"),
    [
        (None, None, True, Schedule()),
        (None, None, False, Schedule(assumed=True)),
        (5000, None, False, Schedule(images=5000)),
        (None, 3, False, Schedule(epochs=3)),
    ],
)
def test_a_run_of_which_nobody_says_how_long_it_is_is_assumed(images, epochs, is_known, expected):
    assert schedule_of(images, epochs, is_known=is_known) == expected


def test_an_assumed_data_set_limits_no_batch_at_its_size():
    assert ProbeRequest(schedule=Schedule(assumed=True)).maximum == MOST_UNASKED > Schedule().images
    assert ProbeRequest(schedule=Schedule(assumed=True), effective_batch=32).maximum == 32
    assert ProbeRequest(schedule=Schedule(images=50)).maximum == 50


def test_levers_that_are_left_to_choose_are_chosen_and_their_batch_alone_is_tried(monkeypatch):
    asked = []

    def levers_for(job, request):
        asked.append(request)
        trial = vramfit.predict(job, micro_batch=3, gpu="rtx3060")
        row = FrontierRow(label="accumulation", levers=(), trial=trial, accumulation_steps=2, reason="why", chosen=True)
        return Frontier(rows=(row,))

    monkeypatch.setattr(fitting, "levers_for", levers_for)
    request = ProbeRequest(gpu="rtx3060", batch_sizes=(6,), choose_levers=True)
    profile = fitting.run_probe(small.job(), request)
    assert asked == [request]
    assert [trial.micro_batch for trial in profile.trials] == [3]
    assert (profile.plan.effective_batch, profile.plan.accumulation_steps) == (6, 2)
    assert profile.plan.reason == "batch 3: why."


@pytest.mark.parametrize("choose_levers", [False, True])
def test_without_a_gpu_a_measurement_is_refused_whatever_is_asked_beside_it(monkeypatch, choose_levers):
    def no_device():
        raise NoUsableGpu("none")

    monkeypatch.setattr("vramfit.probe.backend.local_device", no_device)
    request = ProbeRequest(mode="measure", choose_levers=choose_levers)
    with pytest.raises(NoUsableGpu):
        fitting.run_probe(small.job(), request)
    assert card_here(replace(request, mode="auto")) is None


def test_no_levers_are_chosen_for_more_than_the_effective_batch():
    rows = fitting.levers_for(small.job(), ProbeRequest(gpu="rtx3060", effective_batch=4)).rows
    assert max(row.trial.micro_batch for row in rows) == 4
