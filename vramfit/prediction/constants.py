"""The fitted constants of the prediction, read from `constants.json`.

`benchmarks/prediction_accuracy.py --fit` writes the file; each group says there what it was fitted to.
"""

from importlib.resources import files

from pydantic import NonNegativeFloat, PositiveFloat

from vramfit.records import Bytes, Record


class HiddenConstants(Record):
    """Hidden memory. Shares are of the input and output bytes of a convolution, by layout and kernel."""

    fitted_to: str
    context_bytes: dict[str, Bytes]
    heuristic_share: dict[str, NonNegativeFloat]
    benchmark_share: dict[str, NonNegativeFloat]


class TimeConstants(Record):
    """Shares of a card's peak rates that kernels reach, by kind of operation, and the time to launch one.

    `shares`: kind -> (share of the arithmetic rate, share of the bandwidth). Seconds.
    """

    fitted_to: str
    shares: dict[str, tuple[PositiveFloat, PositiveFloat]]
    kernel_s: PositiveFloat
    launch_s: PositiveFloat


class Bands(Record):
    """90 % bands as shares of the middle, (low, high), from held-out residuals."""

    fitted_to: str
    memory: tuple[PositiveFloat, PositiveFloat]
    time: tuple[PositiveFloat, PositiveFloat]


class Constants(Record):
    """Everything fitted."""

    hidden: HiddenConstants
    time: TimeConstants
    bands: Bands


CONSTANTS = Constants.model_validate_json(files("vramfit.prediction").joinpath("constants.json").read_text("utf-8"))
