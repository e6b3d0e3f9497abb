"""Networks that leave: what the files compute, what they say of themselves, and what comes back of them."""

import json
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from made_checkpoint import make_checkpoint, make_films

from vramfit.errors import CannotWrite, DataError, UsageError, VramfitError
from vramfit.landmarks.data.image import read_film
from vramfit.landmarks.evaluation.evaluate import EvaluationOptions, evaluate_checkpoint
from vramfit.landmarks.evaluation.inference import find_landmarks, unmarked_films
from vramfit.landmarks.export import export as module
from vramfit.landmarks.export.export import WRITERS, describe, export_network, format_of
from vramfit.landmarks.export.writers import Writer
from vramfit.landmarks.model.decode import decode
from vramfit.landmarks.model.network import load_weights
from vramfit.landmarks.model.trained_network import load_trained
from vramfit.records import Lever

PAGE = Path(__file__).resolve().parents[4] / "docs" / "export.md"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films") / "films")


@pytest.fixture(scope="module")
def trained(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = make_checkpoint(films, folder / "checkpoint_best.pth", weights=str(folder / "mine.pth"))
    content = torch.load(path, weights_only=True)
    content["position"]["history"] = [{"epoch": 2, "mre_mm": 9.0}, {"epoch": 3, "mre_mm": 1.25}]
    torch.save(content, path)
    return load_trained(path, "cpu")


@pytest.fixture(scope="module")
def onnx_file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "Röntgen.onnx"
    exported = export_network(trained, path, "onnx")
    assert 0 < exported.largest_difference <= 1e-4
    return path


@pytest.fixture
def shared(trained, tmp_path):
    path = tmp_path / "shared.safetensors"
    export_network(trained, path, "safetensors")
    return path


def heatmaps_of(trained, images):
    inputs = {"films": torch.from_numpy(images), "photometric": torch.zeros(len(images), 10)}
    return trained.step.validate((inputs, torch.zeros(len(images), len(trained.landmarks), 2)))[0].numpy()


@pytest.mark.parametrize("films_at_once", [1, 2, 5])
def test_onnx_gives_pytorchs_heatmaps_of_any_number_of_films(onnx_file, trained, films_at_once):
    session = onnxruntime.InferenceSession(onnx_file.read_bytes(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(films_at_once).integers(0, 256, (films_at_once, 1, 64, 64), dtype=np.uint8)
    (heatmaps,) = session.run(["heatmaps"], {"films": images})
    np.testing.assert_allclose(heatmaps, heatmaps_of(trained, images), atol=1e-5)


def test_the_page_of_numpy_finds_what_infer_finds(onnx_file, trained, films):
    page: dict = {}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1], page)
    assert set(re.findall(r"^import (\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)) == {
        *("json", "numpy", "onnxruntime")
    }
    session, document = page["open_network"](str(onnx_file))
    folder = films / "test" / "Cephalograms"
    for ours in find_landmarks(trained, unmarked_films([folder], trained.landmarks), batch_size=2):
        found = page["find_landmarks"](session, document, read_film(ours.film.path))
        assert list(found) == [landmark.symbol for landmark in trained.landmarks]
        theirs = np.array(list(found.values()))
        np.testing.assert_allclose(theirs[:, :2], ours.points, atol=0.05)
        np.testing.assert_allclose(theirs[:, 2], ours.confidence, atol=1e-3)


def test_a_small_film_grows_on_the_page_as_it_does_here(trained):
    page: dict = {}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1], page)
    from vramfit.landmarks.data.letterbox import Letterbox

    film = np.random.default_rng(0).integers(0, 256, (41, 50), dtype=np.uint8)
    box = Letterbox.of((50, 41), (96, 128))
    image, (scale, offset) = page["letterbox"](film, [96, 128])
    assert np.abs(image.astype(int) - box.apply(film)).max() <= 1
    points = np.array([[3.0, 7.0], [100.0, 60.5]])
    np.testing.assert_allclose(points * scale + offset, box.to_film(points), atol=1e-9)


def test_every_format_says_what_its_user_must_know(onnx_file, trained, shared, tmp_path):
    session = onnxruntime.InferenceSession(onnx_file.read_bytes(), providers=["CPUExecutionProvider"])
    document = json.loads(session.get_modelmeta().custom_metadata_map["vramfit"])
    assert document["image_size"] == [64, 64]
    assert document["heatmap_stride"] == 4
    assert [symbol for symbol, _ in document["landmarks"]] == [landmark.symbol for landmark in trained.landmarks]
    assert document["normalisation"]["where"].startswith("inside")
    assert (document["epoch"], document["mre_mm"], document["decode"]) == (3, 1.25, "dark")
    assert document["torch_version"] == torch.__version__
    from safetensors import safe_open

    with safe_open(shared, framework="np") as file:
        header = json.loads(file.metadata()["vramfit"])
    assert header["normalisation"]["where"].startswith("not part")
    assert {**header, "normalisation": document["normalisation"]} == document
    for text in (json.dumps(document), json.dumps(header)):
        assert str(trained.path.parent) not in text, "a file that is passed on must not name folders"


def test_pt2_runs_without_vramfit_and_says_the_same(trained, tmp_path):
    path = tmp_path / "network.pt2"
    assert export_network(trained, path, "pt2").largest_difference <= 1e-6
    extra = {"vramfit.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells how it stored the tensors
        program = torch.export.load(path, extra_files=extra)
    images = np.full((4, 1, 64, 64), 90, dtype=np.uint8)
    heatmaps = program.module()(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(heatmaps, heatmaps_of(trained, images), atol=1e-5)
    assert json.loads(extra["vramfit.json"]) == json.loads(describe(trained, normalised_inside=True).model_dump_json())


def test_two_stages_leave_as_one_file(films, tmp_path):
    sizes = {"image_size": (128, 128), "coarse_size": (64, 64), "crop_size": 32, "heatmap_stride": 2}
    two = load_trained(make_checkpoint(films, tmp_path / "two" / "checkpoint_best.pth", **sizes), "cpu")
    exported = export_network(two, tmp_path / "two.pt2", "pt2")
    assert exported.largest_difference <= 1e-4
    assert exported.description.image_size == (128, 128)
    assert exported.description.heatmap_stride == 2


def test_onnxruntime_finds_the_points_of_two_stages(films, tmp_path):
    sizes = {"image_size": (128, 128), "coarse_size": (64, 64), "crop_size": 32, "heatmap_stride": 2}
    two = load_trained(make_checkpoint(films, tmp_path / "two" / "checkpoint_best.pth", **sizes), "cpu")
    with torch.no_grad():  # an untrained second stage gives heatmaps near 0, of which any two are alike
        two.step.model.fine.last.mul_(1000)
    path = tmp_path / "two.onnx"
    assert export_network(two, path, "onnx").highest > 0.1
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 128, 128), dtype=np.uint8)
    (heatmaps,) = session.run(["heatmaps"], {"films": images})
    expected = heatmaps_of(two, images)
    np.testing.assert_allclose(heatmaps, expected, atol=1e-4)
    points, confidence = decode(torch.from_numpy(heatmaps), 2)
    theirs, sure = decode(torch.from_numpy(expected), 2)
    torch.testing.assert_close(points, theirs, atol=0.02, rtol=0)
    torch.testing.assert_close(confidence, sure, atol=1e-4, rtol=0)
    assert len(np.unique(np.round(points.numpy(), 2).reshape(4, -1), axis=0)) == 4, "each film has points of its own"


def test_safetensors_come_back_as_the_network_they_were(trained, shared, films, tmp_path):
    back = load_trained(shared, "cpu")
    assert (back.epoch, back.mre_mm, back.landmarks) == (trained.epoch, trained.mre_mm, trained.landmarks)
    assert back.config["annotator"] == trained.config["annotator"]
    np.testing.assert_allclose(back.mean_shape, trained.mean_shape)
    for name, value in trained.step.model.state_dict().items():
        assert torch.equal(back.step.model.state_dict()[name], value), name
    options = EvaluationOptions(dataset_path=films, device="cpu", cache_dir=tmp_path)
    reports = [evaluate_checkpoint(path, options) for path in (shared, trained.path)]
    assert reports[0].evaluation == reports[1].evaluation


def test_training_starts_from_safetensors(trained, shared, films):
    other = load_trained(make_checkpoint(films, shared.parent / "other.pth", seed=1), "cpu")
    assert load_weights(other.step.model, "hrnet_w18_small", str(shared)) == f"Weights: {shared}."
    for name, value in trained.step.model.state_dict().items():
        assert torch.equal(other.step.model.state_dict()[name], value), name


def test_levers_and_half_precision_stay_behind(films, tmp_path):
    levers = (Lever(name="half_upsample"), Lever(name="recompute", setting="block"))
    path = make_checkpoint(films, tmp_path / "checkpoint_best.pth", amp="bf16", levers=levers)
    exported = export_network(load_trained(path, "cpu"), tmp_path / "it.safetensors", "safetensors")
    assert exported.largest_difference == 0


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_a_file_that_computes_something_else_is_not_left(trained, tmp_path, monkeypatch, difference):
    honest = WRITERS["safetensors"]

    def reopen(content, step):
        run, _ = honest.reopen(content, step)
        return (lambda images: run(images) + np.float32(difference)), "runner 1.0"

    monkeypatch.setitem(WRITERS, "safetensors", Writer(honest.write, reopen))
    with pytest.raises(VramfitError, match=r"was not written: in runner 1\.0 its heatmaps differ"):
        export_network(trained, tmp_path / "it.safetensors", "safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_named_with_what_to_do(trained, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=rf"ONNX needs {missing}, which is not installed; run: pip install"):
        export_network(trained, tmp_path / "it.onnx", "onnx")


def test_what_is_there_stays_unless_forced(trained, shared):
    before = shared.read_bytes()
    with pytest.raises(CannotWrite, match="--force"):
        export_network(trained, shared, "safetensors")
    with pytest.raises(UsageError, match="would be overwritten"):
        export_network(load_trained(shared, "cpu"), shared, "safetensors", force=True)
    assert shared.read_bytes() == before
    shared.write_bytes(b"old")
    export_network(trained, shared, "safetensors", force=True)
    assert load_trained(shared, "cpu").epoch == 3


def test_the_drawn_films_of_the_check_differ():
    one, other, *_ = module._drawn_films((64, 96), 3)
    assert one.shape == (1, 64, 96)
    assert (one != other).any()
    assert one.std() > 20


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a tensor in it", "not a readable safetensors file"),
        ({}, "does not describe a network"),
        ({"vramfit": '{"schema_version": 9}'}, "newer vramfit"),
    ],
)
def test_other_safetensors_are_refused_in_a_sentence(tmp_path, content, said):
    from safetensors.torch import save

    path = tmp_path / "other.safetensors"
    path.write_bytes(content if isinstance(content, bytes) else save({"weight": torch.zeros(1)}, content))
    with pytest.raises(DataError, match=said):
        load_trained(path, "cpu")


def test_a_safetensors_file_that_is_not_there():
    with pytest.raises(DataError, match="no such weights file"):
        load_trained("nowhere.safetensors", "cpu")


def test_the_suffix_names_the_format():
    assert format_of(Path("a.ONNX")) == "onnx"
    assert format_of(Path("a.bin"), "pt2") == "pt2"
    with pytest.raises(UsageError, match="names no format"):
        format_of(Path("a.bin"))
    with pytest.raises(UsageError, match="says onnx and --to says pt2"):
        format_of(Path("a.onnx"), "pt2")
