"""Does the trace cast as CUDA's autocast does? Both forward passes of many timm models, operation by operation.

The reference is torch itself: fake tensors that say they are on `cuda`, under CUDA's autocast, which a CUDA build of
torch can run forward without a card. Compared are the dtype of every operation's result, in order, and the bytes that
the forward pass saves for the backward pass.

    python benchmarks/autocast_against_cuda.py [--models N] [NAME ...]
"""

import argparse
import json
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vramfit.files import write_atomically
from vramfit.jobs.backbone import backbone_job
from vramfit.jobs.job import empty_model
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere, move_to_card
from vramfit.prediction.tracing.model_building import built_without_memory
from vramfit.prediction.tracing.op_schema import Nature, nature_of
from vramfit.prediction.tracing.recorder import Recorder
from vramfit.prediction.tracing.tensor_trees import tensors_in

BATCH = 2
RESULTS = Path(__file__).resolve().parent / "results" / "autocast_against_cuda.json"
# One operation under the names that a CPU and a card give it.
_NAMES = {
    "cudnn_batch_norm": "native_batch_norm",
    "_batch_norm_with_update": "native_batch_norm",
    "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_efficient_attention": "attention",
    "_scaled_dot_product_cudnn_attention": "attention",
    "_scaled_dot_product_flash_attention_for_cpu": "attention",
}
# Makes constants, or nothing; where they are made depends on the device, not on autocast.
_LEFT_OUT = {"lift_fresh", "empty", "arange", "zeros", "ones", "full", "scalar_tensor", "linspace"}


@dataclass(frozen=True)
class Forward:
    """Operations as (name, dtype of the result), and the bytes saved for the backward pass."""

    operations: list[tuple[str, str]]
    saved_bytes: int


class _Listener(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        results = list(tensors_in(out))
        name = func.name().removeprefix("aten::").split(".")[0]
        if results and func.namespace == "aten" and nature_of(func) is not Nature.VIEW and name not in _LEFT_OUT:
            self.operations.append((_NAMES.get(name, name), str(results[0].dtype)))
        return out


def with_cuda(model: str, dtype: torch.dtype = torch.float16) -> Forward:
    """torch's own forward pass on fake cuda tensors."""
    job = backbone_job(model)
    images = job.batch(BATCH)[0]
    network = empty_model(job)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _move_to_fake_cuda(network)
        images = torch.empty(images.shape, device="cuda")
        with torch.device("cuda"), _cuda_autocast(dtype):
            return _forward(network, images, _Listener())


def _move_to_fake_cuda(network: nn.Module) -> None:
    moved: dict[int, tuple[Tensor, Tensor]] = {}
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    moved.setdefault(id(tensor), (tensor, _fake_cuda(tensor)))
                    tensors[key] = moved[id(tensor)][1]


def _fake_cuda(tensor: Tensor) -> Tensor:
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
    if not isinstance(tensor, nn.Parameter):
        return fake
    parameter = nn.Parameter(fake, tensor.requires_grad)
    parameter.__dict__.update(tensor.__dict__)
    return parameter


def with_trace(model: str, dtype: torch.dtype = torch.float16) -> Forward:
    """The trace's forward pass."""
    job = backbone_job(model)
    recorder = Recorder(Trace(BATCH))
    with cuda_everywhere(memories=recorder):
        network = built_without_memory(job)
        move_to_card(network, recorder)
        images = recorder.move(job.batch(BATCH)[0], "input")
        recorder.phase = "forward"
        with recorder, torch.autocast("cuda", dtype=dtype):
            return _forward(network, images, _Listener())


def _forward(network: nn.Module, images: Tensor, listener: _Listener) -> Forward:
    own = {tensor.untyped_storage()._cdata for tensor in (images, *network.parameters(), *network.buffers())}
    saved: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes(), tensor
        return tensor

    with listener, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(images)
    return Forward(listener.operations, sum(size for size, _ in saved.values()))


@contextmanager
def _cuda_autocast(dtype: torch.dtype) -> Iterator[None]:
    # torch.autocast("cuda") stays float32 where there is no card.
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def difference(model: str) -> str | None:
    """What differs between the two, None if nothing does."""
    theirs, ours = with_cuda(model), with_trace(model)
    for number, (a, b) in enumerate(zip(theirs.operations, ours.operations, strict=False)):
        if a != b:
            return f"operation {number}: {a} with CUDA, {b} in the trace"
    if len(theirs.operations) != len(ours.operations):
        return f"{len(theirs.operations)} operations with CUDA, {len(ours.operations)} in the trace"
    if theirs.saved_bytes != ours.saved_bytes:
        return f"{theirs.saved_bytes} bytes saved with CUDA, {ours.saved_bytes} in the trace"
    return None


def one_of_each_family(count: int) -> list[str]:
    """Model names, of as many of timm's modules as there are before any comes twice."""
    import timm

    modules = [(module, timm.list_models(module=module)) for module in timm.list_modules()]
    shuffled = [(module, random.Random(module).sample(names, len(names))) for module, names in modules if names]
    longest = max(len(names) for _, names in shuffled)
    return [names[turn] for turn in range(longest) for _, names in shuffled if turn < len(names)][:count]


def main() -> None:
    import timm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=150)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # Which fused kernel attention takes depends on a card; its parts do not.
    timm.layers.set_fused_attn(False)
    found: dict[str, str] = {}
    for name in options.names or one_of_each_family(options.models):
        try:
            found[name] = difference(name) or "equal"
        except Exception as error:
            found[name] = f"not compared: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        print(name, found[name], flush=True)
    equal = sum(result == "equal" for result in found.values())
    compared = sum(not result.startswith("not compared") for result in found.values())
    summary = {"torch": torch.__version__, "compared": compared, "equal": equal, "models": found}
    if not options.names:
        write_atomically(RESULTS, (json.dumps(summary, indent=2) + "\n").encode())
    print(f"{equal} of {compared} equal")


if __name__ == "__main__":
    main()
