"""Fourier transforms under autocast: in half precision where cuFFT has it, and refused where no card has it."""

import pytest
import small_runs as small
import torch
from torch import nn

from vramfit.errors import NotTraceable
from vramfit.prediction.tracing.trace import trace_step

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
N, C, SIDE = 4, 8, 32


class Filtered(nn.Module):
    """A convolution whose result is filtered in the frequencies."""

    def __init__(self, side=SIDE, there=torch.fft.rfft2, back=torch.fft.irfft2):
        super().__init__()
        self.layer, self.side, self.there, self.back = nn.Conv2d(3, C, 3, padding=1), side, there, back

    def forward(self, images):
        waves = self.there(self.layer(images), s=(self.side, self.side))
        return self.back(waves * 2, s=(SIDE, SIDE)).real.mean((1, 2, 3))


def traced(amp, **options):
    def images(samples):
        return torch.randn(samples, 3, SIDE, SIDE), torch.randn(samples)

    model = lambda: Filtered(**options)  # noqa: E731  # a job's factory
    return trace_step(small.job(model=model, batch=images, loss=nn.functional.mse_loss, amp=amp), N)


def waves(trace):
    return [one.size_bytes for one in trace.storages if one.op.startswith("_fft_")]


@pytest.mark.parametrize(
    "options", [{}, {"side": 64}, {"side": 16}, {"there": torch.fft.fft2, "back": torch.fft.ifft2}]
)
def test_in_half_precision_each_transform_is_half_as_large(options):
    whole, half = waves(traced(None, **options)), waves(traced("fp16", **options))
    assert whole == [2 * size for size in half]
    assert len(whole) >= 4  # there and back, forward and backward


@pytest.mark.parametrize("options", [{"side": 48}, {"side": 48, "there": torch.fft.fft2}])
def test_half_precision_of_a_length_that_is_no_power_of_two_is_refused_as_by_cufft(options):
    with pytest.raises(NotTraceable, match=r"powers of two alone, and these are \[48, 48\].*x\.float\(\)"):
        traced("fp16", **options)


def test_bfloat16_is_refused_for_no_card_transforms_it():
    with pytest.raises(NotTraceable, match=r"no card has a Fourier transform of bfloat16.*x\.float\(\)"):
        traced("bf16")
