"""The learning rate of every step: a linear warm-up, then half a cosine to the last step of the run.

    lr(t) = base (t + 1) / w                                               for t < w
    lr(t) = minimum + (base - minimum) (1 + cos(pi (t - w) / (T - 1 - w))) / 2   from there to t = T - 1

with T steps in all and w of warm-up (Loshchilov and Hutter, 2017, without restarts). It is a function of the step
alone: a run that resumes needs no state but its position.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch


def learning_rate(step: int, *, base: float, warmup_steps: int, total_steps: int, minimum: float = 0.0) -> float:
    """The learning rate of one step, counted from 0; `minimum` from the last one on."""
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    left = total_steps - 1 - warmup_steps
    done = min(1.0, (step - warmup_steps) / left) if left > 0 else 1.0
    return minimum + (base - minimum) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class WarmupCosine:
    """The schedule of one run, for each of an optimizer's parameter groups."""

    bases: tuple[float, ...]
    warmup_steps: int
    total_steps: int
    minimum: float = 0.0

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer, *, warmup_steps: int, total_steps: int, minimum: float = 0.0) -> Self:
        """The schedule of a fresh optimizer, whose groups hold their base rates."""
        bases = tuple(float(group["lr"]) for group in optimizer.param_groups)
        # A warm-up longer than the run would never reach the base rate.
        return cls(bases, min(warmup_steps, max(0, total_steps - 1)), total_steps, minimum)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set the rates of one step; returns the highest."""
        rates = [
            learning_rate(
                step,
                base=base,
                warmup_steps=self.warmup_steps,
                total_steps=self.total_steps,
                minimum=self.minimum,
            )
            for base in self.bases
        ]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        return max(rates)

    def state_dict(self, step: int) -> dict[str, Any]:
        """What the schedule was, and the next step, for a checkpoint's readers."""
        return {
            "bases": list(self.bases),
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "minimum": self.minimum,
            "step": step,
        }
