"""What a few steps of a script say of a leak."""

import pytest

from vramfit.prediction.trace_records import StorageRecord, Trace
from vramfit.records import Trial, Verdict
from vramfit.script.command import parse_command
from vramfit.script.leaks import leak_note, left_behind, measured_growth
from vramfit.script.outcome import Outcome
from vramfit.script.run import watch_script
from vramfit.units import GIB, MIB

pytestmark = pytest.mark.usefixtures("warm_module")
SCRIPT = """
import sys, torch
from torch import nn
model = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256)).cuda()
optimizer = torch.optim.AdamW(model.parameters())
kept, epoch_loss = [], 0.0
for step in range(40):
    x = torch.randn(2048 + 64 * step, 256).cuda()
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    epoch_loss += loss.item()
    if sys.argv[1] == "leaks":
        kept.append(model(x).square().mean())
"""


def trial(verdict=Verdict.FITS, headroom=2 * GIB):
    return Trial(
        source="predicted",
        micro_batch=8,
        verdict=verdict,
        budget_bytes=8 * GIB,
        device_used_bytes=8 * GIB - headroom,
    )


@pytest.mark.parametrize("way", ["leaks", "is sound"])
def test_a_script_that_keeps_its_losses_is_told_what_each_step_leaves(tmp_path, monkeypatch, way):
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    outcome = watch_script(parse_command(["python", "train.py", way]), "RTX 3070 Ti", quiet=True)
    note = leak_note(outcome, trial())
    if way == "is sound":
        assert note is None
        return
    # The inputs and two activations of 2,048 samples, as the graph keeps them.
    least = 2048 * (256 + 2 * 1024) * 4
    assert least <= min(sum(one.size_bytes for one in step) for step in left_behind(outcome.trace)) < 2 * least
    assert "activations" in note
    assert "--watch" in note
    assert "fills the budget after about" in note


def traced(*steps):
    """A trace of steps that each allocate storages of so many MiB, of a kind, until a step frees them (0 for never)."""
    trace, due = Trace(8), {}
    for number, made in enumerate(steps, start=1):
        trace.marks[f"step {number}"] = len(trace.events)
        trace.samples[f"step {number}"] = 8
        for size, kind, freed_in in made:
            trace.storages.append(StorageRecord(size * MIB, "op", "", "forward", kind))
            trace.events.append(len(trace.storages) - 1)
            due.setdefault(freed_in, []).append(len(trace.storages) - 1)
        trace.events.extend(~storage for storage in due.get(number, ()))
    trace.marks["end"] = len(trace.events)
    return trace


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        # A batch that is fetched while the one before it is used; a cache of the first step; what lasts.
        (([(9, "input", 2)], [(9, "input", 3)], [(9, "input", 4)]), 0),
        (([(9, "buffer", 0), (50, "temporary", 0)], [], []), 0),
        (([(9, "gradient", 0)], [(9, "gradient", 0)], [(9, "optimizer state", 0)]), 0),
        (([(9, "activation", 0)], [(7, "activation", 0)], [(9, "activation", 0)]), 7),
        # Two steps say nothing: the last one's variables are still there.
        (([(9, "activation", 0)], [(9, "activation", 0)]), 0),
    ],
)
def test_what_a_step_leaves_is_what_later_steps_do_not_free(steps, left):
    outcome = Outcome(ending="seen", trace=traced(*steps), steps_made=len(steps))
    note = leak_note(outcome, trial())
    assert (note is None) == (left == 0)
    if note:
        assert f"leaves {left} MiB" in note
        assert f"after about {3 + 2048 // left};" in note
        assert "fills" not in leak_note(outcome, trial(Verdict.OVER_BUDGET, -GIB))


@pytest.mark.parametrize(
    ("held", "growth"),
    [
        ((100, 120, 140), 20),
        ((100, 300, 320, 340), 20),  # the optimizer's state comes in the first step
        ((100, 120, 150), 20),
        ((100, 120, 190), 0),  # lengths vary
        ((100, 120, 140, 100, 120, 140), 0),  # an epoch's list is emptied
        ((100, 100, 100), 0),
        ((100, 120), 0),
        ((), 0),
    ],
)
def test_a_measured_growth_is_even_from_step_to_step(held, growth):
    assert measured_growth(held) == growth
