import pytest
import torch

from vramfit.landmarks.model import loss as module
from vramfit.landmarks.model.loss import adaptive_wing


def plain(prediction, target, weights):
    """The formula written out, for autograd to differentiate."""
    power = 2.1 - target
    distance = (target - prediction).abs()
    slope = 14 * power * 0.5 ** (power - 1) / (1 + 0.5**power)
    offset = 0.5 * slope - 14 * torch.log(1 + 0.5**power)
    value = torch.where(distance < 0.5, 14 * torch.log(1 + distance**power), slope * distance - offset)
    dilated = torch.nn.functional.max_pool2d(target, 3, 1, 1)
    value = value * ((dilated > 0.2) * 10 + 1)
    return (value * weights[:, :, None, None]).mean()


def heatmaps(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 3, 6, 5, generator=generator, dtype=dtype) ** 4
    prediction = target + torch.randn(2, 3, 6, 5, generator=generator, dtype=dtype)
    weights = torch.tensor([[1.0, 0.0, 2.0], [1.0, 1.0, 0.5]], dtype=dtype)
    return prediction, target, weights


@pytest.mark.parametrize(("y", "expected", "factor"), [(1.0, 5.360, 11), (0.0, 2.935, 1)])
def test_known_values_at_the_join(y, expected, factor):
    target = torch.full((1, 1, 4, 4), y)
    value = adaptive_wing(target - 0.5, target)
    assert value.item() / factor == pytest.approx(expected, abs=1e-3)


def test_value_and_gradient_equal_autograd_of_the_formula():
    prediction, target, weights = heatmaps()
    ours, theirs = (prediction.clone().requires_grad_() for _ in range(2))
    adaptive_wing(ours, target, weights).backward()
    plain(theirs, target, weights).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert torch.all(ours.grad[0, 1] == 0)


def test_gradient_check():
    prediction, target, weights = heatmaps(3)
    assert torch.autograd.gradcheck(lambda p: adaptive_wing(p, target, weights), prediction.requires_grad_())


def gradient(prediction, target, weights):
    prediction = prediction.detach().clone().requires_grad_()
    adaptive_wing(prediction, target, weights).backward()
    return prediction.grad


@pytest.mark.parametrize("elements", [40, 61, 90, 100])
def test_pieces_change_nothing(monkeypatch, elements):
    prediction, target, weights = heatmaps()
    whole, slope = adaptive_wing(prediction, target, weights), gradient(prediction, target, weights)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", elements)
    torch.testing.assert_close(adaptive_wing(prediction, target, weights), whole)
    torch.testing.assert_close(gradient(prediction, target, weights), slope)


def test_gradient_keeps_the_memory_order_of_the_prediction():
    prediction, target, weights = heatmaps()
    across = prediction.contiguous(memory_format=torch.channels_last)
    assert gradient(across, target, weights).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gradient(across, target, weights), gradient(prediction, target, weights))


def test_half_precision_prediction_is_judged_in_float32():
    prediction, target, _ = heatmaps(dtype=torch.float32)
    half = prediction.half().requires_grad_()
    value = adaptive_wing(half, target)
    assert value.dtype == torch.float32
    value.backward()
    assert half.grad.dtype == torch.float16
    torch.testing.assert_close(value, adaptive_wing(prediction.half().float(), target))


def test_backward_keeps_prediction_and_target_alone():
    prediction, target, weights = heatmaps(dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        adaptive_wing(prediction.requires_grad_(), target, weights)
    assert sorted(kept) == [weights.numel(), target.numel(), target.numel()]


def test_equal_parts_average_to_the_whole():
    prediction, target, weights = heatmaps()
    parts = [adaptive_wing(prediction[i : i + 1], target[i : i + 1], weights[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(adaptive_wing(prediction, target, weights), sum(parts) / 2)
