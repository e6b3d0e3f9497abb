"""The fitted constants of the prediction, read from `constants.json`.

`benchmarks/prediction_accuracy.py --fit` writes the file; each group says there what it was fitted to.
"""

from importlib.resources import files

from pydantic import NonNegativeFloat, PositiveFloat

from vramfit.records import Bytes, Record


class HiddenConstants(Record):
    """Hidden memory.

    The most workspace that a convolution takes, as a share of its input and output bytes, by layout and kernel; and
    the parts of the most at which a step is replayed, for which kernel cuDNN picks is not known. `slack` is what a run
    reserves over what the replay of its steps does.
    """

    fitted_to: str
    context_bytes: dict[str, Bytes]
    heuristic_share: dict[str, NonNegativeFloat]
    benchmark_share: dict[str, NonNegativeFloat]
    replayed_parts: tuple[NonNegativeFloat, ...]
    slack: PositiveFloat


class TimeConstants(Record):
    """Shares of a card's peak rates that kernels reach, by kind of operation, and the time to launch one.

    `shares`: kind -> (share of the arithmetic rate, share of the bandwidth). Seconds.
    """

    fitted_to: str
    shares: dict[str, tuple[PositiveFloat, PositiveFloat]]
    kernel_s: PositiveFloat
    launch_s: PositiveFloat


class Bands(Record):
    """90 % bands, from residuals.

    Memory: middle + low x scale to middle + high x scale, where the scale is the root of the sum of the squares of
    `memory_base` x middle and of half the spread between replays with the least and the most workspace. Time:
    middle x low to middle x high.
    """

    fitted_to: str
    memory_base: PositiveFloat
    memory: tuple[float, float]
    time: tuple[PositiveFloat, PositiveFloat]


class Constants(Record):
    """Everything fitted."""

    hidden: HiddenConstants
    time: TimeConstants
    bands: Bands


CONSTANTS = Constants.model_validate_json(files("vramfit.prediction").joinpath("constants.json").read_text("utf-8"))
