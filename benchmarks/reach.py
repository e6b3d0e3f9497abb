"""How far does a prediction reach? Jobs of the kinds that people train: refused, predicted, within 5 % of the truth.

    python benchmarks/reach.py [NAME ... | FAMILY]

The results of a family alone are in a file of its own.

The jobs are in `reach_jobs/`, each as its users write it: networks that return their loss, batches that are dicts or
lists, steps of one's own, several optimizers. The truth is that of `live_bytes.py`: the most bytes of tensors alive in
two plain steps on the CPU, in a loop that is not vramfit's. Rounding, workspaces and context are in neither. Attention
is asked for as plain products, and a trace with `sdpa_kernel(MATH)`, so that both sides run the same kernels; recurrent
layers of cuDNN are told apart, for no CPU has them.

Needs transformers, diffusers, peft, monai, torchvision and timm; what is missing is left out and said.
"""

import gc
import importlib
import inspect
import json
import multiprocessing
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from ending import versions
from live_bytes import Live, _as_on_a_card, conclude
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader

from vramfit.errors import VramfitError
from vramfit.jobs.job import Job
from vramfit.prediction.tracing.trace import trace_step

RESULTS = Path(__file__).parent / "results" / "reach.json"
FAMILIES = (
    *("language", "multimodal", "vision", "schemes", "structures"),
    *("networks", "objectives", "differentiation", "updates", "operations"),
)
LIMIT_S = 400
# Rows whose two sides differ rightly, and why.
EXPLAINED = {
    "schemes physics_informed": "LBFGS is predicted with all 100 past iterations, as it is after a while of training; "
    "the two steps of the truth make 36.",
    "objectives every_pair_once": "on a card the gradient of found[a] is summed in the order of a sorted index, which "
    "takes memory; a CPU sorts nothing.",
    "networks pondering": "predicted with all 12 rounds, for how many it ponders depends on values; the truth makes 3.",
    "multimodal patch_tst": "on a card cuDNN keeps a copy of each turned input of batch normalization; a CPU does not.",
}
_RAND = torch.rand
_MOST_STEPS = 8
_DRAWS = 12  # seeds that are tried where numbers drawn on the host decide what runs
CARD_ONLY = {"_cudnn_rnn", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"}


class Turns:
    """What a step of a job's own is given, by its documentation: backward and update, and nothing of vramfit's."""

    device = torch.device("cpu")

    def __init__(self, model: nn.Module, optimizers: dict[str | None, torch.optim.Optimizer]) -> None:
        self.model = model
        self._optimizers = optimizers

    def backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        """Add to the gradients."""
        loss.backward(retain_graph=retain_graph)

    def update(self, name: str | None = None) -> None:
        """Step and clear one optimizer, or all."""
        for optimizer in self._optimizers.values() if name is None else [self._optimizers[name]]:
            optimizer.step()
            optimizer.zero_grad()


def made_optimizers(job: Job, model: nn.Module) -> dict[str | None, torch.optim.Optimizer]:
    """The optimizers by the module that they learn; None for all."""
    if isinstance(job.optimizer, Mapping):
        return {name: make(model.get_submodule(name).parameters()) for name, make in job.optimizer.items()}
    return {None: job.optimizer([one for one in model.parameters() if one.requires_grad])}


def made_batch(job: Job, samples: int) -> Any:
    source: Any = job.batch
    if isinstance(source, DataLoader):
        return source.collate_fn([source.dataset[index] for index in range(samples)])
    return source(samples)


def with_equal_batches(job: Job) -> Job:
    """The job with the same values in each batch of a size, for both sides: values may decide what a step holds."""
    source: Any = job.batch
    if isinstance(source, DataLoader):
        return job

    def batch(samples: int) -> Any:
        random.seed(1)
        torch.manual_seed(1)
        return source(samples)

    return replace(job, batch=batch)


def loss_of(job: Job, model: nn.Module, batch: Any) -> tuple[Tensor, Any]:
    """The loss, and the outputs, which the usual loop names."""
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    inputs, targets = batch if pair else (batch, None)
    if job.prepare is not None:
        with torch.no_grad():
            inputs, targets = job.prepare(inputs, targets, True)
    if job.loss is not None:
        out = called(model, inputs)
        return job.loss(out, targets), out
    out = model(inputs, targets) if targets is not None else called(model, inputs)
    if isinstance(out, Tensor):
        return out, None
    if isinstance(out, dict) and "loss" not in out:
        return sum(out.values()), out
    return (out["loss"] if isinstance(out, dict) else out.loss), out


def called(model: nn.Module, inputs: Any) -> Any:
    takes = inspect.signature(model.forward).parameters
    keywords = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if isinstance(inputs, dict) and (keywords or set(inputs) <= set(takes)):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def no_layer_dropped(size: Any, *args: Any, **kwargs: Any) -> Tensor:
    """What `torch.rand` gives to a network that drops layers by one number: the most that a step may hold."""
    drawn = _RAND(size, *args, **kwargs)
    return drawn.fill_(1 - 1e-7) if drawn.numel() == 1 else drawn


def true_bytes(job: Job, samples: int) -> int:
    """The most bytes of tensors alive at once in two steps on the CPU; of many draws, where they decide."""
    peaks = {_drawn_bytes(job, samples, seed) for seed in range(2)}
    return max(peaks if len(peaks) == 1 else (_drawn_bytes(job, samples, seed) for seed in range(_DRAWS)))


def _drawn_bytes(job: Job, samples: int, seed: int) -> int:
    """The most bytes of tensors alive at once in two steps or more on the CPU, no layer dropped by `torch.rand`."""
    torch.manual_seed(seed)
    with _as_on_a_card(), mock.patch("torch.rand", no_layer_dropped):
        model, host, live = job.model(), made_batch(job, samples), Live()
        if any(isinstance(one, nn.parameter.UninitializedParameter) for one in model.parameters()):
            loss_of(job, model, host)
        model.train()
        for tensor in [*model.parameters(), *model.buffers()]:
            live.add(tensor)
        random.seed(seed)  # after the batch, whose values are the same each time
        np.random.seed(seed)
        torch.manual_seed(seed)
        with live, sdpa_kernel(SDPBackend.MATH):
            optimizers = made_optimizers(job, model)
            left: list[int] = []
            # A memory of what came before fills up in more steps than two.
            while len(left) < 2 or (left[-1] > left[-2] and len(left) < _MOST_STEPS):
                batch = tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, host)
                one_step(job, model, optimizers, batch)
                del batch
                left.append(live.now)
        gc.collect()
        return live.peak


def one_step(job: Job, model: nn.Module, optimizers: dict[str | None, torch.optim.Optimizer], batch: Any) -> None:
    if job.step is not None:
        job.step(Turns(model, optimizers), batch)
        return
    first = next(iter(optimizers.values()))
    if isinstance(first, torch.optim.LBFGS):

        def closure() -> Tensor:
            first.zero_grad()
            loss, _outputs = loss_of(job, model, batch)
            loss.backward()
            return loss

        first.step(closure)
        first.zero_grad()
        return
    backward(job, model, batch)
    if job.clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), job.clip_norm)
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()


def backward(job: Job, model: nn.Module, batch: Any) -> None:
    """Outputs live until the gradients are there, and are gone before the update, as in vramfit's step."""
    loss, _outputs = loss_of(job, model, batch)
    loss.backward()
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.is_leaf:
            leaf.requires_grad_(False).set_()  # frees its memory, whoever names it


def all_jobs() -> dict[str, Any]:
    """Every job whose library is here, by name."""
    for family in FAMILIES:
        importlib.import_module(f"reach_jobs.{family}")
    from reach_jobs.styles import JOBS

    return JOBS


def compared(name: str) -> dict[str, Any]:
    """One job: predicted and true bytes, or why it is refused."""
    warnings.simplefilter("ignore")
    make, samples = all_jobs()[name]
    row: dict[str, Any] = {"job": name, "samples": samples}
    row |= {"explained": EXPLAINED[name]} if name in EXPLAINED else {}
    random.seed(0)
    torch.manual_seed(0)
    start = time.monotonic()
    try:
        job = with_equal_batches(make())
        with sdpa_kernel(SDPBackend.MATH):
            trace = trace_step(job, samples, validation=False)
        row |= {"predicted_bytes": trace.peak_bytes, "assumptions": trace.assumptions}
        row["kernels"] = "a card's own" if CARD_ONLY & {one.name for one in trace.operations} else "equal"
    except VramfitError as error:
        row["refused"] = str(error)
    row["predict_s"] = round(time.monotonic() - start, 2)
    try:
        row["true_bytes"] = true_bytes(job, samples)
    except Exception as error:
        row["truth_failed"] = f"{type(error).__name__}: {error}"[:300]
        row["truth_at"] = traceback.format_exc().splitlines()[-3:]
    if "predicted_bytes" in row and "true_bytes" in row:
        row["error"] = round(row["predicted_bytes"] / row["true_bytes"] - 1, 4)
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, int]:
    told = [row for row in rows if "error" in row]
    equal = [row for row in told if row["kernels"] == "equal"]
    return {
        "jobs": len(rows),
        "refused": sum("refused" in row for row in rows),
        "failed": sum("failed" in row or "truth_failed" in row for row in rows),
        "predicted": sum("predicted_bytes" in row for row in rows),
        "with_equal_kernels": len(equal),
        "within_5_percent_of_those": sum(abs(row["error"]) <= 0.05 for row in equal),
        "more_than_5_percent_below": sum(row["error"] < -0.05 for row in equal),
    }


def answers(names: Iterable[str]) -> list[dict[str, Any]]:
    """One process for each job: a crash or a job without an end costs its own row alone."""
    rows: list[dict[str, Any]] = []
    names = list(names)
    compared(names[0])  # loads once what every process needs
    for name in names:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            try:
                rows.append(pool.apply_async(compared, (name,)).get(LIMIT_S))
            except Exception as error:
                rows.append({"job": name, "failed": f"{type(error).__name__}: {error}"[:300]})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)
    asked, results = sys.argv[1:], RESULTS
    if asked and asked[0] in FAMILIES:
        results = RESULTS.with_name(f"reach_{asked[0]}.json")
        asked = [name for name in all_jobs() if name.partition(" ")[0] == asked[0]]
    rows = answers(asked or list(all_jobs()))
    conclude(rows, summary(rows), versions(), results if asked != sys.argv[1:] or not asked else None)


if __name__ == "__main__":
    main()
