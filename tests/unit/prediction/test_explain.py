"""The parts of a peak sum to it, whatever the trace; the timeline shows its fullest moments."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vramfit.cards import find_card
from vramfit.jobs.job import Job
from vramfit.prediction.explain import explain, explain_trial
from vramfit.prediction.predict import Predictor, card_budget
from vramfit.prediction.timeline import KINDS, Hidden, draw_timeline, part_at
from vramfit.prediction.trace_records import StorageRecord, Trace
from vramfit.records import Lever
from vramfit.units import MIB


def made_trace():
    """Three tensors: 30 MiB of weights, 11 MiB of activations (a block of 12), 4 MiB that are gone at the end."""
    storages = [
        StorageRecord(30 * MIB, "to", "net.first", "setup", "parameter"),
        StorageRecord(11 * MIB, "relu", "net.second.act", "forward", "activation"),
        StorageRecord(4 * MIB, "mul", "", "loss", "temporary"),
    ]
    marks = {"step 1": 1, "step 2": 1, "validation": 5, "end": 5}
    return Trace(2, storages, [0, 1, 2, ~2, ~1], marks=marks)


def parts(explanation):
    return {part.name: part.size_bytes for part in (*explanation.kinds, *explanation.hidden, *explanation.allocator)}


def test_the_parts_of_a_peak():
    found = explain(made_trace(), Hidden(context_bytes=300 * MIB))
    assert parts(found) == {
        "parameter": 30 * MIB,
        "activation": 11 * MIB,
        "temporary": 4 * MIB,
        "workspace": 0,
        "context": 300 * MIB,
        "rounding": 1 * MIB,
        "cached": 16 * MIB,  # of the 20 MiB segment that the last 4 MiB came from
    }
    assert found.peak_bytes == (30 + 12 + 20 + 300) * MIB
    assert (found.part, found.phase, found.operation) == ("step 2", "loss", "mul")


def test_modules_in_two_levels():
    found = explain(made_trace(), Hidden())
    assert [(module.name, module.size_bytes) for module in found.modules] == [("net", 41 * MIB), ("(loss)", 4 * MIB)]
    assert [(part.name, part.size_bytes) for part in found.modules[0].parts] == [
        ("net.first", 30 * MIB),
        ("net.second", 11 * MIB),
    ]


def test_a_workspace_can_make_the_peak():
    hidden = Hidden(workspaces={1: 100 * MIB}, kept_bytes={1: 8 * MIB})
    found = explain(made_trace(), hidden)
    assert parts(found)["workspace"] == 108 * MIB
    assert "activation" not in parts(found)
    fullest = max(draw_timeline(made_trace(), hidden, "step 2").columns, key=lambda column: sum(column.sizes_bytes))
    assert fullest.sizes_bytes[KINDS.index("workspace")] == 108 * MIB


def test_the_timeline_follows_the_events():
    timeline = draw_timeline(made_trace(), Hidden(), "step 2")
    assert [sum(column.sizes_bytes) // MIB for column in timeline.columns] == [41, 45, 41, 30]
    assert [column.phase for column in timeline.columns] == ["forward", "loss", "loss", "loss"]
    assert [part_at(made_trace(), position) for position in (0, 1, 2, 5)] == ["setup", "setup", "step 2", "step 2"]


def test_a_long_timeline_keeps_its_highest_moment():
    storages = [StorageRecord(MIB * (1 + number % 7), "op", "m", "forward", "activation") for number in range(4000)]
    events = [event for number in range(4000) for event in (number, ~number)]
    timeline = draw_timeline(Trace(1, storages, events, marks={"step 1": 0}), Hidden(), "step 1")
    assert len(timeline.columns) <= 720
    assert max(sum(column.sizes_bytes) for column in timeline.columns) == 7 * MIB


SIZES = st.integers(0, 40 * MIB)


@settings(max_examples=60)
@given(data=st.data(), sizes=st.lists(SIZES, min_size=1, max_size=25))
def test_the_sum_is_the_peak_to_the_byte(data, sizes):
    kinds = data.draw(st.lists(st.sampled_from(KINDS[:-1]), min_size=len(sizes), max_size=len(sizes)))
    storages = [
        StorageRecord(size, "op", data.draw(st.sampled_from(["", "a", "a.b", "a.c.d"])), "forward", kind)
        for size, kind in zip(sizes, kinds, strict=True)
    ]
    events = []
    for number in range(len(sizes)):
        events.append(number)
        live = [event for event in events if event >= 0 and ~event not in events]
        if data.draw(st.booleans()):
            events.append(~data.draw(st.sampled_from(live)))
    places = st.dictionaries(st.integers(0, len(events) - 1), SIZES, max_size=3)
    hidden = Hidden(workspaces=data.draw(places), kept_bytes=data.draw(places), context_bytes=data.draw(SIZES))
    found = explain(Trace(1, storages, events, marks={"step 1": 0}), hidden)
    assert sum(parts(found).values()) == found.peak_bytes
    assert min(parts(found).values()) >= 0
    assert sum(module.size_bytes for module in found.modules) == found.tensors_bytes
    for module in found.modules:
        assert not module.parts or sum(part.size_bytes for part in module.parts) == module.size_bytes


def built():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 900, 4))


def batch(samples):
    return torch.zeros(samples, 3, 32, 32), torch.zeros(samples, dtype=torch.long)


@pytest.mark.parametrize("levers", [(), (Lever(name="expandable_segments"),)])
def test_it_explains_what_the_predictor_says(levers):
    optimizer = partial(torch.optim.SGD, lr=0.1)
    job = Job(model=built, batch=batch, loss=nn.CrossEntropyLoss(), optimizer=optimizer, levers=levers)
    card = find_card("rtx3090")
    predictor = Predictor(job, card, card_budget(card))
    for micro_batch in (2, 64):
        found = explain_trial(predictor, micro_batch)
        assert found.peak_bytes == predictor.trial(micro_batch).device_used_bytes
        assert sum(parts(found).values()) == found.peak_bytes
