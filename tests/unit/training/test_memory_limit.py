"""The card is capped before anything is built on it, at what is free at that moment."""

from pathlib import Path

import pytest
import torch
from scripted_card import ScriptedCard, other_process

from vramfit.errors import UsageError
from vramfit.landmarks.training.options import LandmarkOptions
from vramfit.measure.budget import read_budget
from vramfit.training import memory_limit, monitors
from vramfit.training.memory_limit import budget_now, limit_memory
from vramfit.units import GIB, MemoryLimits


def options(**changes):
    return LandmarkOptions(dataset_path=Path("films"), **changes)


def test_a_plan_that_still_holds_is_the_budget():
    card = ScriptedCard()
    planned = read_budget(card, MemoryLimits.parse(vram="6GB"))
    assert budget_now(card, options(), planned) == (planned, [])


def test_less_than_planned_is_the_budget_and_is_said():
    card = ScriptedCard()
    planned = read_budget(card)
    card.others = (other_process(2 * GIB, "game.exe", 77),)
    budget, notes = budget_now(card, options(), planned)
    assert budget.budget_bytes == 6 * GIB
    assert "game.exe (pid 77)" in notes[0]
    assert "held to 6.00 GiB" in notes[1]


def test_without_a_plan_for_this_card_the_options_bound_it():
    budget, notes = budget_now(ScriptedCard(), options(vram="6GB", reserve="3GB"), None)
    assert (budget.budget_bytes, notes) == (5 * GIB, [])


def test_a_full_card_is_an_error():
    card = ScriptedCard(others=(other_process(8 * GIB),))
    with pytest.raises(UsageError, match="Nothing of Scripted GPU is left"):
        budget_now(card, options(), None)


def test_a_cpu_is_not_claimed():
    memory, notes = limit_memory(None, options(), torch.device("cpu"), None)
    assert (memory.figures(), notes) == ({}, [])


def test_the_allocator_is_set_up_then_capped_then_used(monkeypatch):
    """Expandable segments come before the first tensor, the cap before the network."""
    card, order = ScriptedCard(), []

    class Memory:
        def __init__(self, _):
            order.append("first tensor")

        def start(self, budget):
            order.append(f"cap {budget.budget_bytes // GIB}")

    class Job:
        levers = ("a lever",)

    monkeypatch.setattr(memory_limit, "local_device", lambda _: card)
    monkeypatch.setattr(monitors, "local_device", lambda _: card)
    monkeypatch.setattr(monitors, "CudaMemory", Memory)
    monkeypatch.setattr(memory_limit, "apply_to_allocator", lambda levers, _: order.append(levers[0]))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: order.append("device"))
    limit_memory(Job(), options(vram="6GB"), torch.device("cuda", 0), None)
    assert order == ["a lever", "first tensor", "cap 6", "device"]
