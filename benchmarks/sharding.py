"""What does a rank of FSDP2 or DDP hold? Networks on several ranks, run for real by torch, beside the prediction.

    python benchmarks/sharding.py [NAME ...]

The truth is a plain loop of two steps on the CPU that shards the blocks a user would name, and counts the bytes of
storages that are alive on rank 0, as `live_bytes.py` does: with two ranks in two processes that talk by gloo, with
eight in one process whose collectives return at once (torch's fake process group). Rounding, streams, NCCL and context
are in neither. Needs transformers, timm and torchvision.
"""

import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ending import versions
from live_bytes import Live, _as_on_a_card, conclude
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass_type

from vramfit.jobs.job import Job
from vramfit.jobs.levers.text import parse_levers
from vramfit.prediction.tracing.trace import trace_step

RESULTS = Path(__file__).parent / "results" / "sharding.json"
SAMPLES, TOKENS, WORDS = 4, 32, 211
WITHIN = 0.05
RANKS = {2: "gloo", 8: "fake"}
SETTINGS = {2: ("fsdp=on", "fsdp=keep", "ddp=on", "ddp=views"), 8: ("fsdp=on", "fsdp=keep")}


@dataclass(frozen=True)
class Case:
    """A network, its batch, and the paths of the lists whose members its user shards one by one.

    `named` says whether the prediction is told them, where they are not the blocks that it finds by itself.
    """

    model: Callable[[], nn.Module]
    batch: Callable[[int], tuple[Tensor, Tensor]]
    blocks: str
    loss: Callable[[Any, Tensor], Tensor] = F.cross_entropy
    optimizer: Callable[[Any], torch.optim.Optimizer] = torch.optim.AdamW
    named: bool = False


def ids(samples: int) -> tuple[Tensor, Tensor]:
    words = torch.randint(5, WORDS, (samples, TOKENS))
    return words, words


def images(samples: int) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 3, 64, 64), torch.randint(10, (samples,))


def vectors(samples: int) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 65), torch.randn(samples, 65)


class Perceptron(nn.Module):
    """Layers whose widths no number of ranks divides."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(65, 257), nn.ReLU(), nn.Linear(257, 65)) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 65) -> (B, 65)."""
        for layer in self.layers:
            x = x + layer(x)
        return x


class Words(nn.Module):
    """A language model that returns its logits, (B, words, tokens)."""

    def __init__(self, kind: str, **config: Any) -> None:
        super().__init__()
        import transformers

        self.model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(kind, vocab_size=WORDS, bos_token_id=0, eos_token_id=1, **config)
        )

    def forward(self, words: Tensor) -> Tensor:
        """(B, tokens) -> (B, words, tokens)."""
        return self.model(input_ids=words, use_cache=False).logits.transpose(1, 2)


class Encoder(nn.Module):
    """torch's own layers between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 96)
        layer = nn.TransformerEncoderLayer(96, 4, 384, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(96, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        """(B, tokens) -> (B, words, tokens)."""
        return self.head(self.encoder(self.words(words))).transpose(1, 2)


def timm_model(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=10, **options)


def resnet() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=10)


GPT2 = {"n_embd": 96, "n_layer": 4, "n_head": 4, "n_positions": 64}
LLAMA = {
    "hidden_size": 96,
    "intermediate_size": 250,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VIT = {"img_size": 64, "patch_size": 16, "embed_dim": 96, "depth": 4, "num_heads": 4}
CASES: dict[str, Case] = {
    "perceptron of odd widths": Case(Perceptron, vectors, "layers", F.mse_loss),
    "perceptron, SGD": Case(Perceptron, vectors, "layers", F.mse_loss, partial(torch.optim.SGD, lr=0.1)),
    "gpt2, tied words": Case(partial(Words, "gpt2", **GPT2), ids, "model.transformer.h"),
    "llama, grouped keys": Case(partial(Words, "llama", **LLAMA), ids, "model.model.layers"),
    "torch encoder": Case(Encoder, ids, "encoder.layers"),
    "vit of timm": Case(partial(timm_model, "vit_tiny_patch16_224", **VIT), images, "blocks"),
    "resnet18": Case(resnet, images, "layer1 layer2 layer3 layer4"),
    "convnext of timm": Case(
        partial(timm_model, "convnext_atto", depths=(1, 1, 2, 1), dims=(24, 48, 96, 192)), images, "stages", named=True
    ),
}


class LiveShards(Live):
    """Live bytes where parameters are DTensors, which hold no memory beside their parts."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(map(is_traceable_wrapper_subclass_type, types)):
            return NotImplemented
        return super().__torch_dispatch__(func, types, args, kwargs)

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage; of a DTensor, its part's; none of what only asks for shapes."""
        part = getattr(tensor, "_local_tensor", tensor)
        if part.untyped_storage().device.type != "meta":
            super().add(part)

    def watch_resizing(self) -> None:
        """Count what FSDP2 frees and takes by resizing storages, which no operation shows."""
        from torch.distributed.fsdp._fully_shard import _fsdp_param

        for name in ("alloc_storage", "free_storage"):
            setattr(_fsdp_param, name, partial(self._resized, getattr(_fsdp_param, name)))

    def watch_no_collectives(self) -> None:
        """Leave out what gloo copies while it talks, which NCCL does not."""
        for name in ("all_gather_single", "reduce_scatter_single"):
            setattr(dist, name, partial(self._unseen, getattr(dist, name)))

    def _unseen(self, collective: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return collective(*args, **kwargs)

    def _resized(self, resize: Callable[[Tensor], None], tensor: Tensor) -> None:
        resize(tensor)
        self.add(tensor)


def blocks_of(case: Case, model: nn.Module) -> list[nn.Module]:
    return [block for path in case.blocks.split() for block in model.get_submodule(path)]  # type: ignore[union-attr]


def rank_bytes(name: str, setting: str, ranks: int, rank: int, meeting: str, answers: Any) -> None:
    """One rank's truth: the most bytes of tensors alive in set-up and two steps."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if RANKS[ranks] == "fake":
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    else:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    case, live = CASES[name], LiveShards()
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (ranks,))
    with _as_on_a_card():
        model, host = case.model(), case.batch(SAMPLES)
        shard = partial(fully_shard, mesh=mesh, reshard_after_forward=setting == "fsdp=on")
        live.watch_resizing()
        live.watch_no_collectives()
        with live:
            for block in [*blocks_of(case, model), model]:
                for tensor in [*block.parameters(), *block.buffers()]:
                    live.add(tensor)  # as it comes to the card
                if setting.startswith("fsdp"):
                    shard(block)
            if setting.startswith("ddp"):
                model = DistributedDataParallel(model, gradient_as_bucket_view=setting == "ddp=views")
            optimizer = case.optimizer(model.parameters())
            model.train()
            for _ in range(2):
                inputs, targets = map(torch.clone, host)
                loss = case.loss(model(inputs), targets)
                loss.backward()
                del inputs, targets, loss
                optimizer.step()
                optimizer.zero_grad()
        gc.collect()
    if rank == 0:
        answers.put(live.peak)
    dist.destroy_process_group()


def true_bytes(name: str, setting: str, ranks: int) -> int:
    context = multiprocessing.get_context("fork")  # what is loaded is loaded once
    answers = context.Queue()
    here = range(ranks if RANKS[ranks] == "gloo" else 1)
    with tempfile.TemporaryDirectory() as folder, sdpa_kernel(SDPBackend.MATH):
        given = [(name, setting, ranks, rank, f"{folder}/meeting", answers) for rank in here]
        processes = [context.Process(target=_with_plain_attention, args=one) for one in given]
        for process in processes:
            process.start()
        found: int = answers.get(timeout=400)
        for process in processes:
            process.join()
    return found


def _with_plain_attention(*given: Any) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        rank_bytes(*given)


def predicted_bytes(name: str, setting: str, ranks: int) -> int:
    case = CASES[name]
    levers = parse_levers(setting + (_told(case) if setting.startswith("fsdp") else ""))
    return traced_bytes(case, levers=levers, cards=ranks)


def traced_bytes(case: Case, **more: Any) -> int:
    """What is predicted of a network; `more` is what else its Job says."""
    job = Job(model=case.model, batch=case.batch, loss=case.loss, optimizer=case.optimizer, amp=None, **more)
    with sdpa_kernel(SDPBackend.MATH):
        return trace_step(job, SAMPLES, validation=False).peak_bytes


def _told(case: Case) -> str:
    """The blocks by name, as a lever is given them."""
    if not case.named:
        return ""
    model = case.model()
    names = [f"{path}.{number}" for path in case.blocks.split() for number, _ in enumerate(model.get_submodule(path))]  # type: ignore[arg-type]
    return f"@{'+'.join(names)}"


def rows_of(name: str) -> list[dict[str, Any]]:
    rows = []
    alone = traced_bytes(CASES[name])
    for ranks, talking in RANKS.items():
        for setting in SETTINGS[ranks]:
            start = time.monotonic()
            predicted = predicted_bytes(name, setting, ranks)
            seconds, true = round(time.monotonic() - start, 2), true_bytes(name, setting, ranks)
            rows.append(
                {
                    "network": name,
                    "lever": setting,
                    "ranks": ranks,
                    "truth": talking,
                    "predicted_bytes": predicted,
                    "true_bytes": true,
                    "error": round(predicted / true - 1, 4),
                    "one_card_bytes": alone,
                    "predict_s": seconds,
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(CASES)
    rows = [row for name in names for row in rows_of(name)]
    summary = {
        "networks": len(names),
        "rows": len(rows),
        "within_5_percent": sum(abs(row["error"]) <= WITHIN for row in rows),
        "largest_error": max(abs(row["error"]) for row in rows),
        "lowest": min(row["error"] for row in rows),
    }
    made_with = versions(("torch", "transformers", "timm", "torchvision"))
    conclude(rows, summary, made_with, None if sys.argv[1:] else RESULTS)


if __name__ == "__main__":
    main()
