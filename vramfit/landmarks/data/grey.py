"""Grey values of more than 8 bits as bytes, spread over what a film shows.

Films of 12 bits are often stored in 16, with markers burned in at the highest value and borders at the lowest: scaled
by those, tissue would share a handful of grey levels.
"""

import numpy as np
from numpy.typing import NDArray

_PERCENTILES = (1.0, 99.0)
# What lies farther outside the percentiles than this share of their distance is no tissue.
_BEYOND = 0.25
_SAMPLE_PIXELS = 1_000_000


def to_bytes(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """HxW grey values of any type as uint8; 8 bits are left as they are."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    wide = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = _tissue(wide)
    scaled: NDArray[np.uint8] = (np.clip((wide - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return scaled


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
