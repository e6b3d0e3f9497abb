"""What can be chosen about a classification run; read by the command line, so it loads fast."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vramfit.choices import Amp
from vramfit.options import option
from vramfit.training.run_options import RunOptions
from vramfit.units import parse_image_size


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(RunOptions):
    """A classification run; `image_size` is (height, width), None for the size that the model was made for."""

    dataset_path: Path = option(
        help="A folder with a folder of images for each class, or with train and val folders of those.", metavar="PATH"
    )
    model: str = option("timm:resnet18", "A timm model, as timm:NAME.", metavar="NAME")
    image_size: tuple[int, int] | None = option(
        None,
        "Pixels: 224, or height and width as 224x320; else the model's.",
        flags=("--image-size", "--imgsz"),
        metavar="SIZE",
        read=parse_image_size,
    )
    weights: str = option("auto", "Weights to start from.", metavar="auto|imagenet|none|FILE", on_resume="silent")
    augmentation: Literal["none", "standard", "rand-augment"] = option("standard", "How far images are changed.")
    amp: Amp | None = option("fp16", "Mixed precision by its type; fp16 if not given.")
    learning_rate: float = option(1e-3, "Highest learning rate.", flags=("--lr",), metavar="X", above=0)
    weight_decay: float = option(0.05, "AdamW's weight decay.", metavar="X", minimum=0)
    clip_norm: float | None = option(
        None, "Largest norm of the gradient.", flags=("--clip-norm", "--clip-grad"), metavar="X", above=0
    )
    ema_decay: float | None = option(
        None,
        "Decay of averaged weights, which are then judged and kept.",
        flags=("--ema-decay", "--model-ema-decay"),
        metavar="X",
    )
    channels_last: bool = option(False, "NHWC memory order.")
    cudnn_benchmark: bool = option(False, "Let cuDNN time its algorithms.")
