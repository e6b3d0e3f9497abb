"""Which module of a network runs, in the forward pass and in the backward pass that belongs to it."""

import sys
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import nn

from vramfit.prediction.trace_records import Call, Trace, TracePhase

_LOSS = "(loss)"  # in place of a module's name


class RunningModule:
    """Follows the modules of a traced network, and writes the calls of the forward pass into its trace.

    `numbers_of` gives the trace's numbers of the storages of some tensors, `phase` the part of the step that runs;
    `entered` is told the frame from which a module is called, before it runs.
    """

    def __init__(
        self,
        trace: Trace,
        numbers_of: Callable[[Any], tuple[int, ...]],
        phase: Callable[[], TracePhase],
        entered: Callable[[FrameType], None],
    ) -> None:
        self._entered = entered
        self._trace, self._numbers_of, self._phase = trace, numbers_of, phase
        self._inside: list[str] = []
        self._starts: list[tuple[int, tuple[int, ...]]] = []  # of each module: events before it, storages it was given
        self._nodes: list[int] = []  # sequence number of the first autograd node of each entry of _node_names
        self._node_names: list[str] = []

    def watch(self, model: nn.Module) -> None:
        """Follow the modules of a network from now on."""
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks that are not compiled; its operations are seen all the same
            module.register_forward_pre_hook(partial(lambda name, _, inputs: self.enter(name, inputs), name))
            module.register_forward_hook(lambda _, _inputs, output: self.leave(output), always_call=True)

    def begin_loss(self) -> None:
        """The backward pass of what is computed from here on, outside modules, is the loss's."""
        self._note_node(_LOSS)

    @property
    def name(self) -> str:
        """The dotted name of the module that runs, or whose backward pass does; empty for none."""
        if self._inside:
            return self._inside[-1]
        node = torch._C._current_autograd_node() if self._phase() == "backward" else None
        if node is None or not self._nodes:
            return ""
        return self._node_names[max(0, bisect_right(self._nodes, node._sequence_nr()) - 1)]

    def enter(self, name: str, inputs: Any) -> None:
        """A module of this name begins."""
        self._entered(sys._getframe(1))
        self._inside.append(name)
        self._starts.append((len(self._trace.events), self._numbers_of(inputs)))
        self._note_node(name)

    def leave(self, output: Any) -> None:
        """The module that began last is at its end."""
        name, (start, given) = self._inside.pop(), self._starts.pop()
        if self._phase() == "forward":
            call = Call(name, start, len(self._trace.events), given, self._numbers_of(output))
            self._trace.calls.append(call)
        self._note_node(self._inside[-1] if self._inside else "")

    def _note_node(self, name: str) -> None:
        self._nodes.append(torch._C._autograd._get_sequence_nr())
        self._node_names.append(name)
