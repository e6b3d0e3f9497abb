"""What a step of one's own is given: the network, and backward and update as the shared step does them."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vramfit.errors import UsageError
from vramfit.jobs.optimizers import Optimizers

if TYPE_CHECKING:
    from vramfit.jobs.step import Step


class Run:
    """One step under way, in autocast; a job's `step` calls it.

    A generator and a critic in turn:

        def step(run, images):
            fakes = run.model["generator"](noise_for(images))
            critic = run.model["critic"](images).mean() - run.model["critic"](fakes.detach()).mean()
            run.backward(critic)
            run.update("critic")
            generator = run.model["critic"](fakes).mean()
            run.backward(generator)
            run.update("generator")
            return critic.detach() + generator.detach()

    An update clears the gradients of its own optimizer, the end of a step those of all: what the generator's loss left
    in the critic is gone before the next step.
    """

    def __init__(self, step: "Step") -> None:
        self._step = step
        self.updated = False

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._step.model

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._step.device

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Add a loss' gradients to those that are there, with the scaler's scale."""
        self._step.phase = "backward"
        with torch.autocast(self.device.type, enabled=False):
            self._step.precision.scaler.scale(loss).backward(retain_graph=retain_graph)

    def update(self, name: str | None = None) -> None:
        """Clip, step and clear: of the optimizer that is named after a module, or of all.

        Raises:
            UsageError: the job has no optimizer of that name.

        """
        optimizer = self._step.optimizer
        if name is not None:
            parts = optimizer.parts if isinstance(optimizer, Optimizers) else {}
            if name not in parts:
                known = ", ".join(parts) or "one alone, which run.update() steps"
                raise UsageError(f"step of '{self._step.job.name}' updates '{name}'; its optimizers are {known}.")
            optimizer = parts[name]
        self._step.phase = "optimizer"
        with torch.autocast(self.device.type, enabled=False):
            self._step.step_optimizer(optimizer, [p for group in optimizer.param_groups for p in group["params"]])
        optimizer.zero_grad(set_to_none=True)
        self.updated = True
