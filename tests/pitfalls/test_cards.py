"""A card is not what its box says: others use it, Windows lends it memory, and a cap does not make it another one."""

from pathlib import Path

import pytest
from scripted_card import ScriptedCard, hungry_job, measured_backend, other_process

from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.measure import trial
from vramfit.measure.budget import read_budget
from vramfit.measure.memory import MemoryFigures
from vramfit.measure.trial import judge, run_trial
from vramfit.probe.probe import Probe
from vramfit.probe.request import ProbeRequest
from vramfit.records import Budget, Verdict
from vramfit.training.memory_limit import budget_now
from vramfit.units import GIB, MIB


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(trial, "ENOUGH_SECONDS", 0.0)


def test_what_others_take_is_read_before_a_trial(monkeypatch):
    """A game or a browser holds a part of the card, which no batch can have."""
    crowded = ScriptedCard(others=(other_process(2 * GIB),))
    backend = measured_backend(crowded, monkeypatch)
    assert backend.budget.other_processes_bytes == 2 * GIB
    assert Probe(backend, ProbeRequest(objective="largest"), lambda _: None).plan().micro_batch == 5


def test_what_others_take_during_a_trial_is_read_after_it(monkeypatch):
    """Its verdict may be too strict, and the run may have less: both are said."""
    card = ScriptedCard()
    backend = measured_backend(card, monkeypatch)
    backend.trial(3)
    assert backend.notes == []
    whole = card.trial

    def crowded(size, budget):
        card.others = (other_process(2 * GIB),)
        return whole(size, budget)

    monkeypatch.setattr(card, "trial", crowded)
    backend.trial(4)
    assert backend.notes[0].startswith("Another program took 2.00 GiB of the card while batch 4 was tried")


def test_what_others_take_is_read_again_at_the_start_of_training():
    """Hours may lie between a profile and its run."""
    card = ScriptedCard()
    planned = read_budget(card)
    card.others = (other_process(2 * GIB, "game.exe", 77),)
    budget, notes = budget_now(card, LandmarkOptions(dataset_path=Path("films")), planned)
    assert budget.budget_bytes == 6 * GIB
    assert "2.00 GiB less is free than the profile assumed; on the card: game.exe (pid 77)" in notes[0]


def laptop(**changes):
    """An 8 GiB card that says it has 20, for the rest is the system's: an image takes three times as long there.

    Users measured 25.8 s a step at 7.4 GiB, 98.5 at 9.2 and 309 at 11.8, and no error.
    """
    settings = {"capacity_bytes": 20 * GIB, "spills": True, "seconds": lambda n: n * (5.0 if n < 8 else 15.0)}
    return ScriptedCard(**(settings | changes))


def test_a_spill_is_seen_where_more_is_reserved_than_the_card_has():
    """The driver refuses nothing, so what it gave is compared with what there is."""
    figures = MemoryFigures(7 * GIB, 7 * GIB, GIB + MIB, 0)
    eight = Budget(total_bytes=8 * GIB)
    assert judge(figures, eight, 0, total_bytes=8 * GIB) is Verdict.SPILLED
    assert judge(figures, eight, 0) is Verdict.OVER_BUDGET
    assert judge(figures, Budget(total_bytes=9 * GIB), 0, total_bytes=9 * GIB) is Verdict.FITS


def test_the_cap_of_the_allocator_refuses_where_windows_would_not():
    """With a limit at the budget the allocator itself raises, before the driver lends memory."""
    card = laptop()
    capped = run_trial(hungry_job(card), 12, Budget(total_bytes=20 * GIB, requested_bytes=8 * GIB), card)
    assert capped.verdict is Verdict.OOM
    assert run_trial(hungry_job(card), 12, Budget(total_bytes=20 * GIB), card).verdict is Verdict.FITS


def test_a_cliff_of_the_step_time_is_a_spill_and_the_setting_is_named(monkeypatch):
    """The larger one was tried first, as a search does: it is seen for what it is once the smaller one was tried."""
    backend = measured_backend(laptop(), monkeypatch)
    spilled, small = backend.reviewed([backend.trial(9), backend.trial(6)])
    assert small.verdict is Verdict.FITS
    assert spilled.verdict is Verdict.SPILLED
    assert "3.0 times as long" in spilled.note
    assert "Sysmem Fallback Policy" in spilled.note


@pytest.mark.parametrize("guessed", [15, 12, 9, 7, 5, 2, 1])
def test_a_cliff_is_made_visible_by_a_smaller_batch_tried_beside_the_largest(monkeypatch, guessed):
    """Though everything up to 19 runs to its end, and even where the prediction is of twice what fits."""
    backend = measured_backend(laptop(), monkeypatch, guessed)
    under_way = Probe(backend, ProbeRequest(objective="largest"), lambda _: None)
    assert under_way.plan().micro_batch == 7
    assert min(one.micro_batch for one in under_way.trials) <= 3
    assert len(under_way.trials) <= 9


def test_a_cliff_is_seen_in_a_users_list_too_and_the_answer_is_from_the_list(monkeypatch):
    """12 and 10 run, but beside 6 and 5 they are slow."""
    under_way = Probe(measured_backend(laptop(), monkeypatch), ProbeRequest(batch_sizes=(12, 10, 5)), lambda _: None)
    assert under_way.plan().micro_batch == 5
    assert [one.micro_batch for one in under_way.trials] == [12, 6, 10, 5, 2]


def test_a_cliff_where_no_driver_spills_is_only_slow(monkeypatch):
    """On Linux memory that cannot be had is refused."""
    backend = measured_backend(laptop(spills=False), monkeypatch)
    assert [one.verdict for one in backend.reviewed([backend.trial(6), backend.trial(9)])] == [Verdict.FITS] * 2


def test_a_capped_big_card_is_not_a_small_card_and_its_rows_say_so():
    """Its memory is honest, but another chip picks other kernels: such rows are emulated."""
    card = ScriptedCard(capacity_bytes=24 * GIB)
    small = Budget(total_bytes=24 * GIB, requested_bytes=4 * GIB)
    assert run_trial(hungry_job(card), 3, small, card).emulated
    assert run_trial(hungry_job(card), 6, small, card).verdict is Verdict.OOM
    assert not run_trial(hungry_job(card), 6, Budget(total_bytes=24 * GIB), card).emulated
