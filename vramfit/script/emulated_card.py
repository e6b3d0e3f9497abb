"""What torch does for an unchanged script on a card that is not here."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pynvml
import torch
from torch.autograd.profiler_util import EventList

from vramfit.cards import Card
from vramfit.prediction.tracing.compiled import UNCOMPILED
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.swapping import swap, swap_all
from vramfit.script.default_device import DefaultDevice
from vramfit.script.nvml_answers import answers_of
from vramfit.script.recorder import ScriptRecorder
from vramfit.script.tensor_types import card_types, typed


@contextmanager
def emulated_card(card: Card, recorder: ScriptRecorder) -> Iterator[None]:
    """Within it, `cuda` is a card of the given model whose memory the recorder watches."""
    with ExitStack() as stack:
        stack.enter_context(cuda_everywhere(card.compute_capability, recorder, card=card))
        swap_all(stack, torch, DefaultDevice().answers())
        swap_all(stack, torch.cuda, card_types())
        swap_all(stack, pynvml, answers_of(torch.cuda))
        swap(stack, torch.Tensor, "type", typed(torch.Tensor.type))
        swap(stack, torch, "compile", partial(_compile, recorder))
        swap_all(stack, torch.profiler.profile, _idle_profiler())
        swap_all(stack, torch.amp.GradScaler, {"_maybe_opt_step": _always_step, "get_scale": _first_scale})
        # Each has an address of its own, by which libraries find weights that are shared.
        swap(stack, torch.Tensor, "data_ptr", lambda self: self.untyped_storage()._cdata + self.storage_offset())
        swap(stack, torch.UntypedStorage, "data_ptr", lambda self: self._cdata)
        yield


def _idle_profiler() -> dict[str, Any]:
    """A profiler that watches nothing: it would trace the tracing."""
    idle = dict.fromkeys(("start", "stop", "step", "export_chrome_trace", "export_memory_timeline"), _nothing)
    return idle | dict.fromkeys(("key_averages", "events"), lambda *_, **__: EventList([]))


def _nothing(*_: Any, **__: Any) -> None:
    """Nothing that memory depends on."""


def _compile(recorder: ScriptRecorder, model: Any = None, **_: Any) -> Any:
    """Nothing is compiled: what a compiled step saves is not known."""
    recorder.note(UNCOMPILED)
    if isinstance(model, torch.nn.Module):
        vars(model)["_orig_mod"] = model  # by which scripts come to what was compiled; no module of its own
    return model if model is not None else lambda function: function


def _always_step(_self: Any, optimizer: Any, _state: Any, *args: Any, **kwargs: Any) -> Any:
    """Gradients are taken to be finite, so that no step is skipped."""
    return optimizer.step(*args, **kwargs)


def _first_scale(self: Any) -> float:
    return float(self._init_scale) if self._enabled else 1.0
