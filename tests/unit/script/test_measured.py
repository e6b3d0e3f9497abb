"""Unchanged scripts on the scripted card; each runs in a process of its own."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scripted_card import ScriptedCard
from scripted_run import open_card, played

from vramfit.errors import NothingFits, ScriptFailed, UsageError
from vramfit.measure.budget import read_budget
from vramfit.script.command import parse_command
from vramfit.script.levers import choices_of
from vramfit.script.measured_answer import ScriptMeasurer
from vramfit.script.measuring import MeasuredScript
from vramfit.script.outcome import OnCard, Outcome, Request
from vramfit.script.source import RunRequest, answer_with, measuring
from vramfit.units import GIB, MIB, MemoryLimits

pytestmark = pytest.mark.usefixtures("warm_module")
TESTS = Path(__file__).resolve().parents[2]
# Of 1 GiB an image, 200 MiB fixed and a context of 400 MiB, seven images fit 8 GiB.
LOOP = """
import argparse, json, torch
from torch.utils.data import DataLoader, TensorDataset
from scripted_run import network, CARD
parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=4)
parser.add_argument("--images", type=int, default=48)
args = parser.parse_args()
loader = DataLoader(TensorDataset(torch.randn(args.images, 4), torch.randn(args.images, 1)), batch_size=args.batch_size)
model = network()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(2):
    model.train()
    for x, y in loader:
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        for x, y in loader:
            model(x)
    torch.save(model.state_dict(), "best.pt")
open("limit.json", "w").write(json.dumps([CARD.limit_bytes, CARD.passes]))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(LOOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return tmp_path


def measurer(*words, vram=None, on_trial=lambda _: None, **asked):
    command = parse_command(["python", "train.py", *words])
    request = RunRequest(command=command, limits=MemoryLimits.parse(vram=vram), **asked)
    return measuring(request, ScriptedCard(), on_trial, open_card)


def test_a_few_steps_are_measured_and_nothing_is_written(here):
    said = []
    answer = measurer("--batch-size", "4", steps=4, on_trial=said.append).answer()
    (trial,) = answer.profile.trials
    assert said == [trial]
    assert (trial.source, trial.verdict, trial.micro_batch) == ("measured", "fits", 4)
    assert trial.peak_allocated_bytes == 4 * GIB + 200 * MIB
    assert trial.device_used_bytes == 4 * GIB + 600 * MIB
    assert trial.step_time_s > 0
    assert (answer.steps, answer.validated) == (4, True)
    assert answer.phases == {"forward": 4 * GIB + 200 * MIB}
    assert answer.peak is None
    assert answer.profile.machine.card == "Scripted GPU"
    assert [path.name for path in here.iterdir()] == ["train.py"]


def test_a_whole_run_is_under_the_limit_and_writes_what_it_writes(here):
    answer = measurer("--batch-size", "4", vram="6GB", whole_run=True).answer()
    limit, passes = json.loads((here / "limit.json").read_text())
    assert limit == 6 * GIB - 400 * MIB
    assert (answer.steps, passes) == (24, 48)
    assert answer.profile.trials[0].verdict == "fits"
    assert (here / "best.pt").exists()


@pytest.mark.parametrize("reset", ["cuda.reset_peak_memory_stats", "cuda.memory.reset_max_memory_allocated"])
def test_a_script_that_resets_its_peaks_does_not_lower_ours(here, reset):
    lines = ["import warnings", "warnings.simplefilter('ignore')", "import torch", "from scripted_run import CARD"]
    lines += ["torch._C._cuda_resetPeakMemoryStats = lambda _: CARD.reset_peak()"]
    changed = LOOP.replace("optimizer.zero_grad()", f"optimizer.zero_grad()\n        torch.{reset}(0)")
    (here / "train.py").write_text("\n".join(lines) + changed + "assert CARD.peak_bytes < 4 << 30\n")
    (trial,) = measurer("--batch-size", "4").answer().profile.trials
    assert trial.peak_allocated_bytes == 4 * GIB + 200 * MIB
    assert trial.device_used_bytes == 4 * GIB + 600 * MIB


def test_memory_that_runs_out_is_a_verdict(here):
    answer = measurer("--batch-size", "4", vram="4GB").answer()
    (trial,) = answer.profile.trials
    assert (trial.verdict, trial.budget_bytes) == ("oom", 4 * GIB)
    assert trial.note.startswith("out of memory in forward: CUDA out of memory")
    assert trial.step_time_s is None
    assert "does not fit" in answer.profile.plan.reason


def test_retries_after_the_first_step_are_over_budget(here, monkeypatch):
    monkeypatch.setenv("SCRIPTED_RETRIES_AT", "4")
    (trial,) = measurer("--batch-size", "4").answer().profile.trials
    assert trial.verdict == "over_budget"
    assert trial.allocator_retries > 0
    assert "clean up and retry" in trial.note


def searching(card, images=1000, guess=None):
    command = parse_command(["python", "train.py"])
    return ScriptMeasurer(
        command,
        card,
        read_budget(card),
        played(card, images),
        option="batch-size",
        guess=lambda highest: min(highest, guess) if guess else None,
    )


@pytest.mark.parametrize("guess", [None, 7, 12])
def test_the_largest_value_is_one_that_ran_beside_one_that_did_not(here, guess):
    made = searching(ScriptedCard(), guess=guess)
    answer = made.largest()
    assert answer.profile.plan.micro_batch == 7
    assert answer.command == ("python", "train.py", "--batch-size", "7")
    verdicts = {trial.micro_batch: str(trial.verdict) for trial in answer.profile.trials}
    assert (verdicts[7], verdicts[8]) == ("fits", "oom")
    assert answer.profile.plan.reason == "batch 7: 8 does not fit."
    assert len(made.trials) <= 6


def test_a_batch_beyond_the_data_is_no_answer_and_an_effective_batch_is_divided(here):
    assert searching(ScriptedCard(), images=5).largest().profile.plan.micro_batch == 5
    answer = searching(ScriptedCard(), guess=7).largest(effective_batch=12, accumulation="accumulate")
    assert (answer.profile.plan.micro_batch, answer.profile.plan.accumulation_steps) == (6, 2)
    assert answer.command[-4:] == ("--batch-size", "6", "--accumulate", "2")


def test_where_nothing_fits_the_smallest_value_is_named(here):
    with pytest.raises(NothingFits, match="batch-size 1 on Scripted GPU"):
        searching(ScriptedCard(capacity_bytes=GIB)).largest()


def test_a_script_that_fails_by_itself_says_so(here):
    (here / "train.py").write_text("import sys\nsys.exit(9)\n")
    with pytest.raises(ScriptFailed) as failed:
        measurer(whole_run=True).answer()
    assert failed.value.exit_code == 9


@pytest.mark.parametrize("batch", [2, 3])
def test_an_option_that_the_script_ignores_is_refused(here, batch):
    made = searching(ScriptedCard())
    fixed = made.measure
    made.measure = lambda command: fixed(command.with_value("batch-size", batch))
    with pytest.raises(UsageError, match=f"--find batch-size changes nothing: every run had {batch} samples"):
        made.largest(maximum=64)


def test_an_option_that_changes_memory_but_no_samples_is_searched(here):
    made = searching(ScriptedCard())
    plain = made.measure
    made.measure = lambda command: replace(plain(command), batch_size=33)
    assert made.largest().profile.plan.micro_batch == 7


def test_a_whole_run_is_of_one_process_and_of_one_set_of_levers(here):
    command = parse_command(["torchrun", "--nproc_per_node", "2", "train.py"])
    with pytest.raises(UsageError, match="starts 2"):
        RunRequest(command=command, whole_run=True)
    alone = RunRequest(command=parse_command(["python", "train.py"]), whole_run=True)
    with pytest.raises(UsageError, match="--whole-run trains once"):
        answer_with(alone, choices_of("auto"), lambda _: None)


def test_memory_that_runs_out_in_a_whole_run_is_explained(here, capfd):
    command = parse_command(["python", "train.py"])
    asked = OnCard(read_budget(ScriptedCard()), open_card, whole_run=True)
    script = MeasuredScript(Request(command, "Scripted GPU", 3, here, asked))
    error = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is "
        "free. Of the allocated memory 6.00 GiB is allocated by PyTorch, and 100.00 MiB is reserved by PyTorch but "
        "unallocated."
    )
    with pytest.raises(SystemExit):
        script.failed(error)
    assert "vramfit: Tensors of this process hold 6.00 GiB" in capfd.readouterr().err
    assert Outcome.load(here).ending == "out of memory"


def test_a_card_that_holds_more_after_each_step_is_told_of(here, monkeypatch):
    monkeypatch.setenv("SCRIPTED_HELD_A_STEP", str(128 * MIB))
    answer = measurer("--batch-size", "4", steps=4).answer()
    assert answer.profile.trials[0].verdict == "fits"
    assert "Each step leaves 128 MiB on the card" in answer.profile.notes[0]
