"""What stands between a plan and its first step: the card's limit, the network, the loading processes, a checkpoint."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import torch

from vramfit.jobs.job import Job
from vramfit.jobs.levers.compile import compile_network
from vramfit.jobs.ranks import Ranks
from vramfit.jobs.step import Step
from vramfit.training.batch_plan import Decision
from vramfit.training.listeners import Listener
from vramfit.training.loader_tuning import choose_loader_settings
from vramfit.training.loop import Loop
from vramfit.training.memory_limit import limit_memory
from vramfit.training.recovery import made_again
from vramfit.training.resume import Resumed
from vramfit.training.run_folders import make_room
from vramfit.training.run_options import RunOptions
from vramfit.training.task import Task


@dataclass(frozen=True)
class Launch:
    """Everything that is known before the loop is made."""

    task: Task
    job: Job
    options: RunOptions
    ranks: Ranks
    device: torch.device
    resumed: Resumed | None
    now: datetime

    def loop(self, decision: Decision, listeners: Sequence[Listener]) -> tuple[Loop, list[str]]:
        """The loop, ready to run, and the decisions made on the way, as sentences."""
        options, ranks, task = self.options, self.ranks, self.task
        planned = decision.profile.budget if decision.profile and options.gpu is None else None
        # The card is capped before anything is built on it.
        memory, limited = limit_memory(self.job, options, self.device, planned)
        step, built = self._step()
        loader = choose_loader_settings(task.training, options, decision, self.device, ranks)
        notes: list[str | None] = [*task.plan_notes(decision.profile, decision.effective_batch), *task.notes]
        if self.device.type == "cpu" and self.job.amp == "fp16":
            notes.append("fp16 on a CPU runs as fp32.")
        notes += [*decision.notes, *limited, *built, loader.reason]
        if ranks.is_first:
            notes.append(make_room(options.save_dir, self.resumed.path if self.resumed else None, self.now))
        loop = Loop(task, step, options, decision, loader=loader, ranks=ranks, listeners=listeners, memory=memory)
        if self.resumed is not None:
            loop.resume(self.resumed.content)
            notes.append(self.resumed.note(options, decision.effective_batch))
        return loop, [note for note in notes if note]

    def _step(self) -> tuple[Step, list[str]]:
        """The step with its first weights, the same on all ranks; random states are seeded before and after."""

        def build() -> Step:
            _seed(self.options.seed)
            return Step(self.job, self.device)

        step = made_again(build, "the network and its weights")
        notes = []
        if self.resumed is not None:
            self.resumed.require_model_of(self.job)
        else:
            notes.append(self.task.start_weights(step.model))
        self.ranks.share_weights(step.model)
        if step.average is not None:
            step.average.model.load_state_dict(step.model.state_dict())
        if self.options.compile and step.model._compiled_call_impl is None:
            compile_network(step.model, 1.0)
        _seed(self.options.seed + self.ranks.rank)
        return step, notes


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
