"""TensorBoard: what was written, read back."""

from dataclasses import replace

import pytest
from made_runs import EVENT, GROWTH, ON_CARD, ON_CPU, start, summary

from vramfit.report.tracking import TensorBoardListener


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder))
    log.Reload()
    return log


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    listener = TensorBoardListener()
    listener.on_start(replace(start(), log_dir=folder))
    listener.on_epoch(ON_CPU)
    listener.on_event(EVENT)
    listener.on_epoch(ON_CARD.model_copy(update={"epoch": 3}))
    listener.on_note("Little is left.")
    listener.on_grow_back(GROWTH)
    listener.on_end(summary())
    return read_back(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("train/loss", [1.23456, 1.23456]),
        ("train/learning_rate", [3e-4, 3e-4]),
        ("train/images_per_s", [31.4, 31.4]),
        ("train/data_wait_share", [0.07, 0.07]),
        ("train/micro_batch", [6, 3]),
        ("train/oom_events", [0, 1]),
        ("valid/mre_mm", [1.5, 1.5]),
        ("valid/sdr_2.0mm", [0.8125, 0.8125]),
    ],
)
def test_every_epoch_has_its_scalars(log, name, values):
    events = log.Scalars(name)
    assert [event.step for event in events] == [2, 3]
    assert [event.value for event in events] == pytest.approx(values)


@pytest.mark.parametrize(
    ("name", "gib"), [("vram/peak_allocated_gib", 6), ("vram/peak_reserved_gib", 7), ("vram/device_used_gib", 7.5)]
)
def test_memory_is_there_where_there_was_a_card(log, name, gib):
    assert [(event.step, event.value) for event in log.Scalars(name)] == [(3, gib)]


def test_notes_and_ooms_are_text(log):
    assert b"7 exceeds the budget" in log.Tensors("notes/text_summary")[0].tensor_proto.string_val[0]
    assert b"micro-batches of 3 in place of 6" in log.Tensors("oom/text_summary")[0].tensor_proto.string_val[0]


def test_a_warning_and_micro_batches_that_grew_back_are_text_of_their_epoch(log):
    _, warning = log.Tensors("notes/text_summary")
    assert (warning.step, warning.tensor_proto.string_val[0]) == (3, b"Little is left.")
    (growth,) = log.Tensors("grow_back/text_summary")
    assert growth.step == 4
    assert b"from epoch 4 on micro-batches of 6 again, in place of 3" in growth.tensor_proto.string_val[0]


def test_an_end_without_a_start_is_no_error():
    TensorBoardListener().on_end(summary())
