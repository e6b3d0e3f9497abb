"""The job of training a Hugging Face model: `hf:NAME` on the command line."""

from functools import partial
from pathlib import Path

import torch

from vramfit.choices import Amp
from vramfit.jobs.hub.batches import batch_maker
from vramfit.jobs.hub.config import read_config
from vramfit.jobs.hub.network import architecture_of, build_network
from vramfit.jobs.hub.options import HubOptions
from vramfit.jobs.job import Job
from vramfit.records import Lever

_NO_OPTIONS = HubOptions()
_FULL_RATE, _ADAPTER_RATE = 5e-5, 2e-4


def hub_job(
    source: str,
    *,
    options: HubOptions = _NO_OPTIONS,
    image_size: tuple[int, int] | None = None,
    amp: Amp | None = "bf16",
    channels_last: bool = False,
    levers: tuple[Lever, ...] = (),
) -> Job:
    """Training a Hugging Face model with AdamW on batches of no meaning, with drawn weights; it pickles.

    Args:
        source: a folder with a `config.json`, such a file, or a model's name on the hub.
        options: length of sequences, LoRA and quantized weights.
        image_size: (height, width) in pixels, of models that see images.
        amp: autocast dtype.
        channels_last: NHWC memory order.
        levers: settings that trade time for memory.

    Raises:
        UsageError: the configuration is not found, a library is missing, or the model does not suit the options.

    """
    config = read_config(source)
    architecture = architecture_of(config)
    batch = batch_maker(architecture, config, seq_len=options.seq_len, image_size=image_size)
    if image_size is not None and hasattr(config, "image_size"):
        config.image_size = image_size[0] if image_size[0] == image_size[1] else list(image_size)
    added = options.name()
    name = Path(source).name if Path(source).name != "config.json" else Path(source).resolve().parent.name
    return Job(
        model=partial(build_network, config, architecture, options, amp),
        batch=batch,
        optimizer=partial(torch.optim.AdamW, lr=_FULL_RATE if options.lora is None else _ADAPTER_RATE),
        amp=amp,
        channels_last=channels_last,
        levers=levers,
        name="hf",
        model_name=f"{name} ({added})" if added else name,
        image_size=image_size,
    )
