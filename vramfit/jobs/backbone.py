"""A classification job for any timm model: `timm:NAME` on the command line.

B batch, H W pixels.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vramfit.choices import Amp
from vramfit.errors import UsageError
from vramfit.jobs.job import Batch, Job
from vramfit.records import Lever

_CLASSES = 1000


def backbone_job(
    model: str,
    *,
    image_size: tuple[int, int] | None = None,
    amp: Amp | None = "fp16",
    channels_last: bool = False,
    cudnn_benchmark: bool = False,
    optimizer: str = "adamw",
    levers: tuple[Lever, ...] = (),
) -> Job:
    """Training a timm model to classify RGB images, without pretrained weights; it pickles.

    Args:
        model: a timm model's name.
        image_size: (height, width) in pixels, None for the size that the model was made for.
        amp: autocast dtype.
        channels_last: NHWC memory order.
        cudnn_benchmark: let cuDNN time its algorithms.
        optimizer: `adamw` or `sgd` (momentum 0.9).
        levers: settings that trade time for memory.

    Raises:
        UsageError: timm has no such model, or the optimizer is neither; names near misses.

    """
    own_size = _own_size(model)
    size = image_size or own_size
    return Job(
        model=partial(build, model, size if size != own_size else None),
        batch=partial(synthetic_batch, size),
        loss=_loss,
        optimizer=partial(_optimizer, optimizer),
        amp=amp,
        channels_last=channels_last,
        cudnn_benchmark=cudnn_benchmark,
        levers=levers,
        name="backbone",
        model_name=model,
        image_size=size,
    )


def build(model: str, image_size: tuple[int, int] | None) -> nn.Module:
    """The timm model with its classifier; a size is passed on to models that are built for one."""
    import timm

    if image_size is not None:
        try:
            sized: nn.Module = timm.create_model(model, img_size=image_size)
            return sized
        except TypeError:  # convolutional networks take any size and know no such argument
            pass
    network: nn.Module = timm.create_model(model)
    return network


def synthetic_batch(image_size: tuple[int, int], samples: int) -> Batch:
    """Images float32 B3HW and class numbers int64 B, of no meaning; no random state is touched."""
    images = torch.linspace(-1, 1, samples * 3 * image_size[0] * image_size[1])
    return images.view(samples, 3, *image_size), torch.arange(samples) % _CLASSES


def _own_size(model: str) -> tuple[int, int]:
    import timm

    if not timm.is_model(model):
        near = _near(model)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise UsageError(f"timm has no model '{model}'{hint}.")
    settings: Any = timm.get_pretrained_cfg(model, allow_unregistered=True)
    _, height, width = settings.input_size if settings else (3, 224, 224)
    return height, width


def _near(model: str) -> list[str]:
    import difflib

    import timm

    return difflib.get_close_matches(model, timm.list_models(), n=3, cutoff=0.5)


def _loss(outputs: Any, targets: Tensor) -> Tensor:
    logits = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return F.cross_entropy(logits.float(), targets)


def _optimizer(name: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-3)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    raise UsageError(f"optimizer '{name}' is not known; use adamw or sgd.")
