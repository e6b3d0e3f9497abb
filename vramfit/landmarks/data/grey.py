"""Grey values as bytes, spread over what a film shows where they are of more than 8 bits, or of 8 and dark.

Films of 12 bits are often stored in 16, with markers burned in at the highest value and borders at the lowest: scaled
by those, tissue would share a handful of grey levels. Others were made 8-bit by such a scaling, and show all that they
show in their lowest quarter.
"""

import numpy as np
from numpy.typing import NDArray

_PERCENTILES = (1.0, 99.0)
# What lies farther outside the percentiles than this share of their distance is no tissue.
_BEYOND = 0.25
_SAMPLE_PIXELS = 1_000_000
# 8 bits are dark where all but a hundredth of what is not black is below a quarter of white ...
_DARK = 64
# ... and shows more than noise.
_FEWEST_LEVELS = 8


def to_bytes(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """HxW grey values of any type as uint8; 8 bits are left as they are, unless they are dark."""
    if pixels.dtype == np.uint8 and not is_dark(pixels):
        return pixels.astype(np.uint8, copy=False)
    wide = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = _tissue(wide)
    scaled: NDArray[np.uint8] = (np.clip((wide - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return scaled


def is_dark(pixels: NDArray[np.generic]) -> bool:
    """Whether an HxW film of 8 bits shows all that it shows in the lowest quarter of grey; never of other types."""
    if pixels.dtype != np.uint8 or not pixels.size:
        return False
    step = max(1, int(np.sqrt(pixels.size / _SAMPLE_PIXELS)))
    counts = np.bincount(pixels[::step, ::step].astype(np.uint8, copy=False).ravel(), minlength=256)
    shares = np.cumsum(counts[1:]) / max(1, counts[1:].sum())
    low, high = (int(np.searchsorted(shares, percent / 100)) + 1 for percent in _PERCENTILES)
    return high - low >= _FEWEST_LEVELS and high < _DARK


def _tissue(values: NDArray[np.float32]) -> tuple[float, float]:
    """The lowest and highest value of what is shown, without what stands apart from it.

    The lowest is 0 where nothing is below: black means no dose there.
    """
    step = max(1, int(np.sqrt(values.size / _SAMPLE_PIXELS)))
    least, most = float(values.min()), float(values.max())
    sample = values[::step, ::step]
    inner = sample[(sample > least) & (sample < most)]
    first, last = np.percentile(inner if inner.size else sample, _PERCENTILES)
    beyond = _BEYOND * (last - first)
    shown = values[(values >= first - beyond) & (values <= last + beyond)]
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (least, most)
    return (min(low, 0.0) if 0 <= low <= 0.5 * high else low), high
