"""What torch does for tensors on a card, done for storage-less tensors that say they are on a CPU."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.optim import optimizer
from torch.utils import _foreach_utils

from vramfit.cards import Card
from vramfit.prediction.tracing.autocast import cuda_autocast
from vramfit.prediction.tracing.card_answers import believed_card, card_of
from vramfit.prediction.tracing.cuda_kernels import AMPERE
from vramfit.prediction.tracing.host_access import two_memories
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.prediction.tracing.sparse_tensors import dense_parts
from vramfit.prediction.tracing.swapping import scripting_sees_torch, swap


@contextmanager
def cuda_everywhere(
    capability: tuple[int, int] = AMPERE,
    memories: Recorder | None = None,
    uncast: Collection[str] = (),
    card: Card | None = None,
) -> Iterator[None]:
    """Autocast, kernels, optimizers and clipping are for CPU tensors what they are on a card, a memory apart.

    `capability` is the card's compute capability, `uncast` as `cuda_autocast` takes it. With `memories` code is told
    that there is a `card`: one of that capability, where none is given.
    """
    if memories is not None:
        # Optimizers load it; it keeps what it finds of torch, so it must not find what is replaced below. What it found
        # is forgotten by `torch._dynamo.reset`, and is found again here.
        import_module("torch._dynamo").trace_rules.get_torch_obj_rule_map()
    benchmark = torch.backends.cudnn.benchmark
    with ExitStack() as stack:
        stack.callback(setattr, torch.backends.cudnn, "benchmark", benchmark)
        stack.enter_context(scripting_sees_torch())
        stack.enter_context(cuda_autocast(capability, uncast))
        foreach = _foreach_utils._get_foreach_kernels_supported_devices
        for module in (optimizer, _foreach_utils):
            swap(stack, module, "_get_foreach_kernels_supported_devices", lambda: [*foreach(), "cpu"])
        if memories is not None:
            stack.enter_context(two_memories(memories))
            stack.enter_context(believed_card(card or card_of(capability), memories))
        yield


def move_to_card(model: nn.Module, recorder: Recorder) -> None:
    """Under a recorder, move what is not there yet of a network in place, in the order in which `Module.to` does."""
    moved: dict[int, tuple[Tensor, Tensor]] = {}  # originals are kept, for a number may stand for a new object else
    for name, module in _children_first(model, "", set()):
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None and not any(map(recorder.on_card, dense_parts(tensor))):
                    if id(tensor) not in moved:
                        moved[id(tensor)] = tensor, _moved(tensor, recorder, name)
                    tensors[key] = moved[id(tensor)][1]  # type: ignore[assignment]  # a parameter stays one


def _moved(tensor: Tensor, recorder: Recorder, module: str) -> Tensor:
    if not isinstance(tensor, nn.Parameter):
        return recorder.move(tensor, "buffer", module)
    if type(tensor).to is not Tensor.to:
        return tensor.to("cuda")  # as those of bitsandbytes do, which are quantized on the card
    copy = nn.Parameter(recorder.move(tensor.detach(), "parameter", module), tensor.requires_grad)
    copy.__dict__.update(tensor.__dict__)
    return copy


def _children_first(module: nn.Module, name: str, seen: set[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    if module in seen:
        return
    seen.add(module)
    for child_name, child in module.named_children():
        yield from _children_first(child, f"{name}.{child_name}" if name else child_name, seen)
    yield name, module
