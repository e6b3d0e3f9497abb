"""A training task: a job with its data, and how its outputs are judged. What an application gives to the engine.

N samples, M figures a sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vramfit.errors import UsageError
from vramfit.jobs.job import Batch, Job
from vramfit.records import Profile
from vramfit.training.listeners import Example
from vramfit.training.loading import Samples

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """How good a network is after an epoch.

    Attributes:
        metrics: figures by name, kept in every `EpochRecord`; TensorBoard shows them as `valid/NAME`.
        best_by: the metric that tells the best epoch; None for the validation loss.
        higher_is_better: whether the best epoch is the one where that metric is highest.

    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    best_by: str | None = None
    higher_is_better: bool = False

    def cost(self, loss: float) -> float:
        """What the best epoch has the least of."""
        if self.best_by is None:
            return loss
        return -self.metrics[self.best_by] if self.higher_is_better else self.metrics[self.best_by]


class Task(Protocol):
    """A job with its data, for `vramfit.train`: subclass it, and override what is more than the default.

    Three members are needed: `job`, `training` and `validation`. Samples are fetched by index, so that the order of an
    epoch, workers, a resume and several ranks give the same batches.

    >>> import torch, vramfit
    >>> from torch import nn
    >>> class Numbers:
    ...     def __len__(self):
    ...         return 8
    ...     def fetch(self, epoch, indices):
    ...         x = torch.linspace(-1, 1, 8)[list(indices), None]
    ...         return x, x ** 2
    >>> class Parabola(vramfit.Task):
    ...     job = vramfit.Job(
    ...         model=lambda: nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1)),
    ...         batch=lambda n: (torch.zeros(n, 1), torch.zeros(n, 1)),
    ...         loss=nn.functional.mse_loss,
    ...         optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    ...         amp=None,
    ...         name="parabola",
    ...     )
    ...     training = validation = Numbers()
    >>> Parabola().name
    'parabola'

    Known limitations: one job and one optimizer a task; validation sees every sample once, in order of index.
    """

    job: Job
    """What is trained."""

    training: Samples
    """What it is trained on."""

    validation: Samples
    """What it is judged on."""

    @property
    def name(self) -> str:
        """Begins the names of log folders."""
        return self.job.model_name or self.job.name

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that `judge` gives, the most telling first."""
        return ()

    @property
    def notes(self) -> Sequence[str]:
        """What a run should say of the data before it starts, one sentence each."""
        return ()

    def plan_notes(self, profile: Profile | None, effective_batch: int) -> Sequence[str]:  # noqa: ARG002  # says nothing
        """What a run should say of its plan before it starts, one sentence each; no profile where there is no card."""
        return ()

    def start_weights(self, model: nn.Module) -> str:  # noqa: ARG002  # a task without weights of its own
        """Give a new network the weights to start from; one sentence of which."""
        return "Weights: random."

    def rows(self, outputs: Any, indices: Sequence[int]) -> Rows:  # noqa: ARG002  # nothing is judged but the loss
        """The figures, NxM, by which the outputs of some validation samples will be judged."""
        return np.zeros((len(indices), 0))

    def judge(self, rows: Rows) -> Judgement:  # noqa: ARG002  # nothing is judged but the loss
        """The verdict over the rows of all validation samples, in order of index."""
        return Judgement()

    def metric_words(self, metrics: Mapping[str, float]) -> list[str]:
        """Metrics as an epoch's line shows them, such as `top-1 93.1 %`, the most telling first."""
        return [f"{name} {value:.4g}" for name, value in metrics.items()]

    def examples(self, outputs: Any, indices: Sequence[int]) -> list[Example]:  # noqa: ARG002  # it has no pictures
        """Pictures of some validation samples and their outputs."""
        return []

    def weighted(self, batch: Batch, factors: Sequence[float]) -> Batch:  # noqa: ARG002  # see Raises
        """A training batch whose loss counts each figure of a row with its factor.

        Raises:
            UsageError: this task cannot.

        """
        raise UsageError(f"--difficulty is not possible here: '{self.name}' weighs no figures; leave it out.")

    def describe(self, job: Job) -> dict[str, Any]:
        """What a checkpoint must know to use the network without the training data; plain types.

        `job` is what was trained: the task's own, with the levers that were chosen.
        """
        return {"kind": job.name}

    def finish(self, best: Path, device: torch.device) -> Sequence[str]:  # noqa: ARG002  # nothing is left to do
        """What is left to do once a run is over, with its best checkpoint, on the first rank; a sentence each of it."""
        return ()
