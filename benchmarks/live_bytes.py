"""Is the trace right? Jobs of many kinds, predicted and run for real on the CPU, in live bytes of tensors.

The truth is a loop of its own, not vramfit's step: a dispatch mode adds up the storages that are alive while two
plain optimizer steps run on real tensors. Both sides are float32 and count no rounding, workspace or context, so what
differs is the trace. Where a card runs another kernel than a CPU (attention, recurrent layers) they differ rightly.

    python benchmarks/live_bytes.py [NAME ...]

Needs torchvision and timm, and for more jobs transformers, diffusers, monai and peft; what is missing is left out.
"""

import gc
import json
import multiprocessing
import platform
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from ending import versions
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_leaves

from vramfit.errors import VramfitError
from vramfit.files import write_atomically
from vramfit.jobs.job import Job
from vramfit.prediction.tracing.trace import trace_step

RESULTS = Path(__file__).parent / "results" / "live_bytes.json"
LIMIT_S = 90
BATCH = 2
# Kinds whose kernels on a card are not those of a CPU; their difference is no error of the trace.
OTHER_KERNELS = ("LSTM", "GRU", "attention")


class Live(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most of them so far."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.references: dict[int, Any] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(map(is_traceable_wrapper_subclass_type, types)):
            return NotImplemented  # a nested tensor: its parts come here by themselves
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.add(value)
        return out

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once."""
        if tensor.layout is torch.sparse_coo:
            self.add(tensor._indices())
            self.add(tensor._values())
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        self.now += size - self.sizes.get(key, 0)
        if key not in self.sizes:
            self.references[key] = weakref.ref(storage, lambda _: self.drop(key))
        self.sizes[key] = size
        self.peak = max(self.peak, self.now)

    def drop(self, key: int) -> None:
        """Count a storage no more."""
        self.references.pop(key, None)
        self.now -= self.sizes.pop(key)


@contextmanager
def _as_on_a_card() -> Any:
    """Optimizers take lists of tensors, and dropout keeps a mask of bytes, also within attention, as on a card."""
    from torch.optim import optimizer
    from torch.utils import _foreach_utils

    def dropout(value: Tensor, p: float, train: bool) -> Tensor:
        return torch.ops.aten.native_dropout(value, p, True)[0] if train and 0 < p < 1 else value

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it replaces torch's own
        library.impl("dropout", dropout, "AutogradCPU")

    supported = [*_foreach_utils._get_foreach_kernels_supported_devices(), "cpu"]
    with ExitStack() as stack:
        for module in (optimizer, _foreach_utils):
            name = "_get_foreach_kernels_supported_devices"
            stack.enter_context(mock.patch.object(module, name, return_value=supported))
        stack.callback(library._destroy)
        yield


def true_bytes(job: Job, samples: int) -> int:
    """The most bytes of tensors alive at once in two plain steps on the CPU."""
    torch.manual_seed(0)
    with _as_on_a_card():
        model, host, live = job.model().train(), job.batch(samples), Live()
        for tensor in [*model.parameters(), *model.buffers()]:
            live.add(tensor)
        with live:
            optimizer = job.optimizer([one for one in model.parameters() if one.requires_grad])
            for _ in range(2):
                inputs, targets = torch.utils._pytree.tree_map(torch.clone, host)
                loss = job.loss(model(inputs), targets)
                loss.backward()
                del inputs, targets, loss
                optimizer.step()
                optimizer.zero_grad()
        gc.collect()
        return live.peak


def _job(model: Callable[[], nn.Module], batch: Any, loss: Any = F.cross_entropy, optimizer: Any = None) -> Job:
    return Job(model=model, batch=batch, loss=loss, optimizer=optimizer or torch.optim.AdamW, amp=None)


def _images(size: int, classes: int, samples: int) -> Any:
    return torch.randn(samples, 3, size, size), torch.randint(classes, (samples,))


class _Returning(nn.Module):
    """A transformers model that is given keywords and returns its loss."""

    def __init__(self, name: str, config: Any, *, checkpoint: bool = False) -> None:
        super().__init__()
        import transformers

        self.model = getattr(transformers, name)(config)
        if checkpoint:
            self.model.gradient_checkpointing_enable()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self.model(**inputs).loss
        return loss


def _text(samples: int, *, classes: int = 0) -> Any:
    ids = torch.randint(5, 500, (samples, 32))
    labels = torch.randint(classes, (samples,)) if classes else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}, torch.zeros(samples)


def _loss_of(output: Tensor, _: Tensor) -> Tensor:
    return output


def _vision() -> dict[str, Job]:
    names = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0", "squeezenet1_1")
    names += ("efficientnet_b0", "regnet_y_400mf", "densenet121", "mnasnet1_0", "convnext_tiny", "swin_t")
    import torchvision

    make = {name: partial(getattr(torchvision.models, name), num_classes=10) for name in names}
    return {f"torchvision {name}": _job(one, partial(_images, 64, 10)) for name, one in make.items()}


def _timm() -> dict[str, Job]:
    import timm

    names = (
        "convnext_atto",
        "resnext50_32x4d",
        "ghostnet_100",
        "dpn68",
        "hrnet_w18_small",
        "mixnet_s",
        "res2net50_26w_4s",
    )
    names += ("edgenext_xx_small", "poolformer_s12", "repvgg_a0", "dla34", "seresnet50", "lcnet_050", "fastvit_t8")
    make = {name: partial(timm.create_model, name, num_classes=10) for name in names}
    return {f"timm {name}": _job(one, partial(_images, 64, 10)) for name, one in make.items()}


def _grouped(name: str) -> dict[str, int]:
    """Heads of keys and values, of models whose own number is more than these small ones have heads."""
    grouped = name.startswith(("Mistral", "Qwen2", "Gemma"))
    return {"num_key_value_heads": 2, "head_dim": 16} if grouped else {}


def _transformers() -> dict[str, Job]:
    import transformers as hf

    small = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    eager = {**small, "intermediate_size": 128, "attn_implementation": "eager"}
    language = {
        "LlamaForCausalLM": hf.LlamaConfig,
        "MistralForCausalLM": hf.MistralConfig,
        "Qwen2ForCausalLM": hf.Qwen2Config,
        "GemmaForCausalLM": hf.GemmaConfig,
        "GPTNeoXForCausalLM": hf.GPTNeoXConfig,
        "PhiForCausalLM": hf.PhiConfig,
        "BertForMaskedLM": hf.BertConfig,
        "RobertaForMaskedLM": hf.RobertaConfig,
        "ElectraForMaskedLM": hf.ElectraConfig,
    }
    jobs = {
        name: _job(partial(_Returning, name, config(**eager, **_grouped(name))), _text, _loss_of)
        for name, config in language.items()
    }
    name, config = "LlamaForCausalLM", hf.LlamaConfig(**eager, use_cache=False)
    jobs[f"{name} checkpointed"] = _job(partial(_Returning, name, config, checkpoint=True), _text, _loss_of)
    jobs[f"{name} attention sdpa"] = _job(
        partial(_Returning, name, hf.LlamaConfig(**{**eager, "attn_implementation": "sdpa"})), _text, _loss_of
    )
    return {f"transformers {name}": job for name, job in jobs.items()}


def _sequences() -> dict[str, Job]:
    class Recurrent(nn.Module):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.layer, self.head = getattr(nn, kind)(32, 64, batch_first=True), nn.Linear(64, 10)

        def forward(self, values: Tensor) -> Tensor:
            scores: Tensor = self.head(self.layer(values)[0][:, -1])
            return scores

    def steps(samples: int) -> Any:
        return torch.randn(samples, 50, 32), torch.randint(10, (samples,))

    return {kind: _job(partial(Recurrent, kind), steps) for kind in ("LSTM", "GRU")}


def _values() -> dict[str, Job]:
    def kept(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs[targets != 1], targets[targets != 1])

    def finite(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, targets)
        assert torch.isfinite(loss)
        return loss if loss.item() < 1e9 else loss * 0

    def rows(samples: int) -> Any:
        return torch.randn(samples, 256), torch.randint(10, (samples,))

    network = partial(nn.Linear, 256, 10)
    return {"mask of the targets": _job(network, rows, kept), "flags and items": _job(network, rows, finite)}


def _optimizers() -> dict[str, Job]:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    def rows(samples: int) -> Any:
        return torch.randn(samples, 128), torch.randint(10, (samples,))

    names = (
        "SGD",
        "Adam",
        "AdamW",
        "Adamax",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "ASGD",
        "Rprop",
        "Adafactor",
    )
    return {f"optimizer {name}": _job(network, rows, optimizer=getattr(torch.optim, name)) for name in names} | {
        "optimizer AdamW fused": _job(network, rows, optimizer=partial(torch.optim.AdamW, fused=True))
    }


FAMILIES = (_vision, _timm, _transformers, _sequences, _values, _optimizers)


def all_jobs() -> dict[str, Job]:
    """Every job whose libraries are here."""
    jobs: dict[str, Job] = {}
    for family in FAMILIES:
        try:
            jobs |= family()
        except ImportError as error:
            print(f"left out: {family.__name__} ({error})", file=sys.stderr)
    return jobs


def compared(name: str) -> dict[str, Any]:
    """One job: predicted and true bytes, or why it is refused."""
    job, start = all_jobs()[name], time.monotonic()
    row: dict[str, Any] = {"job": name}
    try:
        trace = trace_step(job, BATCH, validation=False)
        row |= {"predicted_bytes": trace.peak_bytes, "assumptions": trace.assumptions}
    except VramfitError as error:
        row["refused"] = str(error)
    row["predict_s"] = round(time.monotonic() - start, 2)
    row["true_bytes"] = true_bytes(job, BATCH)
    if "predicted_bytes" in row:
        row["error"] = round(row["predicted_bytes"] / row["true_bytes"] - 1, 4)
        row["kernels"] = "others on a card" if any(kind in name for kind in OTHER_KERNELS) else "equal"
    return row


def _summary(rows: list[dict[str, Any]]) -> dict[str, int]:
    predicted = [row for row in rows if "error" in row]
    equal = [row for row in predicted if row["kernels"] == "equal"]
    return {
        "jobs": len(rows),
        "refused": sum("refused" in row for row in rows),
        "failed": sum("failed" in row for row in rows),
        "predicted": len(predicted),
        "with_equal_kernels": len(equal),
        "within_5_percent_of_those": sum(abs(row["error"]) <= 0.05 for row in equal),
    }


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(all_jobs())
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        for name in names:
            try:
                rows.append(pool.apply_async(compared, (name,)).get(LIMIT_S))
            except Exception as error:
                rows.append({"job": name, "failed": f"{type(error).__name__}: {error}"[:300]})
            print(json.dumps(rows[-1]), flush=True)
    conclude(
        rows,
        _summary(rows),
        versions(("torch", "torchvision", "timm", "transformers")),
        None if sys.argv[1:] else RESULTS,
    )


def conclude(
    rows: list[dict[str, Any]], summary: dict[str, Any], versions: dict[str, str], results: Path | None
) -> None:
    """Print the summary of jobs that were compared; write it with the rows to a file, if all of them were."""
    document = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "hardware": f"{platform.machine()}, no GPU",
        "versions": versions,
        "summary": summary,
        "rows": rows,
    }
    print(json.dumps(summary))
    if results is not None:
        write_atomically(results, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
