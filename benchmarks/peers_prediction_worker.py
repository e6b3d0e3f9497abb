"""What other predictors of GPU memory say of the jobs of half_precision.csv: JSON lines on stdout, one a job and peer.

Run by peers_prediction.py in an environment that has the peers. Each is asked at two small batches, for what each says
grows along a straight line with the batch, and some run the network for it. Bytes.
"""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout

import torch
from half_precision_rows import HalfRow, half_job, half_rows
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

BATCHES = (2, 4)
Peer = Callable[[HalfRow, int], float]


def kitsune(row: HalfRow, batch: int) -> float:
    """torch-kitsune 0.7.0: `predict_memory` with the sample's shape."""
    from kitsune.predict import predict_memory

    shape = tuple(tree_leaves(half_job(row).batch(1)[0])[0].shape[1:])
    return float(
        predict_memory(
            _network(row), shape, batch, dtype="fp16" if row.half else "fp32", optimizer=_optimizer(row)
        ).total_bytes
    )


def preflight(row: HalfRow, batch: int) -> float:
    """torch-preflight 0.5.0: the report of its `VRAMGuard` with the card, whatever its verdict."""
    from torch_preflight.vram import hardware
    from torch_preflight.vram.costmodel import estimate
    from torch_preflight.vram.guard import VRAMGuard

    model = _network(row)
    sample = tree_leaves(half_job(row).batch(1)[0])[0]
    shape = {"image_size": sample.shape[-1]} if sample.dim() == 4 else {"seq_len": sample.shape[-1]}
    optimizer = half_job(row).optimizer(list(model.parameters()))
    guard = VRAMGuard(
        model, optimizer=optimizer, batch_size=batch, precision="amp" if row.half else "fp32", verify=False, **shape
    )
    card, _ = hardware.resolve(row.gpu.lower().replace(" ", "-"))
    return float(estimate(guard.profile, guard.config, card).total)


def vram_check(row: HalfRow, batch: int) -> float:
    """vram-check 0.1.1: `analyze`."""
    from vram_check import analyze

    found = analyze(_network(row), batch_size=batch, dtype="fp16" if row.half else "fp32", optimizer=_optimizer(row))
    return float(found["estimate"].total_bytes)


def mem_tracker(row: HalfRow, batch: int) -> float:
    """MemTracker of torch.distributed: the peak of the tensors of two steps on fake tensors, under a CPU's autocast."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    job, dtype = half_job(row), torch.bfloat16 if row.half else torch.float32
    host = job.batch(batch)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = job.model()
        optimizer = job.optimizer(list(model.parameters()))
        inputs, targets = tree_map(_fake, host)
        tracker = MemTracker()
        tracker.track_external(model, optimizer, *tree_leaves((inputs, targets)))
        with tracker:
            for _ in range(2):
                with torch.autocast("cpu", dtype=dtype, enabled=row.half):
                    outputs = model(inputs)
                job.loss(outputs, targets).backward()
                optimizer.step()
                optimizer.zero_grad()
                tracker.reset_mod_stats()
        peak = tracker.get_tracker_snapshot("peak")
    return float(peak[torch.device("cpu")]["Total"])


def _fake(value: Tensor) -> Tensor:
    return torch.empty_like(value).float() if value.is_floating_point() else torch.zeros_like(value)


def _network(row: HalfRow) -> nn.Module:
    """The network itself, out of the wrapper that hands it its labels."""
    model = half_job(row).model()
    inner = getattr(model, "model", None)
    return (inner if isinstance(inner, nn.Module) else model).train()


def _optimizer(row: HalfRow) -> str:
    if row.reserved:
        return "none"
    return "sgd" if "regnet" in row.model else "adam"


PEERS: dict[str, Peer] = {
    "torch-kitsune 0.7.0": kitsune,
    "torch-preflight 0.5.0": preflight,
    "vram-check 0.1.1": vram_check,
    "torch MemTracker": mem_tracker,
}


def main() -> None:
    asked: dict[tuple[str, str], HalfRow] = {}
    for row in half_rows():
        if row.fair:
            asked.setdefault((row.key, row.gpu), row)
    for (key, gpu), row in asked.items():
        for name, peer in PEERS.items():
            print(json.dumps({"key": key, "gpu": gpu, "peer": name, **_said(peer, row)}), flush=True)


def _said(peer: Peer, row: HalfRow) -> dict[str, object]:
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stderr))
        try:
            return {"bytes": [peer(row, batch) for batch in BATCHES]}
        except Exception as error:  # whatever a peer fails with is its answer
            return {"error": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    main()
