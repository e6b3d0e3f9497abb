"""Recomputation as a library has it built in: Hugging Face's models, diffusers', timm's."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from vramfit.errors import UsageError
from vramfit.jobs.levers.kind import LeverKind
from vramfit.jobs.levers.registry import register

if TYPE_CHECKING:
    from torch import nn

    from vramfit.jobs.job import Job
    from vramfit.records import Lever


@register
class GradientCheckpointing(LeverKind):
    """The network's own checkpointing: it keeps the inputs of its blocks and runs them again in the backward pass.

    Known limitation: BatchNorm's running statistics move twice in each step; the lever recompute moves them once.
    """

    name = "gradient_checkpointing"
    cost = "time"
    order = 22
    exact = True
    conflicts: ClassVar[Mapping[str, str]] = {
        "recompute": "gradient_checkpointing recomputes the blocks that recompute would; use one of the two levers.",
        "compile": "compile itself chooses what to recompute; use one of the two levers compile and "
        "gradient_checkpointing.",
    }

    def may_save(self, job: "Job", model: "nn.Module") -> bool:
        """Where the network, or a part of it, has it; not beside BatchNorm, whose statistics would move twice."""
        from vramfit.jobs.job import has_batch_norm

        return bool(_enablers(model)) and not has_batch_norm(model)

    def on_network(self, model: "nn.Module", lever: "Lever") -> None:
        """Turn it on in every part that has it.

        Raises:
            UsageError: no part has it.

        """
        enablers = _enablers(model)
        if not enablers:
            raise UsageError(
                f"{type(model).__name__} has no gradient checkpointing of its own (gradient_checkpointing_enable); use "
                "the lever recompute, which works on any network."
            )
        for enable in enablers:
            enable()


def _enablers(model: "nn.Module") -> list[Callable[[], Any]]:
    """What turns checkpointing on in the outermost parts that have it."""
    found: dict[str, Callable[[], Any]] = {}
    for name, module in model.named_modules():
        enable = _enabler(module)
        if enable is not None and not any(name.startswith(f"{outer}.") or not outer for outer in found):
            found[name] = enable
    return list(found.values())


def _enabler(module: Any) -> Callable[[], Any] | None:
    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):  # transformers 5 and before
        if hasattr(module, name) and getattr(module, "supports_gradient_checkpointing", True):
            return partial(getattr(module, name), {"use_reentrant": False})
    if hasattr(module, "enable_gradient_checkpointing"):  # diffusers
        return module.enable_gradient_checkpointing if module._supports_gradient_checkpointing else None
    if hasattr(module, "set_grad_checkpointing"):  # timm
        return lambda: module.set_grad_checkpointing(True)
    return None
