"""What must hold of any film size, position and film."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.landmarks.data.letterbox import Letterbox
from vramfit.landmarks.loading.augment import draw, move, preset
from vramfit.landmarks.model.decode import decode
from vramfit.landmarks.model.heatmap import render
from vramfit.landmarks.model.loss import adaptive_wing

sides = st.integers(16, 6000)
multiples = st.integers(2, 32).map(lambda number: 32 * number)
shares = st.floats(0, 1)


@given(width=sides, height=sides, size=st.tuples(multiples, multiples), x=shares, y=shares)
def test_letterbox_comes_back_exactly(width, height, size, x, y):
    box = Letterbox.of((width, height), size)
    point = np.array([x * width, y * height])
    np.testing.assert_allclose(box.to_film(box.to_image(point)), point, atol=1e-3)


@given(width=sides, height=sides, size=st.tuples(multiples, multiples))
def test_letterbox_holds_the_whole_film(width, height, size):
    box = Letterbox.of((width, height), size)
    corners = box.to_image(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    assert (corners >= -0.5 - 1e-9).all()
    assert (corners <= np.array(size[::-1]) - 0.5 + 1e-9).all()
    assert np.ptp(corners, axis=0).max() == pytest.approx(max(box.inner))


@given(width=st.integers(200, 3000), height=st.integers(200, 3000), x=st.floats(0.1, 0.9), y=st.floats(0.1, 0.9))
def test_film_to_heatmap_and_back(width, height, x, y):
    box = Letterbox.of((width, height), (128, 128))
    point = np.array([x * width, y * height])
    placed = torch.from_numpy(box.to_image(point)).view(1, 1, 2)
    found, confidence = decode(render(placed, (128, 128), 4, 1.5), 4)
    inner = torch.tensor(box.inner).min().item()
    if inner > 64:
        assert (found - placed).abs().max().item() < 4 * 0.05
    assert 0.8 < confidence.item() <= 1


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_dark_finds_noisy_gaussians(seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(8, 16, 2, generator=generator) * 160 + 48
    heatmaps = render(points, (256, 256), 4, 2.0)
    heatmaps += 0.01 * torch.randn(heatmaps.shape, generator=generator)
    found, _ = decode(heatmaps, 4, "dark")
    assert ((found - points) / 4).norm(dim=-1).mean().item() < 0.05


@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 10_000), film=st.text(max_size=20))
def test_affine_can_be_undone(seed, epoch, film):
    matrix = draw(preset("strong"), (96, 64), seed, epoch, film).matrix
    points = np.array([[0.0, 0.0], [63.0, 95.0]])
    back = (move(points, matrix) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    np.testing.assert_allclose(back, points, atol=1e-6)


@given(st.lists(st.tuples(shares, st.floats(-3, 3)), min_size=1, max_size=8))
def test_adaptive_wing_is_never_negative_and_grows(pairs):
    target = torch.tensor([y for y, _ in pairs]).view(1, -1, 1, 1)
    error = torch.tensor([d for _, d in pairs]).view(1, -1, 1, 1)
    near, far = adaptive_wing(target + error, target), adaptive_wing(target + 1.5 * error, target)
    assert near.item() >= 0
    assert far.item() >= near.item() - 1e-4
