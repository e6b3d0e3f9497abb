"""Does the trace know what CUDA's kernels allocate? Torch's own samples of every operator (OpInfo), run on a card.

Each sample runs forward and backward on the card here, and in the trace. Compared, in blocks of 512 bytes as torch's
allocator rounds them, are the peak of the forward pass, what is held after it, and the peak of the backward pass. A
first run on the card is left out, so that what a library takes once and keeps does not count. What a card takes beyond
the trace is a workspace or a copy that the trace does not know.

    python benchmarks/gpu_operators.py [--samples N] [--workers N] [--results FILE] [NAME ...]

Needs `pip install expecttest`. Limits: shapes are small; samples on host values alone are left out.
"""

import argparse
import json
import multiprocessing
import warnings
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from kernel_coverage import _mover, _operators, _samples, _tensors
from torch import Tensor
from torch.utils._pytree import tree_map

from vramfit._version import __version__
from vramfit.files import write_atomically
from vramfit.prediction.trace_records import Trace
from vramfit.prediction.tracing.cuda_emulation import cuda_everywhere
from vramfit.prediction.tracing.recorder import Recorder

RESULTS = Path(__file__).resolve().parent / "results" / "gpu_operators.json"
ROUNDED = 512
WHAT = ("forward peak", "held", "backward peak")
CHUNK = 12


def main() -> None:
    """Compare, print a line an operator that differs, and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="operators; all by default")
    parser.add_argument("--samples", type=int, default=4, metavar="N", help="of each operator and dtype (4)")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names = sorted({op.full_name for op in _operators()} & set(chosen.names or (op.full_name for op in _operators())))
    chunks = [(names[start : start + CHUNK], chosen.samples) for start in range(0, len(names), CHUNK)]
    found: dict[str, dict[str, Any]] = {}
    with multiprocessing.get_context("spawn").Pool(chosen.workers) as pool:
        for part in pool.imap_unordered(_chunk, chunks):
            found |= part
    for name, row in sorted(found.items()):
        if row["verdict"] != "equal":
            print(f"{row['verdict']:6} {name}: {row['why']}")
    counts = Counter(str(row["verdict"]) for row in found.values())
    print(f"{len(found)} operators: {dict(counts)}")
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": torch.cuda.get_device_name(),
        "vramfit": __version__,
        "torch": torch.__version__,
        "counts": dict(sorted(counts.items())),
        "operators": dict(sorted(found.items())),
    }
    write_atomically(chosen.results, (json.dumps(document, indent=1) + "\n").encode())


def _chunk(given: tuple[list[str], int]) -> dict[str, dict[str, Any]]:
    names, samples = given
    operators = {op.full_name: op for op in _operators() if op.full_name in names}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            found[name] = judge(operators[name], samples)
        except Exception as error:
            found[name] = {"verdict": "failed", "why": _said(error)}
            if "CUDA error" in str(error) or "device-side assert" in str(error):
                return found | {
                    left: {"verdict": "failed", "why": f"not run after {name}"}
                    for left in names[names.index(name) + 1 :]
                }
    return found


def judge(operator: Any, samples: int) -> dict[str, Any]:
    """More, less or equal bytes on the card than in the trace, and the first sample where they differ."""
    tried = failed = 0
    differing: dict[str, Any] = {}
    reason = "no samples"
    for sample in _samples(operator, samples):
        try:
            taken = _on_card(operator, sample)
        except RuntimeError as error:
            if "CUDA error" in str(error) or "device-side assert" in str(error):
                raise
            reason = f"on the card: {_said(error)}"
            continue
        try:
            traced = _traced(operator, sample)
        except Exception as error:
            failed, reason = failed + 1, f"in the trace: {_said(error)}"
            continue
        tried += 1
        if taken != traced and (not differing or sum(taken) > sum(traced)):
            differing = {"card": taken, "traced": traced, "shape": _shapes(sample)}
    if not tried:
        return {"verdict": "failed", "why": reason}
    if not differing:
        return {"verdict": "equal", "why": "", "samples": tried, "untraced": failed}
    more = any(card > trace for card, trace in zip(differing["card"], differing["traced"], strict=True))
    why = "; ".join(
        f"{what} {card} for {trace}"
        for what, card, trace in zip(WHAT, differing["card"], differing["traced"], strict=True)
    )
    return {
        "verdict": "more" if more else "less",
        "why": f"{why}; {differing['shape']}",
        "samples": tried,
        "untraced": failed,
    }


def _on_card(operator: Any, sample: Any) -> list[int]:
    def move(tensor: Tensor) -> Tensor:
        return tensor.detach().to("cuda", copy=True).requires_grad_(tensor.requires_grad)

    for _ in range(2):  # the first makes handles and workspaces that stay
        given = tree_map(_mover(move), (sample.input, tuple(sample.args), dict(sample.kwargs)))
        if "device" in given[2]:
            given[2]["device"] = "cuda"
        torch.cuda.synchronize()
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = operator.op(given[0], *given[1], **given[2])
        peak, held = torch.cuda.max_memory_allocated() - base, torch.cuda.memory_allocated() - base
        torch.cuda.reset_peak_memory_stats()
        _backward(out)
        back = torch.cuda.max_memory_allocated() - base
        torch.cuda.synchronize()
        del out, given
    return [peak, held, back]


def _traced(operator: Any, sample: Any) -> list[int]:
    recorder = Recorder(Trace(1), torch.cuda.get_device_capability())
    recorder.phase = "forward"

    def move(tensor: Tensor) -> Tensor:
        return recorder.move(tensor.detach(), "input").requires_grad_(tensor.requires_grad)

    with torch.backends.__allow_nonbracketed_mutation(), cuda_everywhere(), recorder:
        given, args, kwargs = tree_map(_mover(move), (sample.input, tuple(sample.args), dict(sample.kwargs)))
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        start = len(recorder.trace.events)
        out = operator.op(given, *args, **kwargs)
        middle = len(recorder.trace.events)
        recorder.phase = "backward"
        _backward(out)
        stop = len(recorder.trace.events)
    held = [0]
    for event in recorder.trace.events[start:stop]:
        size = -(-recorder.trace.storages[event if event >= 0 else ~event].size_bytes // ROUNDED) * ROUNDED
        held.append(held[-1] + (size if event >= 0 else -size))
    count = middle - start
    return [max(held[: count + 1]), held[count], max(held[count:])]


def _backward(out: Any) -> None:
    outs = [tensor for tensor in _tensors(out) if tensor.requires_grad]
    if outs:
        torch.autograd.backward(outs, [torch.ones_like(tensor) for tensor in outs])


def _shapes(sample: Any) -> str:
    shown = [f"{list(t.shape)} {str(t.dtype)[6:]}" for t in _tensors((sample.input, sample.args, sample.kwargs))]
    return ", ".join(shown)[:160]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"


if __name__ == "__main__":
    main()
