"""Options that several verbs share, each spelled once: what one verb calls --decode means the same in every other."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from vramfit.landmarks.model.options import NetworkOptions

ModelOrFactory = Annotated[
    str,
    typer.Option(
        help="hrnet, a timm HRNet's name, timm:NAME, or module:function or file.py:function, which returns a Job.",
        metavar="NAME",
    ),
]
# None is not given: a model by its name then has these, and a Job of one's own keeps what it says itself.
DEFAULT_MODEL = NetworkOptions.model
DEFAULT_SIZE = NetworkOptions.image_size
DEFAULT_PRECISION = NetworkOptions.amp
ImageSize = Annotated[
    tuple[int, int] | None,
    typer.Option(help="Height and width in pixels; 768 768 if not given.", metavar="H W"),
]
MixedPrecision = Annotated[
    Literal["fp16", "bf16", "off"] | None,
    typer.Option(help="Mixed precision of the step, off for float32; if not given fp16, or what a Job says itself."),
]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="NHWC memory order.")]

Checkpoint = Annotated[
    Path,
    typer.Option(help="checkpoint_best.pth of `vramfit train`, or safetensors of `vramfit export`.", metavar="FILE"),
]
Decode = Annotated[Literal["dark", "argmax", "soft"], typer.Option(help="How a point is found in its heatmap.")]
Views = Annotated[
    int,
    typer.Option("--tta", min=1, metavar="N", help="Test-time augmentation: the mean of N views, a little rotated."),
]
DeviceToUse = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto is the GPU where there is one.")]
FilmsAtOnce = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Films at once; if not given, what the card is fastest with, and 4 on a CPU."
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out films that cannot be used, and list them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
FilmFormat = Annotated[
    str | None, typer.Option("--format", help="The film set's format, if it is not to be detected.", metavar="NAME")
]
