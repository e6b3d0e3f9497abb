"""Levers that save memory, on real steps: the same gradients, the bytes that the trace says, and the predicted time.

Each job runs one step on the CPU with and without a lever: gradients are compared, and the bytes of live tensors with
those of the trace (float32, no rounding, workspace or context). What is offloaded does not count. Times are predicted
for an RTX 3090; none was measured on a card.

    python benchmarks/levers.py [JOB ...]

Needs timm, and for more jobs transformers; what is missing is left out.
"""

import gc
import json
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from live_bytes import Live
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from vramfit._version import __version__
from vramfit.files import write_atomically
from vramfit.jobs import offload
from vramfit.jobs.batch import sample_batch, tensors_in
from vramfit.jobs.job import Job
from vramfit.jobs.levers.text import parse_levers
from vramfit.jobs.step import Step
from vramfit.prediction.predict import predict
from vramfit.prediction.tracing.trace import trace_step

RESULTS = Path(__file__).parent / "results" / "levers.json"
LEVERS = (
    "none",
    "chunked_loss",
    "gradient_checkpointing",
    "recompute=block",
    "optimizer_in_backward",
    "offload_activations",
    "chunked_loss,gradient_checkpointing,optimizer_in_backward",
)
# As a card's optimizer works: through all weights together.
ADAMW = partial(torch.optim.AdamW, lr=1e-3, foreach=True)
SAMPLES = {"gpt2": 4, "llama": 4, "t5": 4, "vit": 8}


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=128, n_head=4, vocab_size=16000, use_cache=False, **drop))


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(**shape, vocab_size=16000, use_cache=False))


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    shape = {"d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    return T5ForConditionalGeneration(T5Config(**shape, vocab_size=16000, use_cache=False, decoder_start_token_id=0))


def vit() -> nn.Module:
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=96, depth=4)


def tokens(samples: int) -> dict[str, Tensor]:
    ids = (torch.arange(samples * 128).view(samples, 128) * 7919) % 16000
    return {"input_ids": ids, "labels": ids}


def images(samples: int) -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 1, samples * 3 * 96 * 96).view(samples, 3, 96, 96), torch.arange(samples)


def job_of(name: str) -> Job:
    language = name != "vit"
    return Job(
        model=globals()[name],
        batch=tokens if language else images,
        loss=None if language else F.cross_entropy,
        optimizer=ADAMW,
        amp=None,
        name=name,
    )


def gradients(job: Job, samples: int) -> dict[str, Tensor]:
    """What each weight was moved by in one step of plain descent: its gradient, whenever the optimizer steps."""
    torch.manual_seed(0)
    step = Step(replace(job, optimizer=partial(torch.optim.SGD, lr=1.0)), "cpu")
    before = {name: value.detach().clone() for name, value in step.model.named_parameters()}
    step.train(sample_batch(job, samples), samples)
    return {name: before[name] - value.detach() for name, value in step.model.named_parameters()}


def live_peak(job: Job, samples: int) -> int:
    """The most bytes alive in two real steps."""
    torch.manual_seed(0)
    step, live, batch = Step(job, "cpu"), Live(), sample_batch(job, samples)
    with live:
        for value in (*step.model.parameters(), *step.model.buffers(), *tensors_in(batch)):
            live.add(value)
        for _ in range(2):
            step.train(batch, samples)
    return live.peak


def measured(job: Job, samples: int) -> dict[str, Any]:
    plain = gradients(job, samples)
    rows: dict[str, Any] = {}
    for levers in LEVERS:
        tried = replace(job, levers=parse_levers(levers))
        try:
            ours = gradients(tried, samples)
        except Exception as error:
            rows[levers] = {"refused": str(error).splitlines()[0]}
            continue
        largest = max(float(value.abs().max()) for value in plain.values())
        difference = max(float((ours[name] - value).abs().max()) for name, value in plain.items()) / largest
        real, traced = live_peak(tried, samples), trace_step(tried, samples, validation=False).peak_bytes
        predicted = predict(replace(tried, amp="bf16"), micro_batch=8 * samples, gpu="rtx3090")
        rows[levers] = {
            "largest_gradient_difference": difference,
            "live_bytes": real,
            "traced_bytes": traced,
            "predicted_step_time_s": predicted.step_time_s,
            "predicted_peak_allocated_bytes": predicted.peak_allocated_bytes,
        }
        print(
            f"{job.name} {levers}: {difference:.1e}, real {real / 2**20:.1f} MiB, trace {traced / real - 1:+.2%}",
            flush=True,
        )
        gc.collect()
    return rows


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    to_host = offload.to_host

    def uncounted(tensor: Tensor) -> Tensor:
        with _disable_current_modes():
            return to_host(tensor)

    offload.to_host = uncounted
    results = {}
    for name in sys.argv[1:] or SAMPLES:
        try:
            results[name] = measured(job_of(name), SAMPLES[name])
        except ImportError as error:
            print(f"{name}: left out, {error}")
    about = {
        "vramfit": __version__,
        "torch": torch.__version__,
        "transformers": metadata.version("transformers") if "gpt2" in results else None,
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": "bytes: a CPU; times: predicted for an RTX 3090 in bf16, not measured",
    }
    write_atomically(RESULTS, json.dumps({"about": about, "jobs": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
