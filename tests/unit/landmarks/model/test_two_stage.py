"""Two stages: the crops lie where they should, learn, come back into the film, and leave in one file."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from vramfit.errors import DataError, UsageError
from vramfit.jobs.step import Step
from vramfit.landmarks.model.decode import decode
from vramfit.landmarks.model.job import landmark_job
from vramfit.landmarks.model.options import LandmarkJobOptions
from vramfit.landmarks.model.two_stage import (
    StageSizes,
    TwoStageNetwork,
    area_weights,
    crop_origins,
    cut,
    load_stages,
    scattered,
)
from vramfit.prediction.tracing.trace import trace_step
from vramfit.prediction.transforms.rescale import AffineTrace

ONE = LandmarkJobOptions(model="hrnet_w18_small", image_size=(64, 96), landmarks=3)
TWO = replace(ONE, image_size=(128, 192), coarse_size=(64, 96), crop_size=32, heatmap_stride=2)

SIZES = StageSizes((128, 192), (64, 96), 32, 2)


def network(options=TWO):
    return landmark_job(options).model()


@pytest.mark.parametrize(("length", "shorter"), [(800, 320), (96, 96), (100, 64)])
def test_shrinking_is_opencvs_mean_over_areas(length, shorter):
    film = np.random.default_rng(0).uniform(0, 1, (length, 7)).astype(np.float32)
    mine = area_weights(length, shorter) @ torch.from_numpy(film)
    theirs = cv2.resize(film, (7, shorter), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-5)


def test_crops_lie_around_their_centres_within_the_image_on_the_strides_grid():
    centres = torch.tensor([[[90.3, 60.9], [0.0, 127.0], [torch.nan, torch.nan]]])
    origins = crop_origins(centres, SIZES)
    assert origins.tolist() == [[[74, 44], [0, 96], [80, 48]]]
    films = torch.arange(128 * 192, dtype=torch.float32).view(1, 1, 128, 192)
    crops = cut(films, origins, 32)
    assert torch.equal(crops[0, 0], films[0, 0, 44:76, 74:106])
    assert torch.equal(crops[0, 1], films[0, 0, 96:, :32])


def test_a_heatmap_of_a_crop_comes_back_to_its_place_in_the_film(monkeypatch):
    step = Step(landmark_job(TWO), "cpu")
    centres = torch.tensor([[[50.0, 60.0], [100.0, 30.0], [185.0, 120.0]]])
    monkeypatch.setattr(TwoStageNetwork, "_seen_small", lambda _self, _films: centres)
    model = step.model.eval()
    model.fine.last_bias.data.fill_(0.5)  # peaks that are high enough for zeros around them
    films = torch.rand(1, 1, 128, 192)
    with torch.no_grad():
        whole, crops = model(films), model(films, centres)
    assert whole.shape == (1, 3, 64, 96)
    origins = crop_origins(centres, SIZES)
    for landmark, (x, y) in enumerate((origins[0] // 2).tolist()):
        assert torch.equal(whole[0, landmark, y : y + 16, x : x + 16], crops[0, landmark])
        assert whole[0, landmark].count_nonzero() <= 16 * 16


@pytest.mark.parametrize("method", ["dark", "soft", "argmax"])
@pytest.mark.parametrize("heatmap", ["negative", "low", "flat"])
def test_a_point_that_the_second_stage_does_not_find_stays_in_its_crop(monkeypatch, method, heatmap):
    centres = torch.tensor([[[50.0, 60.0], [100.0, 30.0], [185.0, 120.0]]])
    monkeypatch.setattr(TwoStageNetwork, "_seen_small", lambda _self, _films: centres)
    crops = torch.full((1, 3, 16, 16), -0.05)
    if heatmap != "flat":
        crops[..., 7, 9] = {"negative": -0.01, "low": 0.02}[heatmap]
    model = network().eval()
    monkeypatch.setattr(model.fine, "forward", lambda _crops: crops)
    points, confidence = decode(model(torch.rand(1, 1, 128, 192)), 2, method)
    origins = crop_origins(centres, SIZES)
    assert ((points >= origins) & (points < origins + 32)).all()
    assert (confidence < 0.05).all()
    if heatmap != "flat":
        # Heatmap pixel (9, 7) has its centre at image pixel (18.5, 14.5); a step is at most one heatmap pixel.
        assert (points - origins - torch.tensor([18.5, 14.5])).abs().max() <= 2


def test_a_target_of_a_crop_is_that_of_the_film():
    job = landmark_job(TWO)
    (inputs, points) = job.batch(2)
    inputs["photometric"][:, 4] = torch.tensor([0.2, 0.7])
    seen, (heatmaps, weights) = job.prepare(inputs, points, True)
    origins = crop_origins(seen["centres"], SIZES)
    found, _ = decode(heatmaps, 2)
    assert weights.all()
    inner = ((points - origins) > 6).all(-1) & ((points - origins) < 26).all(-1)
    assert inner.any()
    assert (found + origins - points)[inner].abs().max() < 0.2


def test_points_are_scattered_evenly_by_their_seed_alone():
    points = torch.zeros(2, 500, 2)
    moved = scattered(points, torch.tensor([0.1, 0.6]), 32)
    assert torch.equal(moved[1], scattered(points[:1], torch.tensor([0.6]), 32)[0])
    assert moved.abs().max() <= 8
    assert moved.std() == pytest.approx(16 / 12**0.5, rel=0.05)
    assert not torch.equal(moved[0], moved[1])


def test_the_second_stage_learns_and_the_first_stays():
    job = landmark_job(TWO)
    step = Step(job, "cpu")
    before = {name: value.clone() for name, value in step.model.coarse.state_dict().items()}
    batch = job.batch(2)
    losses = [step.train(batch, 2).item() for _ in range(8)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in step.model.coarse.state_dict().items())
    outputs, _ = step.validate(batch)
    assert outputs.shape == (2, 3, 64, 96)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_every_stride_gives_heatmaps_of_its_size(stride):
    assert network(replace(TWO, heatmap_stride=stride))(torch.rand(1, 1, 128, 192)).shape[2] == 128 // stride


def test_a_second_stage_is_a_straight_line_in_the_batch():
    job = landmark_job(TWO)
    line = AffineTrace.through(trace_step(job, 2), trace_step(job, 3))
    assert line is not None
    assert line.at(5).events == trace_step(job, 5).events


def test_weights_of_a_first_stage_or_of_both(tmp_path):
    first, both = Step(landmark_job(ONE), "cpu").model, network()
    torch.save({"model": first.state_dict()}, tmp_path / "first.pth")
    torch.save({"model": both.state_dict()}, tmp_path / "both.pth")
    mine = network()
    assert "first stage" in load_stages(mine, str(tmp_path / "first.pth"))
    assert torch.equal(mine.coarse.head[0].weight, first.head[0].weight)
    assert "both stages" in load_stages(mine, str(tmp_path / "both.pth"))
    assert torch.equal(mine.fine.down[0][0].conv.weight, both.fine.down[0][0].conv.weight)


def test_without_a_first_stage_there_is_none_to_train(tmp_path):
    torch.save({"model": network(replace(TWO, landmarks=5)).state_dict()}, tmp_path / "other.pth")
    for source, said in (("auto", "--weights FILE"), (str(tmp_path / "other.pth"), "do not fit the first stage")):
        with pytest.raises(DataError, match=said):
            load_stages(network(), source)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"coarse_size": (64, 64)}, "does not suit"),
        ({"coarse_size": (256, 384)}, "does not suit"),
        ({"crop_size": 40}, "multiple of 16"),
        ({"crop_size": 160}, "multiple of 16"),
        ({"freeze": ("stem",)}, "does not learn"),
    ],
)
def test_sizes_that_make_no_two_stages(changed, said):
    with pytest.raises(UsageError, match=said):
        replace(TWO, **changed)


def test_crops_without_a_second_stage_are_refused_but_in_a_checkpoint():
    with pytest.raises(UsageError, match="--crop-size 64 is of a second stage; ask for that with --coarse-size"):
        replace(ONE, crop_size=64)
    assert LandmarkJobOptions.from_plain(ONE.plain() | {"crop_size": 64}) == ONE


def test_options_come_back_from_plain_values():
    assert LandmarkJobOptions.from_plain(TWO.plain()) == TWO
