import pytest
from scripted_card import ScriptedCard, other_process, this_process

from vramfit.errors import UsageError
from vramfit.measure.budget import is_emulated, read_budget, who_took
from vramfit.units import GIB, MIB, MemoryLimits


def test_every_part_is_shown():
    card = ScriptedCard(driver_bytes_kept=300 * MIB, others=(other_process(GIB),))
    budget = read_budget(card, MemoryLimits.parse(vram="7GB", reserve="600MB"))
    assert budget.total_bytes == 8 * GIB
    assert budget.driver_bytes == 300 * MIB
    assert budget.other_processes_bytes == GIB
    assert budget.reserve_bytes == 600 * MIB
    assert budget.free_bytes == 7 * GIB - 900 * MIB
    assert budget.budget_bytes == budget.free_bytes
    assert budget.notes == (
        "game.exe (pid 4242) holds 1.00 GiB",
        "7.00 GiB were asked for, 6.12 GiB are free: the smaller is the budget.",
    )


def test_what_was_asked_for_is_the_limit_where_it_is_free():
    budget = read_budget(ScriptedCard(capacity_bytes=24 * GIB), MemoryLimits.parse(vram="8GB"))
    assert budget.budget_bytes == 8 * GIB
    assert is_emulated(budget)
    assert not is_emulated(read_budget(ScriptedCard(), MemoryLimits.parse(vram="8GB")))
    assert not is_emulated(read_budget(ScriptedCard()))


def test_what_this_process_holds_is_its_own():
    card = ScriptedCard(others=(this_process(2 * GIB), other_process(GIB)))
    budget = read_budget(card)
    assert budget.other_processes_bytes == GIB
    assert all("game.exe" in note for note in budget.notes)


def test_windows_does_not_tell_who_holds_how_much():
    card = ScriptedCard(spills=True, others=(other_process(None),))
    assert "does not tell" in read_budget(card).notes[0]


def test_nothing_left():
    with pytest.raises(UsageError, match=r"8\.00 GiB are in use"):
        read_budget(ScriptedCard(others=(other_process(8 * GIB),)))


@pytest.mark.parametrize("size", ["8 bananas", 0, -5])
def test_sizes_that_are_none(size):
    with pytest.raises(UsageError):
        read_budget(ScriptedCard(), MemoryLimits.parse(vram=size))


def test_memory_that_was_free_before_is_missed_by_name():
    before = read_budget(ScriptedCard())
    crowded = ScriptedCard(others=(other_process(2 * GIB),))
    now = read_budget(crowded)
    assert who_took(before, before, ()) is None
    assert who_took(before, now, crowded.processes) == (
        "2.00 GiB less is free than the profile assumed; on the card: game.exe (pid 4242) holds 2.00 GiB."
    )
