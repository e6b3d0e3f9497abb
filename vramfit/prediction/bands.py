"""The 90 % bands around predictions, and what a band says of a budget. Bytes and seconds."""

from math import hypot

from vramfit.prediction.constants import CONSTANTS, Bands, MemoryKind
from vramfit.records import Band, Verdict


def memory_band(used_bytes: int, spread_bytes: int, kind: MemoryKind, bands: Bands = CONSTANTS.bands) -> Band:
    """The 90 % band of device use, wider the more the workspaces of cuDNN matter; see `Bands`."""
    scale = hypot(bands.memory_base * used_bytes, bands.floor_bytes, spread_bytes / 2)
    low, high = bands.memory[kind]
    return max(0, round(used_bytes + low * scale)), round(used_bytes + high * scale)


def band_verdict(band: Band, budget_bytes: int) -> Verdict:
    """`fits` if the high end of the band is within the budget, `risky` if the low end is, else `over_budget`.

    Of what the card would hold if nothing had to be released; `TracePredictor._verdict` has the last word.
    """
    if band[1] <= budget_bytes:
        return Verdict.FITS
    return Verdict.RISKY if band[0] <= budget_bytes else Verdict.OVER_BUDGET
