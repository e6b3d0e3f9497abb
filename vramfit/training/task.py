"""What the trainer needs to know of a kind of data: the job, its samples, and how to judge its outputs.

N samples, M figures a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vramfit.jobs.job import Batch, Job
from vramfit.training.listeners import Example
from vramfit.training.loading import Samples

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """How good a network is; the lower `mre_mm`, or the loss where there is none, the better."""

    mre_mm: float | None = None
    sdr: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """A job with its data."""

    @property
    def name(self) -> str:
        """Begins the names of log folders."""

    @property
    def job(self) -> Job:
        """What is trained."""

    @property
    def training(self) -> Samples:
        """What it is trained on."""

    @property
    def validation(self) -> Samples:
        """What it is judged on."""

    def start_weights(self, model: nn.Module) -> str:
        """Give a new network the weights to start from; one sentence of which."""

    def rows(self, outputs: Any, indices: Sequence[int]) -> Rows:
        """The figures, NxM, by which the outputs of some validation samples will be judged."""

    def examples(self, outputs: Any, indices: Sequence[int]) -> list[Example]:
        """Pictures of some validation samples and their outputs."""

    def weighted(self, batch: Batch, factors: Sequence[float]) -> Batch:
        """A training batch whose loss counts each figure with its factor."""

    def judge(self, rows: Rows) -> Judgement:
        """The verdict over the rows of all validation samples, in order of index."""

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must know to use the network without the training data; plain types."""
