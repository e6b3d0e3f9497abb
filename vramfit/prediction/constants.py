"""The fitted constants of the prediction, read from `constants.json`.

`benchmarks/prediction_accuracy.py --fit` writes the file; each group says there what it was fitted to.
"""

from importlib.resources import files
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat

from vramfit.records import Bytes, Record

MemoryKind = Literal["half convolution", "half other", "float32 convolution", "float32 other"]


class ContextConstants(Record):
    """The CUDA context, in bytes.

    `base_bytes` of an architecture, `thread_bytes` for every thread that the card can hold (its stack), and
    `memory_share` of the card's memory (its page tables). `assumed_bytes` stands for architectures that nobody
    measured; `eager_bytes` for any card before CUDA 11.7, which loaded every kernel at once.
    """

    fitted_to: str
    base_bytes: dict[str, Bytes]
    thread_bytes: Bytes
    memory_share: NonNegativeFloat
    assumed_bytes: Bytes
    eager_bytes: Bytes


class HiddenConstants(Record):
    """Hidden memory.

    The most workspace that a convolution takes, as a share of its input and output bytes, by layout and kernel; and
    the parts of the most at which a step is replayed, for which kernel cuDNN picks is not known. `half_share` is that
    of half precision since Ampere without cudnn.benchmark. `slack` is what a run reserves over the replay of its
    steps; `benchmark_slack` the same with cudnn.benchmark, whose trials of algorithms take memory of their own, and
    `hopper_slack` of half-precision convolutions on Hopper.
    """

    fitted_to: str
    context: ContextConstants
    heuristic_share: dict[str, NonNegativeFloat]
    half_share: dict[str, NonNegativeFloat]
    benchmark_share: dict[str, NonNegativeFloat]
    replayed_parts: tuple[NonNegativeFloat, ...]
    slack: dict[MemoryKind, PositiveFloat]
    benchmark_slack: PositiveFloat
    hopper_slack: PositiveFloat


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
    `memory_base` x middle, of `floor_bytes` (the context of a small job is as uncertain as that of a large one) and of
    half the spread between replays with the least and the most workspace; low and high by the kind of job. Time:
    middle x low to middle x high.
    """

    fitted_to: str
    memory_base: PositiveFloat
    floor_bytes: Bytes
    memory: dict[MemoryKind, tuple[float, float]]
    time: tuple[PositiveFloat, PositiveFloat]


class Constants(Record):
    """Everything fitted."""

    hidden: HiddenConstants
    time: TimeConstants
    bands: Bands


CONSTANTS = Constants.model_validate_json(files("vramfit.prediction").joinpath("constants.json").read_text("utf-8"))
