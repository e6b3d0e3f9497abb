"""TensorBoard: what was written, read back."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from made_runs import EVENT, GROWTH, ON_CARD, ON_CPU, start, summary
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from vramfit.landmarks.report.examples import FilmExample, example_of
from vramfit.report.tracking import TensorBoardListener, hyperparameters


def example(name="007", height=900, width=720):
    """Black but for one landmark, 100 pixels left of where the network saw it, and its heat."""
    heatmap = np.zeros((height // 4, width // 4), dtype=np.float32)  # stride 4: row 50, column 100 of 225 and 180
    heatmap[height // 18, width * 5 // 36] = 1
    truth = np.array([[300.0, 200.0], [np.nan, np.nan]])
    found = np.array([[400.0, 200.0], [10.0, 10.0]])
    return FilmExample(name, np.zeros((height, width), dtype=np.uint8), truth, found, heatmap, 3.21)


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder))
    log.Reload()
    return log


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    listener = TensorBoardListener(examples=2)
    settings = {"learning_rate": 1e-3, "image_size": (768, 768), "compile": False, "sigma": None}
    listener.on_start(replace(start(), log_dir=folder, settings=settings))
    listener.on_examples(2, [example_of(example("001")), example_of(example("002", 60, 40))])
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


def test_films_are_pictures_small_whatever_their_size(log):
    (image,) = log.Images("films/001")
    assert (image.step, image.height, image.width) == (2, 384, 2 * 307)
    assert len(image.encoded_image_string) < 40_000
    (small,) = log.Images("films/002")
    assert (small.height, small.width) == (60, 80)
    assert cv2.imdecode(np.frombuffer(small.encoded_image_string, np.uint8), cv2.IMREAD_COLOR).shape == (60, 80, 3)


def test_truth_prediction_and_heat_lie_where_they_are():
    unknown, known = (example_of(replace(example(), error=error)).picture for error in (None, 3.21))
    assert unknown.shape == known.shape
    height, width, _ = known.shape
    jpeg = cv2.imencode(".jpg", known[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).astype(int)
    film, heat = picture[:, : width // 2], picture[:, width // 2 :]
    scale = height / 900
    row, truth, found = round(200 * scale), round(300 * scale), round(400 * scale)
    blue, _, red = film[row - 3, truth]
    assert blue > red + 40
    blue, _, red = film[row, found]
    assert red > blue + 40
    assert film[20:, :100].max() < 60  # the missing landmark is not drawn
    assert np.unravel_index(heat[30:].sum(axis=2).argmax(), heat[30:].shape[:2]) == pytest.approx(
        (200 * scale - 30, 400 * scale), abs=4
    )


def test_hyperparameters_lie_in_the_runs_own_folder(log):
    assert hyperparameters({"a": (1, 2), "b": None, "c": 0.5, "d": True}) == {
        "a": "(1, 2)",
        "c": 0.5,
        "d": "True",
    }
    start_info = HParamsPluginData.FromString(log.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    found = start_info.session_start_info.hparams
    assert found["learning_rate"].number_value == pytest.approx(1e-3)
    assert found["image_size"].string_value == "(768, 768)"
    assert found["micro_batch"].number_value == 6
    assert found["compile"].string_value == "False"
    assert log.SummaryMetadata("_hparams_/session_end_info")
    experiment = HParamsPluginData.FromString(log.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert "valid/mre_mm" in [metric.name.tag for metric in experiment.experiment.metric_infos]


def test_an_end_without_a_start_is_no_error():
    TensorBoardListener().on_end(summary())
