"""Does the trace know the bytes of CUDA's kernels? Torch's own samples of every operator it tests (OpInfo, about 700).

Each sample's forward pass runs three times: with a CPU's kernels, with CUDA's on fake tensors that say they are on
`cuda` (which a CUDA build of torch can run without a card), and in the trace. Compared are the bytes of the results
and of what is saved for the backward pass, storages counted once. An operator is

- equal: a CPU's kernels already give CUDA's bytes, and so does the trace;
- modelled: a CPU's do not and the trace does, or the bytes are from a rule with a source (`RULED`), where torch's fake
  tensors cannot say what a card does;
- unknown: the trace differs, or there is nothing to compare with, and why.

    python benchmarks/kernel_coverage.py [--samples N] [NAME ...]

Needs a CUDA build of torch and `pip install expecttest`. Limits: shapes are small; backward passes and workspaces
cannot run on fake tensors; samples on host values alone are left out.
"""

import argparse
import json
import platform
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from vramfit._version import __version__
from vramfit.files import write_atomically
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

RESULTS = Path(__file__).resolve().parent / "results" / "kernel_coverage.json"
# Bytes from torch's sources or published ones, for fake tensors choose without a card or leave a size out.
RULED = {
    "nn.functional.scaled_dot_product_attention": "vramfit/prediction/tracing/attention.py",
    "nn.functional.batch_norm": "Normalization.cu: a mean and a deviation a channel, in evaluation too",
    "nn.functional.batch_norm.without_cudnn": "Normalization.cu: a mean and a deviation a channel, in evaluation too",
    "nn.functional.ctc_loss": "LossCTC.cu: as a CPU's, and as much again in the backward pass",
    "nn.functional.grid_sample": "GridSampler.cpp and cudnn/GridSampler.cpp: the result alone",
    "nn.functional.multi_head_attention_forward": "vramfit/prediction/tracing/attention.py",
}
# How fake tensors say that an answer is in the values.
_BY_VALUES = ("DataDependentOutputException", "DynamicOutputShapeException")
Move = Callable[[Tensor], Tensor]


def main() -> None:
    """Compare, print a line an operator that is not equal, and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="operators; all by default")
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="of each operator and dtype (4)")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    operators = {op.full_name: op for op in _operators() if not chosen.names or op.full_name in chosen.names}
    found = {name: judge(name, operator, chosen.samples) for name, operator in sorted(operators.items())}
    for name, (verdict, why) in found.items():
        if verdict != "equal":
            print(f"{verdict:9} {name}: {why}")
    counts = Counter(verdict for verdict, _ in found.values())
    print(f"{len(found)} operators: {dict(counts)}")
    if not chosen.names:
        write_atomically(RESULTS, (json.dumps(_document(found, counts, chosen.samples), indent=1) + "\n").encode())


def judge(name: str, operator: Any, samples: int) -> tuple[str, str]:
    """The verdict on an operator, and why."""
    if name in RULED:
        return "modelled", RULED[name]
    compared = [_bytes_of(operator, sample) for sample in _samples(operator, samples)]
    if not compared:
        return "unknown", "no samples"
    differing = next((three for three in compared if not _agrees(three)), None)
    if differing is not None:
        return "unknown", "; ".join(f"{where} {said}" for where, said in differing.items())
    if any(three["cuda"].startswith(_BY_VALUES) for three in compared):
        return "modelled", "shape or answer by the sample's values, as a CPU's"
    if all(three["cpu"] == three["cuda"] for three in compared):
        return "equal", ""
    return "modelled", "as CUDA's kernels"


def _agrees(three: dict[str, str]) -> bool:
    """Whether the trace has CUDA's bytes; a CPU's where the shape is in the values, which fake tensors lack."""
    by_values = three["cuda"].startswith(_BY_VALUES)
    return three["traced"] == three["cpu" if by_values else "cuda"]


def _is_dense(sample: Any) -> bool:
    # What else there is becomes dense on its way to a card.
    tensors = _tensors((sample.input, sample.args, sample.kwargs))
    return all(tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes() for tensor in tensors)


def _operators() -> list[Any]:
    from torch.testing._internal.common_methods_invocations import op_db

    operators: list[Any] = op_db
    return operators


def _samples(operator: Any, samples: int) -> Iterator[Any]:
    """Up to as many samples in full and in half precision each, or in another dtype where it takes none of them."""
    either, both = set(operator.dtypes) | set(operator.dtypesIfCUDA), set(operator.dtypes) & set(operator.dtypesIfCUDA)
    floating = [dtype for dtype in (torch.float32, torch.bfloat16) if dtype in both]
    for dtype in floating or [min(either, key=str)]:
        with suppress(NotImplementedError, RuntimeError):  # some are not made without a card
            made = operator.sample_inputs("cpu", dtype, requires_grad=operator.supports_autograd and bool(floating))
            yield from islice(filter(_is_dense, made), samples)


def _bytes_of(operator: Any, sample: Any) -> dict[str, str]:
    """Bytes of the results and of what is saved: with a CPU's kernels, with CUDA's and in the trace."""
    return {"cpu": _on_cpu(operator, sample), "cuda": _on_cuda(operator, sample), "traced": _traced(operator, sample)}


def _on_cpu(operator: Any, sample: Any) -> str:
    return _measured(operator, sample, lambda tensor: tensor)


def _on_cuda(operator: Any, sample: Any) -> str:
    def move(tensor: Tensor) -> Tensor:
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
        return made.requires_grad_(tensor.requires_grad)

    with FakeTensorMode(allow_non_fake_inputs=True):
        return _measured(operator, sample, move, "cuda")


def _traced(operator: Any, sample: Any) -> str:
    recorder = Recorder(Trace(1))
    recorder.phase = "forward"

    def move(tensor: Tensor) -> Tensor:
        return recorder.move(tensor.detach(), "input").requires_grad_(tensor.requires_grad)

    # Torch's tests forbid what the tracer does: to put cudnn.benchmark back where it was.
    with torch.backends.__allow_nonbracketed_mutation(), cuda_everywhere(), recorder:
        return _measured(operator, sample, move)


def _measured(operator: Any, sample: Any, move: Move, device: str = "cpu") -> str:
    try:
        given, args, kwargs = tree_map(_mover(move), (sample.input, tuple(sample.args), dict(sample.kwargs)))
        if "device" in kwargs:
            kwargs["device"] = device
        saved: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = operator.op(given, *args, **kwargs)
        before = {_address(tensor) for tensor in _tensors((given, args, kwargs))}
        return (
            f"{_held(_tensors(out), before)} + {_held([*saved, *_tensors(out)], before) - _held(_tensors(out), before)}"
        )
    except Exception as error:  # whatever an operator raises is a reason
        return f"{type(error).__name__}: {str(error).splitlines()[0][:90] if str(error) else ''}"


def _mover(move: Move) -> Callable[[Any], Any]:
    moved: dict[int, Tensor] = {}

    def once(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            return value
        if id(value) not in moved:
            moved[id(value)] = move(value)
        return moved[id(value)]

    return once


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.layout is torch.strided]


def _held(tensors: list[Tensor], before: set[int]) -> int:
    sizes = {_address(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(size for address, size in sizes.items() if address not in before)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _document(found: dict[str, tuple[str, str]], counts: Counter[str], samples: int) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "vramfit": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "samples_an_operator_and_dtype": samples,
        "bytes": "of results + saved for the backward pass",
        "counts": dict(sorted(counts.items())),
        "equal": [name for name, (verdict, _) in found.items() if verdict == "equal"],
        "modelled": {name: why for name, (verdict, why) in found.items() if verdict == "modelled"},
        "unknown": {name: why for name, (verdict, why) in found.items() if verdict == "unknown"},
    }


if __name__ == "__main__":
    main()
