"""Snapshots explained: the first sentence names the cause, and the parts sum to what was reserved, to the byte."""

import json
import pickle
from functools import partial

import made_snapshot
import pytest
import torch
from pages import require_sound
from scripted_recording import ScriptedRecording
from torch import nn
from torch.nn import functional as F

from vramfit.errors import DataError
from vramfit.postmortem.explain import explain_containers, explain_snapshot, heading
from vramfit.report.postmortem_page import postmortem_page
from vramfit.units import MIB


def network(width=256):
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 8))


def learn(model, optimizer, rows=2048):
    loss = F.mse_loss(model(torch.randn(rows, 64)), torch.randn(rows, 8))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def kept_graph():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    total = 0
    while True:
        learn(model, optimizer)
        total = total + F.mse_loss(model(torch.randn(2048, 64)), torch.zeros(2048, 8))


def growing_list():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    while True:
        learn(model, optimizer)
        seen.append(torch.randn(2048, 512))


def no_grad():
    model = network()
    learn(model, torch.optim.SGD(model.parameters(), lr=0.1))
    outputs = []
    while True:
        outputs.append(model(torch.randn(2048, 64)))


def second_optimizer():
    model = network(1024)
    first, second = (torch.optim.Adam(model.parameters()) for _ in range(2))
    learn(model, first, rows=64)
    learn(model, second, rows=64)
    torch.empty(34 * MIB, dtype=torch.uint8)


def second_network():
    model = network(1024)
    other = network(900)
    assert other is not model
    learn(model, torch.optim.SGD(model.parameters(), lr=0.1), rows=64)
    torch.empty(45 * MIB, dtype=torch.uint8)


def fragmentation():
    halves = []
    for _ in range(3):
        torch.empty(60 * MIB, dtype=torch.uint8)
        halves += [torch.empty(24 * MIB, dtype=torch.uint8) for _ in range(2)]
    del halves[::2]
    torch.empty(40 * MIB, dtype=torch.uint8)


def too_large():
    model = network()
    learn(model, torch.optim.SGD(model.parameters(), lr=0.1), rows=12000)


def recorded(job, card_bytes=72 * MIB, others_bytes=0, **settings):
    torch.manual_seed(0)
    recording = ScriptedRecording(card_bytes, others_bytes, **settings)
    with recording, pytest.raises(torch.OutOfMemoryError):
        job()
    return recording


def explained(data, **options):
    (found,) = explain_containers(data, **options)
    parts = sum(part.size_bytes for part in (*found.kinds, *found.allocator))
    assert parts == found.reserved_bytes
    assert sum(part.size_bytes for part in found.lines) == sum(part.size_bytes for part in found.kinds)
    assert all(sum(size for size, _ in one.pieces) == one.size_bytes for one in found.picture.segments)
    assert sum(one.size_bytes for one in found.picture.segments) == found.reserved_bytes
    return found


@pytest.mark.parametrize(
    ("job", "cause", "line", "stacks"),
    [
        (kept_graph, "kept graph", "total = total +", "python"),
        (growing_list, "growing list", "seen.append(", "all"),
        (no_grad, "forgotten no_grad", "outputs.append(", "python"),
        (second_optimizer, "second optimizer", "optimizer.step()", "all"),
        (second_network, "second network", "other = network(900)", "python"),
        (too_large, "largest kind", None, "all"),
    ],
)
def test_the_first_sentence_names_the_cause(job, cause, line, stacks):
    found = explained(recorded(job, stacks=stacks).snapshot())
    assert found.reason == "oom"
    assert found.findings[0].cause == cause
    assert found.sentence == found.findings[0].sentence
    if line is not None:
        assert line in found.sentence
        assert "test_explain.py:" in found.findings[0].line


def test_holes_are_told_where_pages_would_have_served_the_request():
    found = explained(recorded(fragmentation, 200 * MIB).snapshot())
    assert found.findings[0].cause == "fragmentation"
    assert found.lever_sentence.startswith("Expandable segments would have been enough")
    assert {one.setting: one.served for one in found.levers}["as recorded"] is False


def test_other_processes_are_told_where_the_card_is_known():
    data = recorded(too_large, 96 * MIB, 40 * MIB).snapshot()
    assert explained(data).findings[0].cause == "largest kind"
    data["vramfit"] = {"total_bytes": 96 * MIB, "context_bytes": 16 * MIB, "processes": [{"name": "a notebook"}]}
    found = explained(data)
    assert (found.findings[0].cause, found.others_bytes) == ("other processes", 40 * MIB)
    assert "a notebook" in found.sentence
    assert "a notebook" not in explained(data, names=False).model_dump_json()


def test_a_healthy_recording_is_explained_at_its_peak():
    recording = ScriptedRecording()
    with recording:
        model = network()
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(6):
            learn(model, optimizer)
    found = explained(recording.snapshot())
    assert (found.reason, found.request_bytes) == ("peak", None)
    assert found.findings[0].cause == "largest kind"
    kinds = {part.kind: part.size_bytes for part in found.kinds}
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert kinds["parameters"] == weights
    assert kinds["optimizer state"] == 2 * weights + 4 * len(list(model.parameters()))


def test_older_weights_and_optimizer_states_go_by_their_sizes():
    recording = ScriptedRecording()
    with recording:
        model = network()
        optimizer = torch.optim.Adam(model.parameters())
        learn(model, optimizer)
        before = len(recording.events)
        learn(model, optimizer)
    found = explained(recording.snapshot(last=len(recording.events) - before))
    kinds = {part.kind: part for part in found.kinds}
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert (kinds["parameters"].size_bytes, kinds["parameters"].since_step) == (weights, 0)
    assert kinds["optimizer state"].size_bytes >= 2 * weights


def test_a_queue_of_fixed_length_is_no_pile():
    recording = ScriptedRecording()
    with recording:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        queue = []
        for _ in range(12):
            learn(model, optimizer)
            queue = [*queue[-4:], torch.randn(2048, 512)]
    assert not {"kept graph", "growing list"} & {one.cause for one in explained(recording.snapshot()).findings}


def test_without_history_blocks_are_told_by_their_own_stacks():
    found = explained(recorded(growing_list).snapshot(history=False))
    assert (found.reason, found.levers, found.picture.instants) == ("end", (), ())
    assert found.kinds[0].kind == "tensors of the script"


def test_without_any_stacks_the_sums_stand():
    found = explained(recorded(growing_list, stacks=None).snapshot())
    assert [part.kind for part in found.kinds] == ["unknown"]


@pytest.mark.parametrize("change", [lambda data: data["segments"], lambda data: {"segments": data["segments"]}])
def test_older_formats(change):
    found = explained(change(made_snapshot.snapshot()))
    assert found.reserved_bytes == sum(made_snapshot.END_SEGMENTS)


def test_history_of_blocks_as_torch_2_0_wrote_it():
    data = made_snapshot.snapshot()
    frames = [{"name": "main", "filename": "/home/a/train.py", "line": 7}]
    block = data["segments"][0]["blocks"][0]
    del block["requested_size"]
    block["history"] = [{"addr": block["address"], "real_size": 4 * made_snapshot.MIB - 10, "frames": frames}]
    data["device_traces"] = []
    found = explained(data)
    line = next(part for part in found.lines if part.line == "train.py:7")
    assert line.size_bytes == 4 * made_snapshot.MIB - 10


def test_several_devices_the_one_that_ran_out_first():
    data, other = made_snapshot.snapshot(), recorded(too_large).snapshot()
    for segment in other["segments"]:
        segment["device"] = 1
    data["segments"] += other["segments"]
    data["device_traces"] += other["device_traces"]
    found = explain_containers(data)
    assert [(one.device, one.reason) for one in found] == [(1, "oom"), (0, "peak")]
    require_sound(postmortem_page(found))


def test_expandable_segments():
    data = made_snapshot.snapshot()
    base, page = 0x7F00_0000_0000, 20 * MIB
    events = [
        made_snapshot.entry("segment_map", base, page),
        made_snapshot.entry("alloc", base, 12 * MIB),
        made_snapshot.entry("segment_map", base + page, page),
        made_snapshot.entry("alloc", base + 12 * MIB, 15 * MIB),
        {"action": "oom", "device_free": MIB, "size": 40 * MIB, "stream": 0, "time_us": 0},
    ]
    blocks = [made_snapshot.block(base, 12 * MIB, 12 * MIB), made_snapshot.block(base + 12 * MIB, 15 * MIB, 15 * MIB)]
    blocks.append(made_snapshot.block(base + 27 * MIB, 13 * MIB))
    segment = {**made_snapshot.segment(base, 2 * page, "large", blocks), "is_expandable": True}
    settings = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True,backend:native"}
    data.update(segments=[segment], device_traces=[events], allocator_settings=settings)
    found = explained(data)
    assert (found.reason, found.allocated_bytes, found.reserved_bytes) == ("oom", 27 * MIB, 40 * MIB)


def test_a_recording_with_a_gap_is_explained_at_its_end():
    data = made_snapshot.snapshot()
    data["device_traces"][0].insert(1, made_snapshot.entry("alloc", 12345, 512))
    found = explained(data)
    assert found.reason == "end"
    assert "has a gap" in found.notes[0]


def test_names_are_left_out_everywhere():
    data = recorded(no_grad).snapshot()
    found = explained(data, names=False)
    text = found.model_dump_json() + postmortem_page([found])
    assert found.findings[0].cause == "forgotten no_grad"
    assert not [word for word in ("test_explain", "no_grad.py", "outputs.append", "def learn") if word in text]


def test_the_page(tmp_path):
    found = explained(recorded(kept_graph).snapshot())
    page = postmortem_page([found])
    require_sound(page)
    for word in (found.findings[0].cause.split()[1], "refused here", "Segments at that moment", "activations"):
        assert word in page
    assert json.loads(found.model_dump_json())["picture"]["instants"]


def test_what_is_no_snapshot(tmp_path):
    path = tmp_path / "a.pickle"
    for content in ({"segments": []}, {"device_traces": []}, [1, 2], "text"):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"a\.pickle"):
            explain_snapshot(path)
    path.write_bytes(pickle.dumps(partial(print, "no")))
    with pytest.raises(DataError, match="is refused"):
        explain_snapshot(path)


@pytest.mark.shared
def test_recordings_of_others(shared_data):
    for path in sorted((shared_data / "snapshots").glob("*.pickle")):
        (found,) = explain_snapshot(path)
        parts = sum(part.size_bytes for part in (*found.kinds, *found.allocator))
        assert parts == found.reserved_bytes > 0
        assert heading(found)
        require_sound(postmortem_page([found]))
