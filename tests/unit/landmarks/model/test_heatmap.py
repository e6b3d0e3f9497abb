import math

import pytest
import torch

from vramfit.landmarks.model.heatmap import present, render, to_heatmap, to_image


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_pixel_centres_go_there_and_back(stride):
    points = torch.tensor([[0.0, 0.0], [1.5, 7.25]])
    torch.testing.assert_close(to_image(to_heatmap(points, stride), stride), points)
    assert to_image(torch.tensor(0.0), stride).item() == (stride - 1) / 2


def test_render_is_a_gaussian_at_the_sub_pixel_position():
    heatmap = render(torch.tensor([[[21.5, 9.5]]]), (64, 32), stride=4, sigma=1.5)
    assert heatmap.shape == (1, 1, 16, 8)
    # 21.5 is heatmap pixel 5, 9.5 is heatmap pixel 2.
    assert heatmap[0, 0, 2, 5].item() == pytest.approx(1)
    assert heatmap[0, 0, 4, 6].item() == pytest.approx(math.exp(-(1 + 4) / (2 * 1.5**2)))


def test_missing_and_outside_landmarks_are_not_present():
    points = torch.tensor([[[5.0, 5.0], [float("nan"), 5.0], [64.0, 5.0], [5.0, -1.0], [63.4, 31.4]]])
    assert present(points, (32, 64)).tolist() == [[1, 0, 0, 0, 1]]
    assert torch.isfinite(render(points, (32, 64), 4, 1.5)).all()
