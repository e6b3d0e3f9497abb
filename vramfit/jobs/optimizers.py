"""A job's optimizer, or several as one: each learns the parameters of a part of the network."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from vramfit.errors import UsageError
from vramfit.jobs.closures import wants_closure

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Optimizers(torch.optim.Optimizer):
    """Several optimizers as one: their groups, their state, their steps. `parts` are they, by the module they learn."""

    def __init__(self, parts: Mapping[str, torch.optim.Optimizer]) -> None:
        self.parts = dict(parts)
        super().__init__([group for part in self.parts.values() for group in part.param_groups], {})
        self._share()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no part is asked for a loss
        """Step every part."""
        if closure is not None:
            raise UsageError("Several optimizers take no closure.")
        for part in self.parts.values():
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """One state for all, which is kept by parameter, and each part's own groups."""
        groups = iter(self.param_groups)
        for part in self.parts.values():
            self.state.update(part.state)
            part.state = self.state
            part.param_groups = [next(groups) for _ in part.param_groups]


def build_optimizer(
    factory: OptimizerFactory | Mapping[str, OptimizerFactory], model: nn.Module, job: str
) -> torch.optim.Optimizer:
    """The optimizer of what learns in a network; of several factories, each for the module that it is named after.

    Raises:
        UsageError: nothing learns, no such module, or what is made is no optimizer that can step by itself.

    """
    if not isinstance(factory, Mapping):
        return _build(factory, model, job)
    known = dict(model.named_modules())
    for name in factory:
        if name not in known:
            parts = ", ".join(child for child, _ in model.named_children())
            raise UsageError(
                f"optimizer of '{job}' names '{name}', and the network has no such module; it has {parts}."
            )
    made = {name: _build(one, known[name], job) for name, one in factory.items()}
    for name, part in made.items():
        if wants_closure(part):
            raise UsageError(
                f"optimizer of '{job}' has {type(part).__name__} for '{name}', which wants the loss several times in "
                "each step and has to be the only optimizer; choose another one, such as torch.optim.AdamW."
            )
    return Optimizers(made)


def optimizer_name(factory: OptimizerFactory | Mapping[str, OptimizerFactory]) -> str:
    """What a job's optimizer is called in tables, several joined by a plus."""
    factories = factory.values() if isinstance(factory, Mapping) else [factory]
    return "+".join(type(one([nn.Parameter(torch.empty(1))])).__name__ for one in factories)


def _build(factory: OptimizerFactory, model: nn.Module, job: str) -> torch.optim.Optimizer:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning:
        raise UsageError(f"Nothing of '{job}' learns: its network has no parameters, or all of them are frozen.")
    try:
        optimizer = factory(learning)
    except AttributeError as error:
        raise UsageError(
            f"optimizer of '{job}' fails on the list of parameters that it is given ({error}); write "
            "optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-4)."
        ) from error
    if not all(hasattr(optimizer, name) for name in ("step", "zero_grad", "param_groups", "state")):
        raise UsageError(
            f"optimizer of '{job}' returned {type(optimizer).__name__}; let it return the torch optimizer alone."
        )
    return optimizer


def learning_rate(factory: OptimizerFactory | Mapping[str, OptimizerFactory]) -> float:
    """The highest learning rate among the groups of an optimizer, or of several."""
    parts = factory.values() if isinstance(factory, Mapping) else [factory]
    groups = [group for part in parts for group in part([nn.Parameter(torch.empty(1))]).param_groups]
    return max(float(group["lr"]) for group in groups)
