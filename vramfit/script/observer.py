"""Follows an unchanged script through its steps: which phase runs, which module, when a step ends, when all is seen.

Nothing of the script is known beforehand, so each of these is read from what every script does: it calls a network
that has parameters, it calls `backward`, it steps an optimizer.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from itertools import filterfalse
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._pytree import tree_leaves

from vramfit.prediction.tracing.swapping import swap
from vramfit.script.card_recorder import CardRecorder
from vramfit.script.frameworks import validate_next
from vramfit.script.recorder import ScriptRecorder
from vramfit.script.samples import samples_in

# Of several optimizers (a GAN's) one may step more often than another; so many times more is waited for.
_PATIENCE = 10
# Batches that a library has taken from its loader before it needs them.
_PREFETCHED = 1
# How long a script may go on to its validation once its steps are made, in seconds.
_VALIDATION_S = 60.0


class Observer:
    """Notes a script's steps in a recorder; `finish` is called when enough is seen."""

    def __init__(self, recorder: ScriptRecorder | CardRecorder, steps: int, finish: Callable[[], None]) -> None:
        self.recorder = recorder
        self.steps = steps
        self.batch_size = 0  # of the largest micro-batch
        self.loader_ended = False  # whether the script was told that there are no more batches to learn from
        self.steps_made = 0  # of the optimizer that made most
        self._finish = finish
        self._stepped: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        self._trained: WeakSet[nn.Module] = WeakSet()
        self.on_network: Callable[[nn.Module], None] = lambda _: None  # called before a network first learns
        self._names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        self._depth = 0
        self.drawn = 0  # samples that a loader made its last batch of, where it is known
        self.by_hand = False  # whether the script moves its weights itself, without an optimizer of torch
        self.awaits_optimizer = False  # whether the script names torch's optimizers, and may first try its network out
        self._has_optimizer = False
        self._samples = 0  # of the step so far
        self._counted = False  # whether the micro-batch under way is among them
        self._done_at: float | None = None

    @property
    def phase(self) -> str:
        """What the script does at the moment."""
        return self.recorder.phase

    @property
    def networks(self) -> nn.ModuleList:
        """Those that were called to learn."""
        return nn.ModuleList(self._trained)

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Those that made a step."""
        return tuple(self._stepped)

    @property
    def validating(self) -> bool:
        """Whether a trained network was last called without gradients."""
        return self.recorder.phase == "validation"

    @property
    def done(self) -> bool:
        """Whether the steps that were asked for are made."""
        return self._done_at is not None

    @property
    def late(self) -> bool:
        """Whether a script whose steps are made has had its time to come to a validation."""
        return self._done_at is not None and time.monotonic() - self._done_at > _VALIDATION_S

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it, every module, backward pass and optimizer is watched."""
        with ExitStack() as stack:
            for handle in (
                global_hooks.register_module_forward_pre_hook(self._enter),
                global_hooks.register_module_forward_hook(self._leave, always_call=True),
                global_hooks.register_module_parameter_registration_hook(self._registered),
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            swap(stack, torch.autograd, "grad", self._backward(torch.autograd.grad))
            swap(stack, torch.autograd, "backward", self._backward(torch.autograd.backward, self._after_backward))
            swap(stack, Optimizer, "__init__", self._making(Optimizer.__init__))
            yield

    def epoch_begins(self) -> None:
        """Batches to learn from are asked for anew: if the steps are made, all is seen."""
        if self.done:
            self._finish()

    def batch_moves(self) -> None:
        """What is made from now on, until a network is called, is its input."""
        if self._trained and not self.validating:
            self.recorder.phase = "input"

    def note_batch(self, batch: Any) -> None:
        """Remember how many samples a loader brought, for networks that are called by keywords alone."""
        leaves = tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)
        self.recorder.brought = next((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()), 0)

    def _registered(self, module: nn.Module, name: str, parameter: Any) -> None:  # noqa: ARG002  # torch's signature
        if isinstance(parameter, nn.Parameter) and not isinstance(parameter, nn.parameter.UninitializedParameter):
            self.recorder.empty_weight(parameter)

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        if not self._depth:
            if next(module.parameters(), None) is None:
                return  # a loss or a transform
            self._begin_call(module, inputs)
        self._depth += 1
        self.recorder.enter(self._names.get(module, type(module).__name__), inputs)

    def _leave(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if not self._depth:
            return
        self._depth -= 1
        self.recorder.leave(output)
        # Without an output it failed, and the phase is where it did.
        if not self._depth and self.recorder.phase == "forward" and output is not None:
            self.recorder.phase = "loss"

    def _begin_call(self, module: nn.Module, inputs: Any) -> None:
        recorder = self.recorder
        if module not in self._names:
            self._name(module)
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                recorder.mark_kind(leaf, "input")
        if recorder.phase == "backward":
            return  # checkpointed, and run again
        if torch.is_grad_enabled():
            self._begin_training(module, inputs)
        elif module in self._trained or (self.loader_ended and _evaluates(module)):
            self._begin_validation()
        else:
            recorder.phase = "forward"  # a frozen network, such as a teacher

    def _begin_training(self, module: nn.Module, inputs: Any) -> None:
        if self.done and (not self.loader_ended or self.steps_made > self.steps + _PREFETCHED):
            self._finish()
        if module not in self._trained:
            self.on_network(module)
            self._trained.add(module)
        self._count(inputs)
        marks = list(self.recorder.trace.marks)
        if not marks or "validation" in marks[-1]:
            self._mark_step()
        self.recorder.phase = "forward"

    def _count(self, inputs: Any) -> None:
        """Count the samples of a micro-batch once: a step may call several networks before its backward pass."""
        if not self._counted:
            samples = samples_in(inputs, self.drawn) or self.recorder.brought
            self.batch_size = max(self.batch_size, samples)
            self._samples += samples
            self._counted = True

    def _begin_validation(self) -> None:
        marks = self.recorder.trace.marks
        if not marks or "validation" not in list(marks)[-1]:
            earlier = sum("validation" in name for name in marks)
            self.recorder.mark(f"validation {earlier + 1}" if earlier else "validation")
        self.recorder.phase = "validation"
        if self.late:
            self._finish()

    def _name(self, module: nn.Module) -> None:
        """Names of a network's modules as it has them; those of a second network go below its class."""
        prefix = f"{type(module).__name__}." if self._names else ""
        for name, child in module.named_modules():
            self._names.setdefault(child, prefix + name if name else prefix.rstrip("."))
            for parameter in filterfalse(nn.parameter.is_lazy, child.parameters(recurse=False)):
                self.recorder.mark_kind(parameter, "parameter", self._names[child])
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._mark_gradient)
            for buffer in filterfalse(nn.parameter.is_lazy, child.buffers(recurse=False)):
                self.recorder.mark_kind(buffer, "buffer", self._names[child])
        if any(map(nn.parameter.is_lazy, module.parameters())):
            del self._names[module]  # to be gone through again once all weights are there

    def _mark_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self.recorder.mark_kind(parameter.grad, "gradient")

    def _backward(self, original: Callable[..., Any], after: Callable[[], None] = lambda: None) -> Callable[..., Any]:
        def backward(*args: Any, **kwargs: Any) -> Any:
            before, self.recorder.phase = self.recorder.phase, "backward"
            if not self.recorder.trace.marks:
                self._mark_step()
            if not self._trained:  # nor is any network called: tensors alone
                self._count(())
            try:
                result = original(*args, **kwargs)
            finally:
                # A gradient that is asked for within a forward pass is a part of it.
                self._counted &= bool(self._depth)
                self.recorder.phase = before if self._depth else "optimizer"
            after()
            return result

        return backward

    def _making(self, original: Callable[..., None]) -> Callable[..., None]:
        @wraps(original)
        def made(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            self._has_optimizer = True
            if self.by_hand and not self.done:  # what it did before was no training
                self.by_hand, self.steps_made, self.batch_size = False, 0, 0
                self.recorder.trace.marks.clear()
                self.recorder.trace.samples.clear()

        return made

    def _after_backward(self) -> None:
        """Without an optimizer of torch a backward pass is a step, and what moves the weights begins the next."""
        if not (self._has_optimizer or self._depth):
            self.by_hand = True
            self._made(self.steps_made + 1)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002  # torch's signature
        self.recorder.phase = "optimizer"

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002  # torch's signature
        for value in tree_leaves(list(optimizer.state.values())):
            if isinstance(value, Tensor):
                self.recorder.mark_kind(value, "optimizer state")
        self._stepped[optimizer] = self._stepped.get(optimizer, 0) + 1
        self.recorder.phase = "input"
        self._made(self._stepped[optimizer])

    def _made(self, steps: int) -> None:
        """Note how many steps an optimizer has made."""
        is_first = steps > self.steps_made
        self.steps_made = max(self.steps_made, steps)
        if self._all_made():
            self._done_at = self._done_at or time.monotonic()
            validate_next()
        if is_first:
            self._end_step()

    def _end_step(self) -> None:
        """A step ends with its last optimizer; what comes is the next, or validation, or nothing that is asked."""
        if not self.loader_ended:  # else it was cut short with the loader, as accelerate does at a loader's last batch
            self.recorder.step_ended(f"step {self.steps_made}", self._samples)
        self._samples, self._counted = 0, False
        if self.done and self.steps_made > self.steps + _PREFETCHED:
            self._finish()
        self._mark_step()

    def _mark_step(self) -> None:
        name = f"step {self.steps_made + 1}"
        self.recorder.trace.marks.pop(name, None)  # marks are in the order of time
        self.recorder.mark(name)

    def _all_made(self) -> bool:
        fewest = min(self._stepped.values(), default=0 if self.awaits_optimizer else self.steps_made)
        return fewest >= self.steps or self.steps_made >= _PATIENCE * self.steps


def _evaluates(network: nn.Module) -> bool:
    """Whether a network, or what it wraps as averaged weights do, is in evaluation mode."""
    return not all(module.training for module in network.modules())
