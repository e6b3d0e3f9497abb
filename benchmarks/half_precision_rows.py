"""Published measurements of half-precision training on L40S, H100, H200, RTX 3070 and T4, and the jobs they are of.

The file half_precision.csv is no part of the project: VRAMFIT_MEASUREMENTS names its folder. Most rows are of
milabench's configurations at fixed batches; its scripts say how each step goes, and so do the jobs here:

- transformers: BERT and T5 with labels, Adam, gradients that are never dropped, no gradient scaler;
- torchvision: SGD, half-precision inputs, a gradient scaler; or Lightning's order of a step, in which the gradients of
  the last step live through the forward pass;
- YOLO AutoBatch: three forward and backward passes without an optimizer, memory that the allocator reserves.
"""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from calibration_rows import KeptGradients, data_folder
from half_precision_yolo import YOLO_MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.jobs.job import Batch, Job
from vramfit.units import MIB

_IMAGE = (3, 224, 224)


@dataclass(frozen=True)
class HalfRow:
    """One measurement; `reserved` says whether it is what the allocator reserves or what NVML shows of the device.

    `full_card` ran at the card's edge, where the allocator releases what it caches; `driver_bytes` is what the driver
    keeps of the card and NVML counts as used.
    """

    model: str
    batch: int
    half: bool
    gpu: str
    measured_bytes: float
    reserved: bool
    full_card: bool
    driver_bytes: int

    @property
    def key(self) -> str:
        """Names the row's trace in the cache."""
        return f"half-{self.model.replace(' ', '_').replace('(', '').replace(')', '')}-{self.half}"

    @property
    def fair(self) -> bool:
        """Whether the row says what a job takes: not what was left at the card's edge, not a figure of two digits."""
        return not self.full_card and not (self.reserved and self.batch < 4)


def half_rows() -> list[HalfRow]:
    """Every row of the file."""
    with (data_folder() / "half_precision.csv").open(newline="", encoding="utf-8") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _row(row: dict[str, str]) -> HalfRow:
    reserved = row["kind"] == "reserved"
    return HalfRow(
        model=row["model"],
        batch=int(row["batch"]),
        half=row["precision"] != "fp32",
        gpu=row["gpu"],
        # The reserved rows are in units of 1e6 bytes (torch.cuda.memory_reserved() / 1e9, in GB).
        measured_bytes=float(row["measured_mib"]) * (1e6 if reserved else MIB),
        reserved=reserved,
        full_card=row["full_card"] == "True",
        driver_bytes=int(row["reserve"]) * MIB,
    )


def half_job(row: HalfRow) -> Job:
    """The job that a row was measured with."""
    if row.model.startswith("HF "):
        return _transformer(row.model, row.half)
    if row.model == "torchvision resnet152":
        return _lightning("resnet152")
    if row.model.startswith("torchvision "):
        return _torchvision(row.model.removeprefix("torchvision "))
    return _yolo(row)


# -- transformers -----------------------------------------------------------------------------------------------------


class _WithLabels(nn.Module):
    """A transformer that is given its labels, and returns its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Any:
        """The model's output, loss included, for token and label numbers of shape (B, L)."""
        return self.model(**inputs)


def _transformer(model: str, half: bool) -> Job:
    build, tokens, words = (_bert, 512, 30522) if "Bert" in model else (_t5, 1024, 32128)

    def batch(samples: int) -> Batch:
        numbers = torch.randint(words, (samples, tokens))
        return {"input_ids": numbers, "labels": numbers.clone()}, torch.zeros(samples)

    return Job(
        model=lambda: _WithLabels(build()),
        batch=batch,
        loss=lambda outputs, _: outputs.loss,
        optimizer=_never_dropping(torch.optim.Adam),
        amp="fp16" if half else None,
        name=model,
    )


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig())


def _t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    # t5-small; transformers of early 2025 multiplied T5's attention out.
    config = T5Config(
        d_model=512, d_ff=2048, d_kv=64, num_layers=6, num_heads=8, vocab_size=32128, decoder_start_token_id=0,
        attn_implementation="eager",
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def _never_dropping(kind: type[torch.optim.Optimizer]) -> Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]:
    def build(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer = kind(parameters, lr=1e-3)  # type: ignore[call-arg]  # every optimizer has a rate
        optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]  # gradients add up
        return optimizer

    return build


# -- torchvision ------------------------------------------------------------------------------------------------------


def _vision_model(name: str) -> nn.Module:
    import torchvision

    model: nn.Module = getattr(torchvision.models, name)()
    return model


def _vision_batch(dtype: torch.dtype, samples: int) -> Batch:
    return torch.zeros(samples, *_IMAGE, dtype=dtype), torch.zeros(samples, dtype=torch.int64)


def _torchvision(name: str) -> Job:
    return Job(
        model=partial(_vision_model, name),
        batch=partial(_vision_batch, torch.float16),
        loss=F.cross_entropy,
        optimizer=partial(torch.optim.SGD, lr=0.01),
        amp="fp16",
        name=name,
    )


class _Lightning:
    """Lightning's step: forward, then the gradients of the last step are dropped, then backward."""

    def __init__(self) -> None:
        self._drop: Callable[[], None] = lambda: None

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam that drops its gradients when the loss is known, and not after its step."""
        optimizer = torch.optim.Adam(parameters, lr=1e-3)
        self._drop = optimizer.zero_grad
        optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]  # see `loss`
        return optimizer

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; then drops the gradients."""
        loss = F.cross_entropy(outputs, targets)
        self._drop()
        return loss


def _lightning(name: str) -> Job:
    order = _Lightning()
    return Job(
        model=partial(_vision_model, name),
        batch=partial(_vision_batch, torch.float32),
        loss=order.loss,
        optimizer=order.optimizer,
        amp="bf16",
        name=name,
    )


# -- YOLO -------------------------------------------------------------------------------------------------------------


def _yolo(row: HalfRow) -> Job:
    build, size = YOLO_MODELS[row.model.split()[0]]

    def batch(samples: int) -> Batch:
        return torch.zeros(samples, 3, size, size), torch.zeros(samples)

    return Job(
        model=build,
        batch=batch,
        loss=lambda outputs, _: sum(output.sum() for output in outputs),
        optimizer=_still,
        amp="fp16",
        name=row.model,
    )


def _still(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """An optimizer that does nothing: AutoBatch runs none."""
    optimizer = KeptGradients.sgd(parameters)
    optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]  # gradients add up
    optimizer.step = lambda *_, **__: None  # type: ignore[method-assign]  # no step is taken
    return optimizer
