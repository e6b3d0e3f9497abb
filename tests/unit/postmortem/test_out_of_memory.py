"""The report at an OOM: what a message tells, what the blocks of a card tell, and a run that goes on."""

import logging

import made_snapshot
import pytest
import small_runs as small
import torch
from faults import FaultAt
from torch import nn

import vramfit
from vramfit.postmortem.explain import explain_containers
from vramfit.postmortem.oom_message import OomMessage
from vramfit.postmortem.out_of_memory import REPORT, message_sentence, report_out_of_memory
from vramfit.training.listeners import Listener
from vramfit.units import GIB, MIB

NOW = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.19 GiB is "
    "free. Process 4242 has {others:.2f} GiB memory in use. Including non-PyTorch memory, this process has "
    "{mine:.2f} GiB memory in use. Of the allocated memory {held:.2f} GiB is allocated by PyTorch, and {free} is "
    "reserved by PyTorch but unallocated."
)
PLAIN = NOW.format(others=0, mine=22.5, held=21.5, free="500.00 MiB")
NEIGHBOUR = NOW.format(others=12, mine=10.5, held=9.5, free="500.00 MiB")
HOLES = NOW.format(others=0, mine=22.5, held=17.5, free="4.50 GiB")
OLD = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.79 GiB total capacity; 5.12 GiB already allocated; "
    "14.06 MiB free; 5.20 GiB reserved in total by PyTorch)"
)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (PLAIN, "Tensors of this process hold 21.50 GiB of the card's 23.69 GiB"),
        (NEIGHBOUR, "Other processes hold about 12.00 GiB of the card's 23.69 GiB"),
        (HOLES, "Fragmentation: 4.50 GiB are reserved and lie free"),
        (OLD, "Tensors of this process hold 5.12 GiB of the card's 7.79 GiB"),
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", None),
        ("CUDA error: out of memory", None),
    ],
)
def test_what_a_message_tells(text, begins):
    sentence = message_sentence(OomMessage.of(text))
    assert sentence is None if begins is None else sentence.startswith(begins)


def test_the_figures_of_a_message():
    message = OomMessage.of(OLD)
    assert (message.request_bytes, message.free_bytes) == (20 * MIB, round(14.06 * MIB))
    assert message.held_free_bytes == pytest.approx(0.08 * GIB, rel=1e-6)
    assert message.others_bytes is None


def test_a_report_is_written_with_the_message(tmp_path):
    report = report_out_of_memory(RuntimeError(HOLES), folder=tmp_path)
    text = (tmp_path / REPORT).read_text(encoding="utf-8")
    assert report.file == tmp_path / REPORT
    assert text.splitlines()[0] == report.sentence
    assert "Tried to allocate" in text
    assert report_out_of_memory(RuntimeError("out of memory"), folder=tmp_path / "other") is None
    assert not (tmp_path / "other").exists()


def test_blocks_are_told_by_their_owners_where_there_is_no_history():
    data = made_snapshot.snapshot()
    data["device_traces"] = []
    data["vramfit"] = {
        "request_bytes": 40 * MIB,
        "device_free_bytes": MIB,
        "total_bytes": 64 * MIB,
        "owners": [[made_snapshot.LARGE, "optimizer state", "AdamW"]],
    }
    (found,) = explain_containers(data)
    assert (found.reason, found.request_bytes, found.device_free_bytes) == ("oom", 40 * MIB, MIB)
    kinds = {part.kind: part.size_bytes for part in found.kinds}
    assert kinds["optimizer state"] == 4 * MIB
    assert sum(part.size_bytes for part in (*found.kinds, *found.allocator)) == found.reserved_bytes


def test_a_run_writes_its_first_oom_says_it_and_goes_on(tmp_path):
    notes = []

    class Notes(Listener):
        def on_note(self, text):
            notes.append(text)

    loop = small.loop(small.task(), tmp_path, listeners=[Notes()], epochs=1)
    with FaultAt(40, torch.OutOfMemoryError(NEIGHBOUR)) as fault:
        loop.run()
    assert fault.struck
    assert len(loop.state.oom_events) == 1
    assert [note for note in notes if note.startswith("Other processes hold")]
    assert (loop.options.save_dir / REPORT).exists()


def test_a_loop_of_ones_own_logs_it(tmp_path, caplog):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fault = FaultAt(3, torch.OutOfMemoryError(HOLES))
    with vramfit.recovering(model, optimizer, report_to=tmp_path) as step, fault, caplog.at_level(logging.WARNING):
        step((torch.randn(8, 4), torch.randn(8, 1)), lambda part: nn.functional.mse_loss(model(part[0]), part[1]))
    assert len(step.events) == 1
    assert caplog.records[0].message.startswith("Fragmentation")
    assert (tmp_path / REPORT).exists()


def test_a_report_that_cannot_be_written_ends_nothing(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    below = tmp_path / "file" / "below"
    with vramfit.recovering(model, optimizer, report_to=below) as step, FaultAt(3, torch.OutOfMemoryError(HOLES)):
        step((torch.randn(8, 4), torch.randn(8, 1)), lambda part: nn.functional.mse_loss(model(part[0]), part[1]))
    assert len(step.events) == 1
