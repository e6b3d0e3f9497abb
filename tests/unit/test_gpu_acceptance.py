"""The acceptance run for a GPU, rehearsed without one: its parts on a scripted card, and the report it writes."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_records import make_trial
from scripted_card import ScriptedCard, other_process
from scripted_run import played

from vramfit.measure.budget import read_budget
from vramfit.script.measured_answer import ScriptMeasurer
from vramfit.units import GIB

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_acceptance.py"


@pytest.fixture
def acceptance(monkeypatch):
    """The script, with a card of 8 GiB on which seven images of 1 GiB fit."""
    spec = importlib.util.spec_from_file_location("gpu_acceptance", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.card = ScriptedCard()
    monkeypatch.setattr(module, "measure_trial", lambda job, size, budget: module.card.trial(size, budget))
    monkeypatch.setattr(module, "_predictor", lambda *_: SimpleNamespace(trial=make_trial))
    return module


def finished(module):
    return {
        "vramfit": "0",
        "date": "2026-11-24",
        "machine": {"card": "Scripted GPU", "torch": "2", "cuda": "13", "driver": "999"},
        "job": {"model": "hrnet_w32", "image_size": 768, "amp": "fp16"},
        "vram": "8GB",
        **{name: {"error": "not run", "took_s": 0.0} for name in module.PARTS},
    }


def test_the_table_goes_one_past_the_limit_and_the_report_shows_it(acceptance):
    report = finished(acceptance)
    acceptance._run_part("capped", lambda: acceptance.table(None, acceptance.card, "8GB"), report)
    assert report["capped"]["limit"] == 7
    text = acceptance._markdown(report)
    assert "| 7 | 7.00 GiB / - | 7.10 GiB / - | 7.40 GiB / 7.59 GiB | 280 ms / 150 ms | fits / fits |" in text
    assert "**capped**: the largest batch that fits is 7" in text
    assert "**recovery**: FAILED: not run" in text


def test_every_choice_of_levers_is_measured_but_those_foretold_to_fail(acceptance, monkeypatch):
    from vramfit.prediction.frontier import Frontier, FrontierRow

    rows = [
        FrontierRow(label="none", levers=(), trial=make_trial(8, budget_gib=7.5)),
        FrontierRow(label="recompute=block", levers=(), trial=make_trial(4), chosen=True),
        FrontierRow(label="divided", levers=(), trial=make_trial(4), accumulation_steps=2),
    ]
    monkeypatch.setattr(acceptance, "levers_for", lambda *_, **__: Frontier(rows=tuple(rows)))
    monkeypatch.setattr(acceptance, "replace", lambda job, **_: job)
    report = finished(acceptance) | {"capped": {"limit": 2, "took_s": 0.0}}
    acceptance._run_part("levers", lambda: acceptance.frontier(None, acceptance.card, "8GB", report), report)
    assert [row["levers"] for row in report["levers"]["rows"]] == ["recompute=block"]
    assert "| recompute=block | 4 | 4.00 GiB / - |" in acceptance._markdown(report)


def test_an_unchanged_script_is_measured_and_its_batch_searched(acceptance, monkeypatch):
    def on_card(request, card, on_trial):
        words = (*request.command.arguments, *(() if request.option else ("--batch-size", "4")))
        command = replace(request.command, arguments=words)
        return ScriptMeasurer(command, card, read_budget(card), played(card), option=request.option, on_trial=on_trial)

    monkeypatch.setattr(acceptance, "measuring", on_card)
    report = finished(acceptance)
    acceptance._run_part("script", lambda: acceptance.script(acceptance.card), report)
    part = report["script"]
    assert (part["found"], part["steps"], part["untouched"]) == (7, 3, True)
    assert part["row"]["measured"]["micro_batch"] == 4
    assert part["row"]["predicted"] is None
    assert "largest batch within 1GB: 7 in" in acceptance._markdown(report)


def test_another_process_is_seen_by_what_it_holds(acceptance, monkeypatch):
    """The process that holds 2 GB is real, but for the memory."""
    monkeypatch.setattr(acceptance, "_HOLDER", "print('held', flush=True); input()")
    budgets = [ScriptedCard(), ScriptedCard(others=(other_process(2 * GIB),))]
    monkeypatch.setattr(acceptance, "read_budget", lambda _, limits: read_budget(budgets.pop(0), limits))
    seen = acceptance.beside_another_process(None, "8GB")
    assert (seen["seen_bytes"], seen["noticed"]) == (2 * GIB, True)


def test_a_part_that_fails_or_comes_too_late_is_said_and_the_others_run(acceptance):
    report = finished(acceptance)
    acceptance._run_part("training", acceptance._too_late, report)
    assert "not run: the parts before it took too long" in report["training"]["error"]
    assert "**training**: FAILED" in acceptance._markdown(report)
