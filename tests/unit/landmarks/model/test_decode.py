import pytest
import torch

from vramfit.landmarks.model.decode import decode
from vramfit.landmarks.model.heatmap import render


@pytest.mark.parametrize(("method", "limit"), [("dark", 0.01), ("soft", 0.5), ("argmax", 0.71)])
def test_methods_find_clean_gaussians(method, limit):
    points = torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(0)) * 80 + 24
    found, _ = decode(render(points, (128, 128), 4, 2.0), 4, method)
    assert ((found - points) / 4).norm(dim=-1).max().item() < limit


@pytest.mark.parametrize("method", ["dark", "soft"])
def test_flat_background_pulls_nothing_away(method):
    points = torch.tensor([[[100.0, 40.0]]])
    clean = render(points, (256, 256), 4, 2.0)
    moved = decode(clean + 0.01, 4, method)[0] - decode(clean, 4, method)[0]
    assert moved.norm().item() < 0.4


@pytest.mark.parametrize("place", [(0.0, 0.0), (127.0, 64.0), (3.0, 125.0)])
def test_border_points_stay_inside(place):
    found, _ = decode(render(torch.tensor([[place]]), (128, 128), 4, 2.0), 4)
    assert (found - torch.tensor([[place]])).abs().max().item() <= 4
    assert found.isfinite().all()


def test_empty_heatmap_has_a_point_and_no_confidence():
    found, confidence = decode(torch.zeros(1, 2, 16, 16, dtype=torch.float16), 4)
    assert found.isfinite().all()
    assert confidence.tolist() == [[0, 0]]
